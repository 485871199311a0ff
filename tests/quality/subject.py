"""How long a single-pose model stays with one of several persons."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from edgepose.datatypes import Frame
from edgepose.detection.crop_state import CropState
from edgepose.protocols import LoadedModel
from tests.builders import SECOND_NS, load_model, pipeline_of
from tests.quality.detections import MIN_OKS, persons_of, similarity
from tests.quality.photographs import photographs
from tests.quality.plain_crop import PlainCrop
from tests.quality.sequences import FPS, MadeSequence, Truth, sequences

MODEL: Final = "movenet-lightning-int8"
SEQUENCES: Final = 24
RATES: Final = (5, 10, 30)
CROPS: Final[dict[str, Callable[[], CropState]]] = {"plain": PlainCrop, "edgepose": CropState}
HEAD: Final = (
    "| frames a second | crop | changes a minute | needless | silent | new ids of the same person "
    "| frames with a pose |\n"
    "|---:|---|---:|---:|---:|---:|---:|\n"
)


@dataclass
class Changes:
    """Sums over sequences.

    A change is a pose of another person than the last pose was of, if it is not also similar to
    that one: where two overlap, a pose may be of both. `needless` are those with the old person
    still in the frame, `silent` those that keep the track id; `broken` counts new ids for the same
    person. `expected` are frames with a person who should be found, `found` those with a pose of
    one.
    """

    changes: int = 0
    needless: int = 0
    silent: int = 0
    broken: int = 0
    expected: int = 0
    found: int = 0
    frames: int = 0


def table() -> str:
    """Return the changes by frame rate and crop, as Markdown."""
    model = load_model(MODEL)
    counts = {(rate, name): Changes() for rate in RATES for name in CROPS}
    for index, sequence in enumerate(sequences(photographs(), SEQUENCES)):
        sys.stderr.write(f"\r{index + 1} of {SEQUENCES} sequences")
        add(counts, sequence, model)
    sys.stderr.write("\n")
    return HEAD + "".join(_lines(counts))


def add(counts: dict[tuple[int, str], Changes], sequence: MadeSequence, model: LoadedModel) -> None:
    """Follow the persons of a sequence at every rate and with every crop."""
    followers = {key: _Follower(count, model, CROPS[key[1]]()) for key, count in counts.items()}
    for index, (image, truth) in enumerate(sequence.frames()):
        frame = Frame(image, index * SECOND_NS // FPS, index)
        for (rate, _), follower in followers.items():
            if index % (FPS // rate) == 0:
                follower.follow(frame, truth)


def _lines(counts: dict[tuple[int, str], Changes]) -> Iterator[str]:
    for (rate, name), count in counts.items():
        minutes = count.frames / rate / 60
        found = count.found / count.expected
        per_minute = " | ".join(
            f"{value / minutes:.1f}"
            for value in (count.changes, count.needless, count.silent, count.broken)
        )
        yield f"| {rate} | {name} | {per_minute} | {found:.2f} |\n"


class _Follower:
    """One pipeline on one sequence, and whom it follows."""

    def __init__(self, count: Changes, model: LoadedModel, crop: CropState) -> None:
        self._count = count
        self._pipeline = pipeline_of(model)
        self._crop = crop
        self._last: tuple[int, int] | None = None

    def follow(self, frame: Frame, truth: Truth) -> None:
        """Detect a frame, and count."""
        count = self._count
        count.frames += 1
        tracked = self._pipeline.publish(self._pipeline.detect(frame, self._crop)).tracked
        persons, expected = persons_of(tracked.poses, truth)
        count.expected += bool(expected)
        if not persons or persons[0] < 0:
            return
        person, track_id = persons[0], tracked.track_ids.item()
        count.found += bool(expected)
        if self._last is not None:
            last_person, last_id = self._last
            if similarity(tracked.poses, truth)[0, last_person] >= MIN_OKS:
                person = last_person
            count.broken += person == last_person and track_id != last_id
            if person != last_person:
                count.changes += 1
                count.needless += last_person in expected
                count.silent += track_id == last_id
        self._last = person, track_id
