"""`make quality`: how well tracks follow persons, as the table of docs/people.md.

The first run renders the sequences and detects their poses, in about a quarter of an hour; they are
kept in the user's cache, and later runs take seconds.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from edgepose.build import build_tracker
from edgepose.config.schema import Config
from edgepose.protocols import Tracker
from edgepose.tracking.no_tracker import NoTracker
from tests.builders import load_model
from tests.conftest import ROOT
from tests.quality.detections import DetectedFrame, detected
from tests.quality.metrics import Score
from tests.quality.photographs import photographs
from tests.quality.sequences import FPS, sequences
from tests.quality.tfjs_tracker import TfjsTracker

MODEL: Final = "movenet-multipose-int8"
SEQUENCES: Final = 54
TUNING: Final = 42
"""The constants of OksTracker were chosen on the first ones; the rest is for checking only."""
RATES: Final = (5, 10, 30)
DOCUMENT: Final = ROOT / "docs" / "people.md"
BEGIN: Final = "<!-- begin of the table by make quality -->\n"
HEAD: Final = (
    "| sequences | frames a second | tracker | IDF1 | ids | switches | fragments |\n"
    "|---|---:|---|---:|---:|---:|---:|\n"
)
END: Final = "<!-- end -->\n"
TRACKERS: Final[dict[str, Callable[[], Tracker]]] = {
    "none": NoTracker,
    "tfjs": TfjsTracker,
    "edgepose": lambda: build_tracker(Config()),
}


def main() -> None:
    """Print the table, and write it into the document if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description=__doc__)
    parser.add_argument("--sequences", type=int, default=SEQUENCES, metavar="N")
    parser.add_argument("--write", action="store_true", help=f"write the table to {DOCUMENT.name}")
    options = parser.parse_args()
    found = _detected(options.sequences)
    parts = {"tuning": found[:TUNING], "checking": found[TUNING:]}
    table = HEAD + "".join(
        line for part in parts if parts[part] for line in _lines(part, parts[part])
    )
    sys.stdout.write(table)
    if options.write:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        DOCUMENT.write_text(before + BEGIN + table + END + rest.partition(END)[2])


def _detected(count: int) -> list[list[DetectedFrame]]:
    model = load_model(MODEL)
    found: list[list[DetectedFrame]] = []
    for sequence in sequences(photographs(), count):
        sys.stderr.write(f"\r{len(found) + 1} of {count} sequences")
        found.append(detected(sequence, model))
    sys.stderr.write("\n")
    return found


def _lines(part: str, found: Sequence[Sequence[DetectedFrame]]) -> Iterable[str]:
    for rate in RATES:
        slower = [frames[:: FPS // rate] for frames in found]
        for name, make in TRACKERS.items():
            score = Score()
            for frames in slower:
                score.add(make(), frames)
            counts = f"{score.ids} | {score.switches} | {score.fragments}"
            yield f"| {part} | {rate} | {name} | {score.idf1:.2f} | {counts} |\n"
        best = f"{score.best_idf1:.2f} | {score.persons} | 0 | |"
        yield f"| {part} | {rate} | (all ids right) | {best}\n"


if __name__ == "__main__":
    main()
