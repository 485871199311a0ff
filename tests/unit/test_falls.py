"""Falls and other motions of a jointed body before cameras, and what is made of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from msgspec import structs

from edgepose.datatypes import Event, Poses, Posture, TrackedFrame, TrackedPoses
from edgepose.events.falls import FallDetector
from edgepose.events.posture import LogisticPostures
from edgepose.events.zones import Zone
from tests.bodies import MS, at
from tests.builders import tracked_frame
from tests.kinematics import (
    BENDING,
    CRAWLING,
    CROUCHING,
    ON_BACK,
    ON_FRONT,
    ON_LEFT_SIDE,
    ON_RIGHT_SIDE,
    SITTING,
    STANDING,
    Camera,
    Key,
    Motion,
    Stance,
    body,
    measured,
)

CAMERAS = (Camera(0.8, 3.0), Camera(1.6, 4.0), Camera(2.4, 5.0))
SIDES = (-90, -45, 0, 45, 90, 135, 180)
FLOOR = Stance(pitch=-15, hip=(80, 80), knee=(5, 10), arm=-40)


def views() -> Iterator[tuple[Camera, int, float, Sequence[int]]]:
    """Yield cameras near and far, low and high, with 5, 10 and 30 frames a second.

    Also the height of the body in metres, and the sides that it is seen from.
    """
    for number, (camera, fps) in enumerate([*product(CAMERAS, (5, 10)), (CAMERAS[1], 30)]):
        yield camera, fps, 1.1 if fps == 10 else 1.7, SIDES[number % 3 :: 3]


all_views = pytest.mark.parametrize(("camera", "fps", "height_m", "sides"), [*views()])


def to(stance: Stance, heading: float, seconds: float, start: Stance = STANDING) -> tuple[Key, ...]:
    """Return the keys of a body that comes into another stance after 2 s."""
    return (
        Key(0, start, heading),
        Key(2, start, heading),
        Key(2 + seconds, stance, heading),
    )


def away(stance: Stance, heading: float) -> bool:
    """Whether a body that lies points its head away from the camera."""
    nose, hip = body(stance, heading=heading)[[0, 11], 1]
    return bool(nose - hip > 0.5)


def frames(
    motion: Motion,
    camera: Camera,
    fps: int,
    *,
    gap_s: tuple[float, float] = (0, 0),
    second_track_s: float = math.inf,
) -> Iterator[TrackedFrame]:
    """Yield what is measured of a motion: with errors, without one in ten frames and a gap."""
    rng = np.random.default_rng(fps)
    postures = LogisticPostures()
    for number in range(int(motion.seconds * fps)):
        second = number / fps
        places = camera.project(motion.points(second))
        keypoints = measured(places, rng)
        inside = ((places >= 0) & (places < camera.size_wh)).all(axis=1)
        keypoints[~inside, 2] = 0.1
        seen = inside.sum() > 5 and rng.random() > 0.1 and not gap_s[0] <= second < gap_s[1]
        chosen = np.array([keypoints] if seen else [], np.float32).reshape(-1, 17, 3)
        poses = Poses(
            chosen[:, :, :2],
            chosen[:, :, 2],
            np.full(len(chosen), 0.6, np.float32),
            np.hstack((chosen[:, :, :2].min(axis=1), chosen[:, :, :2].max(axis=1))),
        )
        track_ids = np.full(len(chosen), 1 if second < second_track_s else 2, np.int64)
        tracked = TrackedPoses(poses, track_ids)
        time_ns = 10**9 + round(second * 1e9)
        yield TrackedFrame(
            time_ns, camera.size_wh, tracked, tracked, postures.update(tracked, time_ns)
        )


def falls(
    motion: Motion, camera: Camera, fps: int, detector: FallDetector | None = None, **more: object
) -> list[Event]:
    """Return the events of a motion."""
    detector = detector or FallDetector()
    found = frames(motion, camera, fps, **more)  # type: ignore[arg-type]
    return [event for frame in found for event in detector.update(frame)]


@all_views
@pytest.mark.parametrize("stance", [ON_BACK, ON_FRONT, ON_LEFT_SIDE, ON_RIGHT_SIDE])
def test_falls_to_each_side(
    camera: Camera, fps: int, height_m: float, sides: Sequence[int], stance: Stance
) -> None:
    """A fall backwards, forwards or to a side is detected, but with the head away from the camera.

    A body that lies with the feet to the camera looks as if it were sitting.
    """
    for heading in sides:
        if not away(stance, heading):
            for seconds in (0.6, 1.2):
                motion = Motion(to(stance, heading, seconds), 2 + seconds + 7, height_m)
                (event,) = falls(motion, camera, fps)
                assert event.type == "fall"
                assert 2.0 < (event.time_ns - 10**9) / 1e9 < 2 + seconds + 0.8


@all_views
def test_falls_from_a_chair_and_over_the_knees(
    camera: Camera, fps: int, height_m: float, sides: Sequence[int]
) -> None:
    """A fall from a chair is detected, and one of a person who sinks to the knees first."""
    for heading in sides:
        if not away(ON_RIGHT_SIDE, heading):
            motion = Motion(to(ON_RIGHT_SIDE, heading, 1.0, SITTING), 10, height_m)
            assert len(falls(motion, camera, fps)) == 1
        if not away(ON_FRONT, heading):
            keys = (*to(CROUCHING, heading, 0.5), Key(3.2, ON_FRONT, heading))
            assert len(falls(Motion(keys, 10, height_m), camera, fps)) == 1


@all_views
def test_falls_track_lost_meanwhile(
    camera: Camera, fps: int, height_m: float, sides: Sequence[int]
) -> None:
    """A body that is not found for 1.7 s, and then under another id, has fallen."""
    motion = Motion(to(ON_FRONT, 45, 1.0), 12, height_m)
    (event,) = falls(motion, camera, fps, gap_s=(2.3, 4.0), second_track_s=3)
    assert event.track_id == 2


@all_views
@pytest.mark.parametrize(
    ("stance", "seconds"),
    [(SITTING, 0.4), (SITTING, 0.7), (BENDING, 0.8), (CROUCHING, 0.8), (CRAWLING, 0.8)],
)
def test_falls_not_sitting_down_or_bending(
    camera: Camera, fps: int, height_m: float, sides: Sequence[int], stance: Stance, seconds: float
) -> None:
    """A person who sits down fast, bends, crouches or is on all fours has not fallen."""
    for heading in sides:
        motion = Motion(to(stance, heading, seconds), 10, height_m)
        assert falls(motion, camera, fps) == []


@all_views
@pytest.mark.parametrize("stance", [ON_BACK, ON_FRONT, ON_LEFT_SIDE, ON_RIGHT_SIDE])
def test_falls_not_lying_down_slowly(
    camera: Camera, fps: int, height_m: float, sides: Sequence[int], stance: Stance
) -> None:
    """A person who lies down within 4 s or more has not fallen."""
    for heading in sides:
        for seconds in (4, 6):
            motion = Motion(to(stance, heading, seconds), seconds + 8, height_m)
            assert falls(motion, camera, fps) == []


@all_views
def test_falls_not_lying_down_by_sitting(
    camera: Camera, fps: int, height_m: float, sides: Sequence[int]
) -> None:
    """A person who sits down on the floor and then lies back has not fallen."""
    for heading in sides:
        keys = (
            *to(CROUCHING, heading, 1.2),
            Key(4.2, FLOOR, heading),
            Key(5, FLOOR, heading),
            Key(7, ON_BACK, heading),
        )
        assert falls(Motion(keys, 14, height_m), camera, fps) == []


@all_views
def test_falls_not_a_crawling_child(
    camera: Camera, fps: int, height_m: float, sides: Sequence[int]
) -> None:
    """A child who goes on all fours and crawls away has not fallen."""
    for heading in sides:
        x, y = math.sin(math.radians(heading)), -math.cos(math.radians(heading))
        steps = (CRAWLING, replace(CRAWLING, hip=(70, 90)))
        crawl = [
            Key(2.8 + n / 2, steps[n % 2], heading, 0.14 * n * x, 0.14 * n * y) for n in range(16)
        ]
        motion = Motion((*to(CRAWLING, heading, 0.8), *crawl), 11, 0.6 * height_m)
        assert falls(motion, camera, fps) == []


@all_views
def test_falls_not_leaving_the_frame(
    camera: Camera, fps: int, height_m: float, sides: Sequence[int]
) -> None:
    """A person who walks out of the frame has not fallen."""
    keys = (Key(0, STANDING, 90), Key(2, STANDING, 90), Key(5, STANDING, 90, x_m=5))
    assert falls(Motion(keys, 9, height_m), camera, fps) == []


def test_falls_recovery() -> None:
    """`fall` is ON from 5 s after the fall until the person was up for 3 s."""
    keys = (*to(ON_BACK, 90, 1.0), Key(12, ON_BACK, 90), Key(14, STANDING, 90))
    detector = FallDetector()
    on = []
    for frame in frames(Motion(keys, 20), CAMERAS[1], 10):
        detector.update(frame)
        if detector.states == {"fall": "ON"}:
            on.append(frame.timestamp_ns / 1e9 - 1)
    assert 7.5 < on[0] < 9
    assert 15.5 < on[-1] < 18


def test_falls_up_again_at_once() -> None:
    """Who gets up within 5 s is not reported."""
    keys = (*to(ON_BACK, 90, 1.0), Key(5, ON_BACK, 90), Key(6.5, STANDING, 90))
    assert falls(Motion(keys, 14), CAMERAS[1], 10) == []


def test_falls_in_an_excluded_zone() -> None:
    """Who falls into bed has not fallen; the zone is in fractions of the frame."""
    motion = Motion(to(ON_BACK, 90, 1.0), 12)
    everywhere = Zone("bed", ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)), exclude="falls")
    elsewhere = Zone("sofa", ((0.0, 0.0), (0.2, 0.0), (0.2, 1.0)), exclude="falls")
    assert falls(motion, CAMERAS[1], 10, FallDetector(zones=[everywhere])) == []
    assert len(falls(motion, CAMERAS[1], 10, FallDetector(zones=[elsewhere]))) == 1


def test_falls_settings() -> None:
    """A shorter time of lying reports earlier, a longer time of the fall slower ones, too."""
    slow = Motion(to(ON_BACK, 90, 4.0), 14)
    detector = FallDetector(fall_ms=5000)
    assert len(falls(slow, CAMERAS[1], 10, detector)) == 1
    quick = Motion(to(ON_BACK, 90, 1.0), 6)
    assert falls(quick, CAMERAS[1], 10) == []
    assert len(falls(quick, CAMERAS[1], 10, FallDetector(lying_ms=1500))) == 1


def fallen() -> tuple[FallDetector, int]:
    """Return a detector with `fall` ON, and the time of its last frame in ms."""
    detector = FallDetector()
    motion = Motion(to(ON_BACK, 90, 1.0), 10)
    assert len(falls(motion, CAMERAS[1], 10, detector)) == 1
    return detector, 11_000


def test_falls_person_not_found_any_more() -> None:
    """`fall` stays ON for 30 s without a pose, as models often lose a body on the floor."""
    detector, now_ms = fallen()
    detector.update(tracked_frame(now_ms + 28_000, {}))
    assert detector.states == {"fall": "ON"}
    detector.tick((now_ms + 32_000) * MS)
    assert detector.states == {"fall": "OFF"}


def test_falls_helper_beside_a_person_not_found_any_more() -> None:
    """An upright person who comes near is another one: `fall` stays ON."""
    detector, now_ms = fallen()
    for ms in range(1000, 8000, 100):
        frame = tracked_frame(now_ms + ms, {5: at(280, 180)})
        detector.update(structs.replace(frame, postures=(Posture("standing", 0.9, upright=0.9),)))
    assert detector.states == {"fall": "ON"}


def test_falls_lost_camera() -> None:
    """`fall` is OFF at once if the camera is closed."""
    detector, now_ms = fallen()
    detector.lost(now_ms * MS)
    assert detector.states == {"fall": "OFF"}


def test_falls_of_one_person_beside_another() -> None:
    """One of two falls: the event has the right id, and the other one changes nothing."""
    detector = FallDetector()
    events: list[Event] = []
    for frame in frames(Motion(to(ON_BACK, 90, 1.0), 10), CAMERAS[1], 10):
        other = tracked_frame(0, {9: at(500)}).raw
        joined: Sequence[TrackedPoses] = (frame.raw, other)
        poses = Poses(
            *(
                np.concatenate([getattr(each.poses, name) for each in joined])
                for name in ("keypoints", "keypoint_scores", "scores", "boxes_xyxy")
            )
        )
        tracked = TrackedPoses(poses, np.concatenate([each.track_ids for each in joined]))
        postures = (*frame.postures, Posture("standing", 0.9, upright=0.9))
        events += detector.update(
            structs.replace(frame, raw=tracked, smoothed=tracked, postures=postures)
        )
    assert [event.track_id for event in events] == [1]
