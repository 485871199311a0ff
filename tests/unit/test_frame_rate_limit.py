"""Which frames a limit accepts, by their times."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from edgepose.daemon.frame_rate_limit import FrameRateLimit
from tests.builders import SECOND_NS


def accepted(limit: FrameRateLimit, fps: float, seconds: float, jitter: float = 0.0) -> list[int]:
    """Return the timestamps that are accepted of a camera, from 1 s on."""
    chance = random.Random(1)
    times = (
        SECOND_NS + round((number + chance.uniform(-jitter, jitter)) / fps * 1e9)
        for number in range(round(fps * seconds))
    )
    return [time for time in times if limit.accepts(time)]


def test_frame_rate_limit_of_zero_accepts_everything() -> None:
    assert len(accepted(FrameRateLimit(), 30, 2)) == 60


@pytest.mark.parametrize("jitter", [0.0, 0.2])
@pytest.mark.parametrize("max_fps", [1, 5, 10, 15, 20, 25, 30])
def test_frame_rate_limit_is_reached_and_not_exceeded(max_fps: float, jitter: float) -> None:
    """Half of 30 a second is every second frame, though some come early."""
    times = accepted(FrameRateLimit(max_fps), 30, 20, jitter)
    assert max_fps * 20 - 2 <= len(times) <= max_fps * 20 + 1


def test_frame_rate_limit_above_the_rate_of_the_camera() -> None:
    assert len(accepted(FrameRateLimit(60), 30, 2, 0.2)) == 60


def test_frame_rate_limit_does_not_catch_up_on_a_pause() -> None:
    limit = FrameRateLimit(5)
    assert limit.accepts(SECOND_NS)
    later = [100 * SECOND_NS + round(number / 30 * 1e9) for number in range(30)]
    assert sum(map(limit.accepts, later)) <= 6


def test_frame_rate_limit_that_is_lifted_counts_at_once() -> None:
    """From a frame in ten seconds to all of them."""
    limit = FrameRateLimit(0.1)
    assert limit.accepts(SECOND_NS)
    assert not limit.accepts(2 * SECOND_NS)
    limit.max_fps = 10
    assert limit.accepts(2 * SECOND_NS + 1)


def test_frame_rate_limit_of_a_camera_whose_clock_begins_again() -> None:
    limit = FrameRateLimit(10)
    assert limit.accepts(1000 * SECOND_NS)
    assert limit.accepts(SECOND_NS)
    assert not limit.accepts(SECOND_NS + 1)


class Room:
    """A camera before a room, and a model that takes some time.

    `seen` returns for each frame whether something like a person is in it. It is a candidate in one
    frame and a pose in the third one in a row.
    """

    def __init__(
        self, *, fps: float = 30, inference_ms: float = 20, idle_fps: float = 5, max_fps: float = 0
    ) -> None:
        self.now_ns = 50 * SECOND_NS
        self.fps = fps
        self.limit = FrameRateLimit(max_fps, clock=lambda: self.now_ns)
        self.limit.set_idle(fps=idle_fps, after_s=10)
        self._inference_ns = round(inference_ms * 1e6)
        self._in_a_row = 0

    def watch(self, seconds: float, seen: Callable[[int], bool]) -> list[int]:
        """Pass some time; return the times of the frames that are processed."""
        processed: list[int] = []
        running: tuple[int, bool, bool] | None = None
        for _ in range(round(seconds * self.fps)):
            frame_ns = self.now_ns + round(1e9 / self.fps)
            if running is not None and running[0] <= frame_ns:
                self.now_ns, pose, candidate = running
                self.limit.detected(pose=pose, candidate=candidate)
                running = None
            self.now_ns = frame_ns
            wanted = self.limit.wanted()
            assert self.limit.accepts(frame_ns) is wanted
            if not wanted or running is not None:
                continue
            processed.append(frame_ns)
            self._in_a_row = self._in_a_row + 1 if seen(len(processed)) else 0
            done_ns = frame_ns + self._inference_ns
            running = (done_ns, self._in_a_row >= 3, self._in_a_row > 0)
        return processed


def nothing(_: int) -> bool:
    return False


def person(_: int) -> bool:
    return True


def gaps_ms(times: list[int]) -> list[int]:
    return [round((after - before) / 1e6) for before, after in pairwise(times)]


def test_idle_begins_after_the_time_without_a_pose() -> None:
    room = Room()
    assert len(room.watch(10, nothing)) == 300
    assert not room.limit.idle
    assert 49 <= len(room.watch(10, nothing)) <= 51
    assert set(gaps_ms(room.watch(10, nothing))) <= {167, 200}


def test_idle_is_off_by_default() -> None:
    limit = FrameRateLimit(clock=lambda: 10**15)
    assert len(accepted(limit, 30, 100)) == 3000
    assert not limit.idle


@pytest.mark.parametrize("inference_ms", [7, 25])
@pytest.mark.parametrize("camera_fps", [15, 25, 30])
def test_idle_ends_within_300_ms_of_a_person(inference_ms: float, camera_fps: float) -> None:
    """Every frame is processed from 300 ms after the first frame with a person on.

    At the latest, whenever the person comes, though only the third frame confirms the pose.
    """
    for phase in range(12):
        room = Room(inference_ms=inference_ms, fps=camera_fps)
        room.watch(15 + phase / camera_fps, nothing)
        came_ns = room.now_ns
        times = room.watch(2, person)
        assert times[0] <= came_ns + 240_000_000
        at_full_rate = [time for time in times if time >= came_ns + 230_000_000]
        assert max(gaps_ms(at_full_rate)) <= round(1000 / camera_fps) + 1, phase
        assert not room.limit.idle


def test_idle_ends_for_a_model_that_is_slower_than_the_camera() -> None:
    """With 95 ms an inference the frames follow each other as fast as it is, from the first on."""
    room = Room(inference_ms=95)
    room.watch(15, nothing)
    times = room.watch(2, person)
    assert max(gaps_ms(times)) <= 134
    assert not room.limit.idle


def test_idle_begins_again_after_a_person_left() -> None:
    room = Room()
    room.watch(15, nothing)
    room.watch(1, person)
    assert len(room.watch(9.9, nothing)) == 297
    assert 49 <= len(room.watch(10, nothing)) <= 53


def test_idle_false_candidates_do_not_end_it() -> None:
    """A coat that is a candidate in every other frame, and none in the next."""
    room = Room()
    room.watch(15, nothing)
    assert 90 <= len(room.watch(10, lambda frame: frame % 2 == 1)) <= 110
    assert room.limit.idle


def test_idle_a_candidate_that_is_never_confirmed_does_not_end_it() -> None:
    """After a second of the full rate it gets no further frames."""
    room = Room()
    room.watch(15, nothing)
    accepted_s = [0, 0, 0]
    for frame in range(90):
        room.now_ns += SECOND_NS // 30
        if room.limit.accepts(room.now_ns):
            accepted_s[frame // 30] += 1
            room.now_ns += 1_000_000
            room.limit.detected(pose=False, candidate=True)
    assert room.limit.idle
    assert accepted_s[0] > 20
    assert accepted_s[2] <= 6


def test_idle_and_a_limit_the_lower_one_counts() -> None:
    room = Room(max_fps=10)
    assert 99 <= len(room.watch(10, nothing)) <= 101
    assert 49 <= len(room.watch(10, nothing)) <= 51
    assert 9 <= len(room.watch(1, person)) <= 10
    room = Room(max_fps=2)
    room.watch(15, nothing)
    assert len(room.watch(10, nothing)) == 20


def test_idle_that_is_switched_off_ends_at_once() -> None:
    room = Room()
    room.watch(15, nothing)
    room.limit.set_idle(fps=0, after_s=10)
    assert len(room.watch(1, nothing)) == 30
    assert not room.limit.idle


def test_idle_a_camera_that_is_opened_again_is_awake() -> None:
    room = Room()
    room.watch(15, nothing)
    room.limit.wake()
    assert len(room.watch(9, nothing)) == 270
