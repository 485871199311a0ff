"""Properties of the one-euro filter."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike

from edgepose.datatypes import Floats, TrackedPoses
from edgepose.smoothing.one_euro import MAX_GAP_NS, PRESETS, OneEuro
from tests.builders import SECOND_NS, tracked_of

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
def test_one_euro_output_in_hull_of_inputs(points: Floats, preset: str, step_ns: int) -> None:
    """Every output is between the smallest and the largest input so far."""
    smoothed = run(points, preset, step_ns)
    for index in range(len(points)):
        inputs = points[: index + 1]
        assert (smoothed[index] >= inputs.min(axis=0) - 1e-2).all()
        assert (smoothed[index] <= inputs.max(axis=0) + 1e-2).all()


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_one_euro_reduces_jitter_at_rest(preset: str) -> None:
    """Noise around a fixed pose is reduced."""
    generator = np.random.default_rng(0)
    rest = generator.uniform(100, 400, (17, 2))
    noisy = (rest + generator.normal(0, 2, (90, 17, 2))).astype(np.float32)
    jitter = np.diff(noisy, axis=0).std()
    smoothed = np.diff(run(noisy, preset)[10:], axis=0).std()
    assert smoothed < jitter * {"responsive": 0.8, "steady": 0.35}[preset]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_one_euro_follows_quick_move(preset: str) -> None:
    """Three frames after a jump, three quarters of it are in the output."""
    still = np.tile(np.linspace(100, 300, 34).reshape(17, 2), (10, 1, 1))
    moved = np.concatenate((still, still[:10] + 150)).astype(np.float32)
    # Three frames after a jump of three quarters of the body, most of it has been made.
    assert (run(moved, preset)[12] - still[0]).mean() > 0.75 * 150


def test_one_euro_independent_of_scale() -> None:
    """A body a quarter as large gets a quarter of the output."""
    near = np.random.default_rng(1).uniform(100, 400, (20, 17, 2)).astype(np.float32)
    assert run(near / np.float32(4)) == pytest.approx(run(near) / 4, rel=1e-3)


def test_one_euro_after_gap() -> None:
    """After more than MAX_GAP_NS the input is returned unchanged."""
    smoother = OneEuro(PRESETS["steady"])
    first, second = np.full((17, 2), 100.0), np.full((17, 2), 300.0)
    smoother.apply(tracked_of(first), SECOND_NS)
    after = smoother.apply(tracked_of(second), SECOND_NS + MAX_GAP_NS + 1)
    assert after.poses.keypoints == pytest.approx(300.0)


def test_one_euro_new_track() -> None:
    """The first pose of a track is returned unchanged."""
    smoother = OneEuro(PRESETS["steady"])
    smoother.apply(tracked_of(np.full((17, 2), 100.0), first_id=1), SECOND_NS)
    other = tracked_of(np.full((17, 2), 300.0), first_id=2)
    assert smoother.apply(other, SECOND_NS + FRAME_NS).poses.keypoints == pytest.approx(300.0)


def test_one_euro_repeated_or_earlier_timestamp() -> None:
    """The input is returned unchanged."""
    smoother = OneEuro(PRESETS["steady"])
    smoother.apply(tracked_of(np.full((17, 2), 100.0)), SECOND_NS)
    for timestamp_ns in (SECOND_NS, SECOND_NS - FRAME_NS):
        smoothed = smoother.apply(tracked_of(np.full((17, 2), 200.0)), timestamp_ns)
        assert smoothed.poses.keypoints == pytest.approx(200.0)


def test_one_euro_moves_box() -> None:
    """The box moves by the mean shift of its keypoints."""
    smoother = OneEuro(PRESETS["steady"])
    points = np.linspace(100, 300, 34).reshape(17, 2)
    smoother.apply(tracked_of(points), SECOND_NS)
    moved = smoother.apply(tracked_of(points + 3), SECOND_NS + FRAME_NS)
    shift = (moved.poses.keypoints[0] - points).mean()
    assert moved.poses.boxes_xyxy[0] == pytest.approx(
        [100 + shift, points[0, 1] + shift, points[-1, 0] + shift, 300 + shift], abs=0.01
    )


def test_one_euro_drops_old_tracks() -> None:
    """The state of 1000 tracks that ended does not stay in memory."""
    smoother = OneEuro(PRESETS["steady"])
    points = np.full((17, 2), 50.0)
    smoother.apply(tracked_of(points), SECOND_NS)
    tracemalloc.start()
    for index in range(1, 1000):
        smoother.apply(tracked_of(points, first_id=index + 1), SECOND_NS + index * MAX_GAP_NS)
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 100_000


def test_one_euro_slower_than_the_floor() -> None:
    """A keypoint that moves by 0.05 body sizes a second is filtered as one at rest, at 1 Hz."""
    smoother = OneEuro(PRESETS["steady"])
    points = np.linspace(100, 300, 34).reshape(17, 2)
    smoother.apply(tracked_of(points), SECOND_NS)
    move = np.array([0.03, 0.04]) * (points[-1, 1] - points[0, 1]) / 30
    smoothed = smoother.apply(tracked_of(points + move), SECOND_NS + FRAME_NS)
    weight = 1 / (1 + 30 / (2 * np.pi))
    assert smoothed.poses.keypoints[0] == pytest.approx(points + weight * move, abs=1e-3)


def test_one_euro_speed_of_both_axes() -> None:
    """A keypoint that moves along one axis is not held back on the other."""
    smoother = OneEuro(PRESETS["steady"])
    points = np.linspace(100, 300, 34).reshape(17, 2)
    smoother.apply(tracked_of(points), SECOND_NS)
    smoothed = smoother.apply(tracked_of(points + np.array([40, 1])), SECOND_NS + FRAME_NS)
    moved = smoothed.poses.keypoints[0] - points
    assert moved[:, 0] / 40 == pytest.approx(moved[:, 1], abs=1e-3)
    assert (moved[:, 1] > 0.5).all()


def weak(points: ArrayLike, *which: int) -> TrackedPoses:
    """Return a tracked pose of which some keypoints have a score of 0.1."""
    tracked = tracked_of(points)
    tracked.poses.keypoint_scores[0, list(which)] = 0.1
    return tracked


def test_one_euro_weak_keypoint_stays() -> None:
    """While its score is low a keypoint stays where it was, and what it does leaves no trace."""
    smoother, other = OneEuro(PRESETS["steady"]), OneEuro(PRESETS["steady"])
    points = np.linspace(100, 300, 34).reshape(17, 2)
    jumped = points.copy()
    jumped[9] += 80
    smoother.apply(tracked_of(points), SECOND_NS)
    other.apply(tracked_of(points), SECOND_NS)
    during = smoother.apply(weak(jumped, 9), SECOND_NS + FRAME_NS).poses
    assert during.keypoints[0, 9] == pytest.approx(points[9])
    # The other keypoints and the box have not moved either.
    assert during.keypoints[0] == pytest.approx(points, abs=1e-3)
    assert during.boxes_xyxy[0] == pytest.approx(tracked_of(jumped).poses.boxes_xyxy[0], abs=1e-3)
    after = SECOND_NS + 2 * FRAME_NS
    assert smoother.apply(tracked_of(points + 5), after).poses.keypoints[0, 9] == pytest.approx(
        other.apply(tracked_of(points + 5), after).poses.keypoints[0, 9]
    )


def test_one_euro_long_weak_keypoint() -> None:
    """After MAX_GAP_NS its place is returned as it is, and it starts anew once it is measured."""
    smoother = OneEuro(PRESETS["steady"])
    points = np.linspace(100, 300, 34).reshape(17, 2)
    smoother.apply(tracked_of(points), SECOND_NS)
    found = []
    for index, tracked in enumerate(
        (weak(points + 20, 9), weak(points + 30, 9), tracked_of(points))
    ):
        now_ns = SECOND_NS + MAX_GAP_NS + index * FRAME_NS
        found.append(smoother.apply(tracked, now_ns).poses.keypoints[0, 9] - points[9])
    assert np.array(found) == pytest.approx(np.array([[0, 0], [30, 30], [0, 0]]), abs=1e-3)


def test_one_euro_weak_keypoint_of_a_new_track() -> None:
    """A place that was never measured does not pull the first one that is."""
    smoother = OneEuro(PRESETS["steady"])
    points = np.linspace(100, 300, 34).reshape(17, 2)
    smoother.apply(weak(points + 50, 9), SECOND_NS)
    smoothed = smoother.apply(tracked_of(points), SECOND_NS + FRAME_NS).poses.keypoints[0]
    assert smoothed[9] == pytest.approx(points[9], abs=1e-3)
    assert smoothed[8] != pytest.approx(points[8], abs=1e-3)
