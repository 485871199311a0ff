"""Which frames a limit accepts, by their timestamps."""

import random

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
