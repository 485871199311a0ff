"""SyntheticSource and its ground truth."""

from contextlib import closing
from itertools import islice
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgepose.sources import _base
from edgepose.sources.synthetic import PERIOD_NS, SyntheticSource, read_photograph


def test_read_photograph_colours() -> None:
    """The bundled photograph is 512x512 RGB."""
    photograph = read_photograph()
    assert photograph.shape == (512, 512, 3)
    # The flag's red stripes at the left, the orange suit, the white of the shuttle behind.
    red, green, blue = photograph[330:400, 200:260].reshape(-1, 3).mean(axis=0)
    assert red > green + 40 > blue + 40


@pytest.mark.parametrize("size_wh", [(640, 480), (1280, 720), (480, 640), (320, 240)])
@pytest.mark.parametrize("k", [0, 17, 60, 151])
def test_synthetic_source_matches_affine_map(k: int, size_wh: tuple[int, int]) -> None:
    """Image registration of photograph and frame finds the map of `affine_at`."""
    source = SyntheticSource(size_wh=size_wh, fps=30, live=False)
    frame = next(islice(source.frames(), k, None))
    expected = source.affine_at(round(k * 1e9 / 30))
    # In OpenCV's coordinates, which begin at the centre of the first pixel.
    expected_cv = expected.copy()
    expected_cv[:, 2] += expected[:, :2] @ (0.5, 0.5) - 0.5
    grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
    photograph = cv2.cvtColor(read_photograph(), cv2.COLOR_RGB2GRAY)
    inner = np.zeros_like(photograph)
    inner[20:-20, 20:-20] = 255
    inside = cv2.warpAffine(inner, expected_cv, size_wh)
    _, forward = cv2.findTransformECC(
        photograph,
        grey,
        (expected_cv + np.array([[0.003, 0, 1.0], [0, -0.003, -1.0]])).astype(np.float32),
        cv2.MOTION_AFFINE,
        (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-7),
        inside,
        5,
    )
    points = np.array([[100, 100, 1], [256, 256, 1], [400, 120, 1], [150, 420, 1]], float).T
    assert np.abs(forward @ points - expected_cv @ points).max() < 0.1


def test_synthetic_source_motion_independent_of_fps() -> None:
    """The motion depends on the time only, and repeats."""
    slow = SyntheticSource(fps=7, live=False)
    fast = SyntheticSource(fps=49, live=False)
    np.testing.assert_array_equal(slow.affine_at(10**9), fast.affine_at(10**9))
    np.testing.assert_allclose(slow.affine_at(PERIOD_NS + 5), slow.affine_at(5))


def test_synthetic_source_similarity_transform() -> None:
    """The map is a rotation and a uniform scale."""
    source = SyntheticSource(live=False)
    for t in range(0, PERIOD_NS, PERIOD_NS // 24):
        linear = source.affine_at(t)[:, :2]
        scale = np.linalg.det(linear) ** 0.5
        assert 0.5 < scale < 1
        np.testing.assert_allclose(linear @ linear.T, scale**2 * np.eye(2), atol=1e-12)


def test_synthetic_source_motion_bounds() -> None:
    """The motion is smooth and the face stays in the frame."""
    source = SyntheticSource(live=False)
    corners = np.array([[0, 0, 1], [512, 0, 1], [0, 512, 1], [512, 512, 1]], float).T
    path = np.stack([source.affine_at(t) @ corners for t in range(0, PERIOD_NS, PERIOD_NS // 240)])
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert 1.0 < steps.max() < 8.0
    face = np.array([[200, 60, 1], [260, 180, 1]], float).T
    for t in range(0, PERIOD_NS, PERIOD_NS // 60):
        (x, y) = source.affine_at(t) @ face
        assert (x > 0).all()
        assert (x < 640).all()
        assert (y > 0).all()
        assert (y < 480).all()


@pytest.mark.parametrize("fps", [30.0, 29.97, 7.0])
def test_synthetic_source_timestamps(fps: float) -> None:
    """Timestamps are exact multiples of the frame interval."""
    source = SyntheticSource(fps=fps, live=False, size_wh=(64, 48))
    frames = list(islice(source.frames(), 100))
    assert [f.timestamp_ns - frames[0].timestamp_ns for f in frames] == [
        round(k * 1e9 / fps) for k in range(100)
    ]


class _Clock:
    """A clock that moves when it is slept on, and can leap."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 5_000_000_000
        self.slept: list[float] = []
        monkeypatch.setattr(_base, "boottime_ns", lambda: self.now_ns)
        # Not `time.sleep` itself, which threads of other tests may call.
        monkeypatch.setattr(_base, "time", SimpleNamespace(sleep=self._sleep))

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9)


def test_synthetic_source_realtime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No frame arrives before its timestamp."""
    clock = _Clock(monkeypatch)
    for frame in islice(SyntheticSource(fps=10, size_wh=(32, 24)).frames(), 20):
        assert clock.now_ns >= frame.timestamp_ns
    assert sum(clock.slept) == pytest.approx(1.9)


def test_synthetic_source_after_suspend(monkeypatch: pytest.MonkeyPatch) -> None:
    """The motion continues from now, not in the past."""
    clock = _Clock(monkeypatch)
    with closing(SyntheticSource(fps=10, size_wh=(32, 24)).frames()) as frames:
        before = next(frames)
        clock.now_ns += 60_000_000_000
        after = next(frames)
    assert (before.sequence, after.sequence) == (0, 1)
    assert after.timestamp_ns == clock.now_ns
