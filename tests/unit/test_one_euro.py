"""The one-euro filter, by its properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgepose.datatypes import Floats
from edgepose.smoothing.one_euro import MAX_GAP_NS, PRESETS, OneEuro, OneEuroParameters
from tests.helpers import SECOND_NS, tracked_of

FRAME_NS = SECOND_NS // 30


def run(points: Floats, preset: str = "steady", step_ns: int = FRAME_NS) -> Floats:
    """Filter (t, 17, 2) and return the same shape."""
    smoother = OneEuro(PRESETS[preset])
    return np.array(
        [
            smoother.apply(tracked_of(point), SECOND_NS + index * step_ns).poses.keypoints[0]
            for index, point in enumerate(points)
        ]
    )


@settings(max_examples=60)
@given(
    arrays(np.float32, (12, 17, 2), elements=st.floats(0, 1000, width=32)),
    st.sampled_from(sorted(PRESETS)),
    st.integers(1_000_000, 400_000_000),
)
def test_output_stays_in_the_hull_of_its_inputs(points: Floats, preset: str, step_ns: int) -> None:
    smoothed = run(points, preset, step_ns)
    for index in range(len(points)):
        seen = points[: index + 1]
        assert (smoothed[index] >= seen.min(axis=0) - 1e-2).all()
        assert (smoothed[index] <= seen.max(axis=0) + 1e-2).all()


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_body_at_rest_jitters_less(preset: str) -> None:
    generator = np.random.default_rng(0)
    rest = generator.uniform(100, 400, (17, 2))
    noisy = (rest + generator.normal(0, 2, (90, 17, 2))).astype(np.float32)
    jitter = np.diff(noisy, axis=0).std()
    smoothed = np.diff(run(noisy, preset)[10:], axis=0).std()
    assert smoothed < jitter * {"responsive": 0.8, "steady": 0.35}[preset]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_quick_move_arrives(preset: str) -> None:
    still = np.tile(np.linspace(100, 300, 34).reshape(17, 2), (10, 1, 1))
    moved = np.concatenate((still, still[:10] + 150)).astype(np.float32)
    # Three frames after a jump of three quarters of the body, most of it has been made.
    assert (run(moved, preset)[12] - still[0]).mean() > 0.75 * 150


def test_speed_counts_in_body_sizes() -> None:
    near = np.random.default_rng(1).uniform(100, 400, (20, 17, 2)).astype(np.float32)
    assert run(near / np.float32(4)) == pytest.approx(run(near) / 4, rel=1e-3)


def test_a_gap_starts_afresh() -> None:
    smoother = OneEuro(PRESETS["steady"])
    first, second = np.full((17, 2), 100.0), np.full((17, 2), 300.0)
    smoother.apply(tracked_of(first), SECOND_NS)
    after = smoother.apply(tracked_of(second), SECOND_NS + MAX_GAP_NS + 1)
    assert after.poses.keypoints == pytest.approx(300.0)


def test_a_new_track_owes_nothing_to_an_old_one() -> None:
    smoother = OneEuro(PRESETS["steady"])
    smoother.apply(tracked_of(np.full((17, 2), 100.0), first_id=1), SECOND_NS)
    other = tracked_of(np.full((17, 2), 300.0), first_id=2)
    assert smoother.apply(other, SECOND_NS + FRAME_NS).poses.keypoints == pytest.approx(300.0)


def test_a_clock_that_stands_still_or_runs_back_does_no_harm() -> None:
    smoother = OneEuro(PRESETS["steady"])
    smoother.apply(tracked_of(np.full((17, 2), 100.0)), SECOND_NS)
    for timestamp_ns in (SECOND_NS, SECOND_NS - FRAME_NS):
        smoothed = smoother.apply(tracked_of(np.full((17, 2), 200.0)), timestamp_ns)
        assert smoothed.poses.keypoints == pytest.approx(200.0)


def test_the_box_moves_with_its_keypoints() -> None:
    smoother = OneEuro(PRESETS["steady"])
    points = np.linspace(100, 300, 34).reshape(17, 2)
    smoother.apply(tracked_of(points), SECOND_NS)
    moved = smoother.apply(tracked_of(points + 3), SECOND_NS + FRAME_NS)
    shift = (moved.poses.keypoints[0] - points).mean()
    assert moved.poses.boxes_xyxy[0] == pytest.approx(
        [100 + shift, points[0, 1] + shift, points[-1, 0] + shift, 300 + shift], abs=0.01
    )


def test_forgotten_tracks_free_their_memory() -> None:
    smoother = OneEuro(PRESETS["steady"])
    for index in range(100):
        pose = tracked_of(np.full((17, 2), 50.0), first_id=index + 1)
        smoother.apply(pose, SECOND_NS + index * MAX_GAP_NS)
    assert len(smoother._states) < 4


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_parameters_that_make_no_filter_are_refused(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="cutoffs"):
        OneEuroParameters(*wrong)
