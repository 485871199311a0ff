"""The posture of the person who has been there longest."""

from collections.abc import Mapping

import numpy as np

from edgepose.datatypes import Posture, PostureName, TrackedFrame, TrackedPoses
from edgepose.events.posture_detector import PostureDetector
from tests.bodies import MS, at
from tests.builders import poses_of


class Room:
    """A detector, frame after frame; `state` is what it publishes."""

    def __init__(self, *, dwell_ms: float = 1000) -> None:
        self.detector = PostureDetector(dwell_ms=dwell_ms)
        self.now_ms = 5000

    @property
    def state(self) -> str:
        return self.detector.states["posture"]

    def frames(self, postures: Mapping[int, PostureName], for_ms: int = 100) -> list[str]:
        """Add a frame every 100 ms with the posture of each track; return the states."""
        states = []
        for _ in range(0, for_ms, 100):
            tracked = TrackedPoses(
                poses_of(*(at(300 * n) for n in postures)), np.array([*postures], np.int64)
            )
            found = tuple(Posture(name, 0.9) for name in postures.values())
            self.detector.update(
                TrackedFrame(self.now_ms * MS, (640, 480), tracked, tracked, found)
            )
            states.append(self.state)
            self.now_ms += 100
        return states


def test_posture_of_a_person_who_comes_and_goes() -> None:
    """A posture counts after the dwell time; a person is gone after the delay, on a frame."""
    room = Room()
    assert room.frames({1: "standing"}, 1200) == ["nobody"] * 10 + ["standing"] * 2
    assert room.frames({}, 1300) == ["standing"] * 10 + ["nobody"] * 3


def test_posture_changes_after_the_dwell_time() -> None:
    """A posture that does not last for the dwell time changes nothing."""
    room = Room()
    room.frames({1: "standing"}, 3000)
    assert set(room.frames({1: "sitting"}, 900) + room.frames({1: "standing"})) == {"standing"}
    assert room.frames({1: "sitting"}, 1200) == ["standing"] * 10 + ["sitting"] * 2


def test_posture_at_most_once_a_second() -> None:
    """Without a dwell time the state follows at once, but not within a second of a change."""
    room = Room(dwell_ms=0)
    assert room.frames({1: "standing"}) == ["standing"]
    assert room.frames({1: "lying"}, 1100) == ["standing"] * 9 + ["lying"] * 2


def test_posture_bending_is_unclear() -> None:
    """Bending has no state of its own."""
    room = Room(dwell_ms=0)
    assert room.frames({1: "bending"}) == ["unclear"]


def test_posture_of_the_longest_seen() -> None:
    """The first of two persons counts, missed frames included, then the other one."""
    room = Room(dwell_ms=0)
    room.frames({7: "standing"}, 200)
    assert set(room.frames({3: "lying", 7: "standing"}, 3000)) == {"standing"}
    assert set(room.frames({3: "lying"}, 900)) == {"standing"}
    assert set(room.frames({3: "lying", 7: "standing"}, 300)) == {"standing"}
    assert room.frames({3: "lying"}, 1200)[-1] == "lying"


def test_posture_without_frames() -> None:
    """Time without a frame ends nothing as long as a frame may still come."""
    room = Room(dwell_ms=0)
    room.frames({1: "standing"}, 200)
    room.frames({})
    room.detector.tick((room.now_ms + 1800) * MS)
    assert room.state == "standing"
    room.detector.tick((room.now_ms + 1900) * MS)
    assert room.state == "nobody"


def test_posture_of_a_lost_camera() -> None:
    """Nobody is there at once."""
    room = Room(dwell_ms=0)
    room.frames({1: "standing"}, 200)
    room.detector.lost(room.now_ms * MS)
    assert room.state == "nobody"
