"""Rounding weights, choosing ranges and sampling patches: NumPy only."""

import numpy as np
import numpy.typing as npt
import pytest

from edgepose.model_builder import quantize


def correlated_inputs(size: int) -> npt.NDArray[np.float64]:
    random = np.random.default_rng(1)
    mixing = random.normal(size=(size, size)) * np.geomspace(3.0, 0.03, size)
    return np.asarray(np.cov(random.normal(size=(4000, size)) @ mixing.T, rowvar=False))


def test_compensated_rounding_has_smaller_error() -> None:
    weights = np.random.default_rng(2).normal(size=(8, 32)).astype(np.float32)
    codes, scales, ratio = quantize.round_weights(
        weights, correlated_inputs(32), quantize.SCALE_FACTORS
    )
    assert ratio < 0.7
    assert codes.shape == weights.shape
    assert np.abs(codes).max() <= quantize.WEIGHT_MAX
    assert np.array_equal(codes, np.round(codes))
    assert np.abs(codes * scales[:, None] - weights).max() < 0.3


def test_compensated_rounding_uncorrelated_inputs_round_to_nearest() -> None:
    weights = np.random.default_rng(3).normal(size=(4, 16)).astype(np.float32)
    codes, scales, _ = quantize.round_weights(weights, np.eye(16), (1.0,))
    assert np.array_equal(codes, np.round(weights.astype(np.float64) / scales[:, None]))


def test_compensated_rounding_channel_of_zeros() -> None:
    codes, scales, _ = quantize.round_weights(np.zeros((2, 9)), np.eye(9), (1.0, 0.9))
    assert not codes.any()
    assert np.isfinite(scales).all()
    assert (scales > 0).all()


def test_compensated_rounding_constant_inputs() -> None:
    codes, _, _ = quantize.round_weights(np.ones((1, 4)), np.zeros((4, 4)), (1.0,))
    assert codes.tolist() == [[127, 127, 127, 127]]


def test_quantization_range_ignores_single_outlier() -> None:
    samples = np.concatenate([np.random.default_rng(4).normal(size=200_000), [-20.0, 20.0]])
    low, high = quantize.least_squares_range(samples, -20.0, 20.0)
    assert -20 < low < -5
    assert 5 < high < 20


def test_quantization_range_contains_zero() -> None:
    assert quantize.least_squares_range(np.full(10, 5.0), 5.0, 5.0)[0] == 0.0


@pytest.mark.parametrize("stride", [1, 2])
def test_patches_equal_convolution_with_same_padding(stride: int) -> None:
    value = np.arange(1, 26, dtype=np.float32).reshape(5, 5, 1)
    patches = quantize.sample_patches(value, [3, 3], stride, 400, np.random.default_rng(5))
    assert patches.shape == (400, 9, 1)
    centres = set(patches[:, 4, 0].tolist())
    assert centres == set(value[::stride, ::stride, 0].ravel().tolist())
    corner = patches[patches[:, 4, 0] == 1.0][0, :, 0]
    assert corner.tolist() == [0, 0, 0, 0, 1, 2, 0, 6, 7]
