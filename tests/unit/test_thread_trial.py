"""The best number of CPU threads, from the times of frames."""

import pytest

from edgepose.inference.thread_trial import FRAMES, ROUNDS, SKIPPED, ThreadTrial, fewest_threads

MS = 1_000_000


def run(trial: ThreadTrial, invoke_ms: dict[int, float], interval_ms: float) -> list[int]:
    """Run frames until the trial is over; return the number of threads of each block."""
    now_ns, counts = 0, []
    while not trial.finished:
        count = trial.count
        counts.append(count)
        taken_ns = int(invoke_ms[count] * MS)
        trial.add(now_ns, now_ns + taken_ns)
        now_ns += max(int(interval_ms * MS), taken_ns + MS)
    assert len(counts) % FRAMES == 0
    blocks = counts[::FRAMES]
    assert counts == [count for count in blocks for _ in range(FRAMES)]
    return blocks


@pytest.mark.parametrize(
    ("invoke_ms", "interval_ms", "threads"),
    [
        # Four cores of their own: each thread more helps.
        ({1: 72, 2: 41, 3: 31, 4: 26}, 33.3, 4),
        # The fourth thread gains less than a tenth.
        ({1: 72, 2: 41, 3: 28, 4: 26}, 50, 3),
        # A busy machine of two cores.
        ({1: 11.1, 2: 13.6}, 33.3, 1),
        ({1: 9.8, 2: 9.0}, 33.3, 1),
        ({1: 9.8, 2: 6.1}, 33.3, 2),
        # One thread would be hardly slower, but could not keep up with the camera.
        ({1: 28, 2: 26}, 33.3, 2),
        # As many frames as can be: none keeps up, and a tenth is not worth a core.
        ({1: 6.5, 2: 6.0}, 6.5, 1),
        ({1: 9.8, 2: 6.0}, 6.5, 2),
    ],
)
def test_fewest_threads(invoke_ms: dict[int, float], interval_ms: float, threads: int) -> None:
    invoke_ns = {count: ms * MS for count, ms in invoke_ms.items()}
    assert fewest_threads(invoke_ns, interval_ms * MS) == threads


def test_thread_trial_alternates_its_rounds() -> None:
    trial = ThreadTrial([1, 2])
    assert run(trial, {1: 10, 2: 8}, 33) == [2, 1, 1, 2, 2, 1]
    assert trial.invoke_ns == {1: 10 * MS, 2: 8 * MS}
    assert trial.interval_ns == 33 * MS


def test_thread_trial_drops_hopeless_numbers_after_a_round() -> None:
    """On a Pi, a frame with one thread takes three times as long as with four."""
    trial = ThreadTrial([1, 2, 3, 4])
    assert run(trial, {1: 72, 2: 41, 3: 31, 4: 26}, 33) == [4, 3, 2, 1, 3, 4, 4, 3]
    assert trial.invoke_ns == {1: 72 * MS, 2: 41 * MS, 3: 31 * MS, 4: 26 * MS}
    # At the pace of the camera with two of them, slower with the others.
    assert trial.interval_ns == 33 * MS


def test_thread_trial_ends_when_one_number_is_left() -> None:
    trial = ThreadTrial([1, 2])
    assert run(trial, {1: 10, 2: 5}, 33) == [2, 1]


def test_thread_trial_does_not_count_frames_after_a_change() -> None:
    """Caches are cold then, and threads asleep."""
    trial = ThreadTrial([1, 2])
    frame = 0
    while not trial.finished:
        cold = frame % FRAMES < SKIPPED
        trial.add(frame * 33 * MS, frame * 33 * MS + (30 if cold else 5) * MS)
        frame += 1
    assert frame == 2 * ROUNDS * FRAMES
    assert trial.invoke_ns == {1: 5 * MS, 2: 5 * MS}
