"""How well tracks follow persons: IDF1, switches and fragments of the trackers.

The first run renders the sequences and detects their poses, in about a quarter of an hour; they are
kept in the user's cache, and later runs take seconds.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from edgepose.build import build_tracker
from edgepose.config.schema import Config
from edgepose.protocols import Tracker
from edgepose.tracking.no_tracker import NoTracker
from tests.builders import load_model
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
HEAD: Final = (
    "| sequences | frames a second | tracker | IDF1 | ids | switches | fragments |\n"
    "|---|---:|---|---:|---:|---:|---:|\n"
)
TRACKERS: Final[dict[str, Callable[[], Tracker]]] = {
    "none": NoTracker,
    "tfjs": TfjsTracker,
    "edgepose": lambda: build_tracker(Config()),
}


def table() -> str:
    """Return the trackers by sequences and frame rate, as Markdown."""
    found = _detected(SEQUENCES)
    parts = {"tuning": found[:TUNING], "checking": found[TUNING:]}
    return HEAD + "".join(line for part in parts for line in _lines(part, parts[part]))


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
