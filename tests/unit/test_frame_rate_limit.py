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
    """A camera before a room, and a model that takes some time; a person may be there.

    `score` returns what is found at a time: 1 is a candidate, 0 nothing, and between them something
    that is a candidate only in a second inference.
    """

    def __init__(
        self, *, fps: float = 30, inference_ms: float = 20, idle_fps: float = 5, max_fps: float = 0
    ) -> None:
        self.now_ns = 50 * SECOND_NS
        self.fps = fps
        self.limit = FrameRateLimit(max_fps, clock=lambda: self.now_ns)
        self.limit.set_idle(fps=idle_fps, after_s=10)
        self._inference_ns = round(inference_ms * 1e6)
        self._first = True

    def watch(self, seconds: float, score: Callable[[int], float]) -> list[int]:
        """Pass some time; return the times of the frames that are processed."""
        processed = []
        results: list[tuple[int, bool, bool]] = []
        interval_ns = round(1e9 / self.fps)
        for _ in range(round(seconds * self.fps)):
            frame_ns = self.now_ns + interval_ns
            for due_ns, candidate, uncertain in [each for each in results if each[0] <= frame_ns]:
                self.now_ns = due_ns
                self.limit.detected(candidate=candidate, uncertain=uncertain)
            results = [each for each in results if each[0] > frame_ns]
            self.now_ns = frame_ns
            assert self.limit.wanted() or not self.limit.accepts(frame_ns)
            if not self.limit.accepts(frame_ns):
                continue
            processed.append(frame_ns)
            found = score(frame_ns)
            again = 0 < found < 1 and self._first
            self._first = not again
            candidate = found == 1 or (0 < found < 1 and not again)
            results.append((frame_ns + self._inference_ns, candidate, again))
        return processed


def nothing(_: int) -> float:
    return 0


def gaps_ms(times: list[int]) -> list[int]:
    return [round((after - before) / 1e6) for before, after in pairwise(times)]


def test_idle_begins_after_the_time_without_a_candidate() -> None:
    room = Room()
    assert len(room.watch(10, nothing)) == 300
    assert not room.limit.idle
    assert 49 <= len(room.watch(10, nothing)) <= 51
    assert set(gaps_ms(room.watch(10, nothing))) <= {167, 200}


def test_idle_is_off_by_default() -> None:
    limit = FrameRateLimit(clock=lambda: 10**15)
    assert len(accepted(limit, 30, 100)) == 3000
    assert not limit.idle


@pytest.mark.parametrize(("score", "inference_ms"), [(1, 7), (1, 25), (1, 90), (0.5, 7), (0.5, 25)])
@pytest.mark.parametrize("camera_fps", [15, 25, 30])
def test_idle_ends_within_300_ms_of_a_person(
    score: float, inference_ms: float, camera_fps: float
) -> None:
    """Whenever a person comes, also one who is found only by a second inference.

    From 300 ms after the first frame with the person on, every frame is processed.
    """
    for phase in range(12):
        room = Room(inference_ms=inference_ms, fps=camera_fps)
        room.watch(15 + phase / camera_fps, nothing)
        came_ns = room.now_ns
        times = room.watch(2, lambda _: score)
        late_ms = [
            gap
            for time, gap in zip(times, gaps_ms(times), strict=False)
            if time - came_ns >= 300_000_000 - SECOND_NS // camera_fps
        ]
        assert max(late_ms) <= round(1000 / camera_fps) + 1, phase
        assert (times[0] - came_ns) <= 200_000_000 + SECOND_NS // camera_fps


def test_idle_begins_again_after_a_person_left() -> None:
    room = Room()
    room.watch(15, nothing)
    room.watch(1, lambda _: 1)
    assert len(room.watch(9.9, nothing)) == 297
    assert 49 <= len(room.watch(10, nothing)) <= 53


def test_idle_weak_false_positives_do_not_end_it() -> None:
    """A coat that gets a second inference each time, in which it is nothing."""
    room = Room()
    room.watch(15, nothing)
    coat = [0.5, 0.0]
    seen: list[float] = []

    def score(_: int) -> float:
        seen.append(coat[len(seen) % 2])
        return seen[-1]

    assert 90 <= len(room.watch(10, score)) <= 110
    assert room.limit.idle


def test_idle_and_a_limit_the_lower_one_counts() -> None:
    room = Room(max_fps=10)
    assert 99 <= len(room.watch(10, nothing)) <= 101
    assert 49 <= len(room.watch(10, nothing)) <= 51
    assert 9 <= len(room.watch(1, lambda _: 1)) <= 10
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
