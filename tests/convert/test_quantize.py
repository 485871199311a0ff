"""Rounding of weights, ranges and input patches: with NumPy only."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepose.model_builder import quantize

Doubles = NDArray[np.float64]


def correlated_inputs(size: int) -> Doubles:
    random = np.random.default_rng(1)
    mixing = random.normal(size=(size, size)) * np.geomspace(3.0, 0.03, size)
    return np.asarray(np.cov(random.normal(size=(4000, size)) @ mixing.T, rowvar=False))


def test_round_weights_correlated_inputs() -> None:
    """The error of the output is smaller than with plain rounding."""
    weights = np.random.default_rng(2).normal(size=(8, 32)).astype(np.float32)
    covariance = correlated_inputs(32)
    codes, scales = quantize.round_weights(weights, covariance)
    assert codes.shape == weights.shape
    assert np.abs(codes).max() <= quantize.WEIGHT_MAX
    assert np.array_equal(codes, np.round(codes))
    assert np.abs(codes * scales[:, None] - weights).max() < 0.3
    steps = np.abs(weights).max(axis=1, keepdims=True) / quantize.WEIGHT_MAX

    def error(rounded: Doubles) -> float:
        difference = rounded - weights
        return float(np.sum(difference @ covariance * difference))

    assert error(codes * scales[:, None]) < 0.7 * error(np.round(weights / steps) * steps)


def test_round_weights_uncorrelated_inputs() -> None:
    """They are rounded plainly."""
    weights = np.random.default_rng(3).normal(size=(4, 16)).astype(np.float32)
    codes, scales = quantize.round_weights(weights, np.eye(16))
    plain = np.round(weights.astype(np.float64) / scales[:, None])
    assert np.array_equal(codes, np.clip(plain, -127, 127))


def test_round_weights_zeros() -> None:
    """A channel of zeros stays zero."""
    codes, scales = quantize.round_weights(np.zeros((2, 9)), np.eye(9))
    assert not codes.any()
    assert np.isfinite(scales).all()
    assert (scales > 0).all()


def test_round_weights_constant_inputs() -> None:
    """Inputs that never vary do not break the factorization."""
    codes, _ = quantize.round_weights(np.ones((1, 4)), np.zeros((4, 4)))
    assert codes.tolist() == [[127, 127, 127, 127]]


def test_least_squares_range_outliers() -> None:
    """Two outliers do not set the range."""
    samples = np.concatenate([np.random.default_rng(4).normal(size=200_000), [-20.0, 20.0]])
    low, high = quantize.least_squares_range(samples, -20.0, 20.0)
    assert -20 < low < -5
    assert 5 < high < 20


def test_least_squares_range_contains_zero() -> None:
    """A range always contains zero."""
    assert quantize.least_squares_range(np.full(10, 5.0), 5.0, 5.0)[0] == 0.0


@pytest.mark.parametrize("stride", [1, 2])
def test_sample_patches_same_padding(stride: int) -> None:
    """Patches are those of a convolution with SAME padding."""
    value = np.arange(1, 26, dtype=np.float32).reshape(5, 5, 1)
    patches = quantize.sample_patches(value, [3, 3], stride, np.random.default_rng(5))
    assert patches.shape == (quantize.PATCHES_PER_IMAGE, 9, 1)
    centres = set(patches[:, 4, 0].tolist())
    assert centres <= set(value[::stride, ::stride, 0].ravel().tolist())
    corner = patches[patches[:, 4, 0] == 1.0][0, :, 0]
    assert corner.tolist() == [0, 0, 0, 0, 1, 2, 0, 6, 7]


def test_exact_sums_values() -> None:
    """Sums and products of each channel; here every number has few bits."""
    patches = np.array([[[1, 0.5], [2, 0]], [[-3, 0], [4, 0.25]]], np.float32)
    total, product = quantize.exact_sums(patches)
    assert total.tolist() == [[-2, 6], [0.5, 0.25]]
    assert product.tolist() == [[[10, -10], [-10, 20]], [[0.25, 0], [0, 0.0625]]]


def test_exact_sums_any_order() -> None:
    """Another order of the patches changes no bit, and the rounding is small."""
    random = np.random.default_rng(6)
    patches = random.lognormal(size=(quantize.PATCHES_PER_IMAGE, 36, 1)).astype(np.float32)
    total, product = quantize.exact_sums(patches)
    shuffled = quantize.exact_sums(random.permutation(patches))
    assert np.array_equal(total, shuffled[0])
    assert np.array_equal(product, shuffled[1])
    exact = patches[:, :, 0].astype(np.float64)
    assert np.allclose(product[0], exact.T @ exact, rtol=1e-4)


def test_exact_sums_zeros() -> None:
    """Patches of zeros have sums of zero."""
    total, product = quantize.exact_sums(np.zeros((3, 4, 1), np.float32))
    assert not total.any()
    assert not product.any()
