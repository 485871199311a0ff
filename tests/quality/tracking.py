"""How well tracks follow persons: IDF1, ids and switches of the trackers.

The first run renders the sequences and detects their poses, in about a quarter of an hour; they are
kept in the user's cache, and later runs take seconds.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
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
"""The constants of OksTracker were chosen on the first ones, but for the age of a track."""
RATES: Final = (5, 10, 30)
HEAD: Final = (
    "| sequences | tracker | IDF1 at 5 / 10 / 30 | ids | switches |\n|---|---|---:|---:|---:|\n"
)
TRACKERS: Final[dict[str, Callable[[], Tracker]]] = {
    "none": NoTracker,
    "tfjs": TfjsTracker,
    "edgepose": lambda: build_tracker(Config()),
}


def table() -> str:
    """Return the trackers by sequences, with figures by frames a second, as Markdown."""
    found = _detected(SEQUENCES)
    parts = {"tuning": found[:TUNING], "checking": found[TUNING:], "all": found}
    return HEAD + "".join(line for part in parts for line in _lines(part, parts[part]))


def _detected(count: int) -> list[list[DetectedFrame]]:
    model = load_model(MODEL)
    found: list[list[DetectedFrame]] = []
    for sequence in sequences(photographs(), count):
        sys.stderr.write(f"\r{len(found) + 1} of {count} sequences")
        found.append(detected(sequence, model))
    sys.stderr.write("\n")
    return found


def _lines(part: str, found: Sequence[Sequence[DetectedFrame]]) -> Iterator[str]:
    for name, make in TRACKERS.items():
        scores = [_score(make, found, rate) for rate in RATES]
        yield _line(part, name, scores, [score.idf1 for score in scores])
    ideal = [Score(ids=score.persons) for score in scores]
    yield _line(part, "(all ids right)", ideal, [score.best_idf1 for score in scores])


def _score(
    make: Callable[[], Tracker], found: Sequence[Sequence[DetectedFrame]], rate: int
) -> Score:
    score = Score()
    for frames in found:
        score.add(make(), frames[:: FPS // rate])
    return score


def _line(part: str, name: str, scores: Sequence[Score], idf1: Sequence[float]) -> str:
    columns = (
        " / ".join(f"{value:.2f}" for value in idf1),
        " / ".join(str(score.ids) for score in scores),
        " / ".join(str(score.switches) for score in scores),
    )
    return " | ".join((f"| {part}", name, *columns)) + " |\n"
