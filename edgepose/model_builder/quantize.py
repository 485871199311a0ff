"""INT8 models: equalized channels, calibrated ranges, error-compensated weight rounding.

Four steps, each measured on its own in models/README.md:

1. equalization: where two convolutions are joined by linear steps only, scaling a channel down
   before and up after changes nothing in float, and everything in INT8;
2. ranges of the activations from calibration pictures;
3. rounding of the weights one after the other, each one's error passed on to those that still
   can move, weighted by what the layer's inputs look like (the method of GPTQ, Frantar et al.
   2022, arXiv:2210.17323), and the bias set so that the mean output is exact;
4. a list of layers that stay in float because they cost accuracy and are small.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepose.errors import ConversionError
from edgepose.model_builder import tflite_edit
from edgepose.model_builder.tflite_edit import Convolution
from edgepose.registry.tflite_file import read_model, write_model

Array = npt.NDArray[Any]

WEIGHT_MAX = 127
POSITIONS_PER_PICTURE = 96
RANGE_SAMPLES_PER_PICTURE = 1024
SCALE_FACTORS = (1.0, 0.93, 0.86, 0.8)
# Relative to the mean curvature: keeps the factorization stable where inputs are always zero.
DAMPING = 0.01
NONE, RELU = 0, 1


@dataclass(frozen=True)
class Settings:
    """How one model is quantized; `keep_float` are patterns of layer names."""

    keep_float: tuple[str, ...] = ()
    equalize: float | None = 0.5
    compensate: bool = True
    range_rule: str = "minmax"


@dataclass
class Statistics:
    """What calibration pictures showed, by tensor number."""

    ranges: dict[int, tuple[float, float]] = field(default_factory=dict)
    samples: dict[int, list[Array]] = field(default_factory=dict)
    channel_peaks: dict[int, Array] = field(default_factory=dict)
    sums: dict[int, Array] = field(default_factory=dict)
    products: dict[int, Array] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)


def quantize(
    float_model: bytes,
    pictures: Sequence[Array],
    settings: Settings,
    log: Callable[[str], None],
) -> bytes:
    """Return the INT8 file of a float32 TFLite file.

    `pictures` are model inputs without the batch axis. Raises ConversionError when the quantizer
    drops or adds a convolution.
    """
    model = read_model(float_model)
    if settings.equalize is not None:
        peaks = observe(float_model, pictures[::2], with_products=False).channel_peaks
        groups = equalize(model, peaks, settings.equalize)
        float_model = write_model(model)
        log(f"equalized {groups} groups of channels")
    statistics = observe(float_model, pictures, with_products=settings.compensate)
    ranges = activation_ranges(model, statistics, settings.range_rule)
    quantized = read_model(_quantize_graph(float_model, ranges, settings.keep_float))
    if settings.compensate:
        errors = _replace_weights(model, quantized, statistics)
        log(
            f"rounded {len(errors)} layers with compensation, "
            f"squared error {np.mean(errors):.2f} of plain rounding's"
        )
    tflite_edit.shorten_names(quantized)
    return write_model(quantized)


def observe(data: bytes, pictures: Iterable[Array], with_products: bool) -> Statistics:
    """Return what flows through a float file: ranges, samples, and moments of layer inputs."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    model = read_model(data)
    layers = tflite_edit.convolutions(model)
    inputs = {layer.input for layer in layers}
    watched = sorted(inputs | {layer.output for layer in layers} | _produced_floats(model))
    # Without the default delegate: with it, tensors inside a delegated part are never filled.
    with warnings.catch_warnings():
        # It warns that keeping all tensors takes memory; that is wanted here.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = Interpreter(
            model_content=data,
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    random = np.random.default_rng(0)
    statistics = Statistics()
    for picture in pictures:
        interpreter.set_tensor(entry, picture[None])
        interpreter.invoke()
        values = {tensor: interpreter.get_tensor(tensor) for tensor in watched}
        for tensor, value in values.items():
            _observe_tensor(statistics, tensor, value, random)
        if with_products:
            for layer in layers:
                _observe_layer(statistics, model, layer, values[layer.input], random)
    return statistics


def _produced_floats(model: Any) -> set[int]:
    graph = model.subgraphs[0]
    return {
        int(tensor)
        for operator in graph.operators
        for tensor in operator.outputs
        if graph.tensors[tensor].type == 0
    }


def _observe_tensor(
    statistics: Statistics, tensor: int, value: Array, random: np.random.Generator
) -> None:
    low, high = float(value.min()), float(value.max())
    old_low, old_high = statistics.ranges.get(tensor, (low, high))
    statistics.ranges[tensor] = (min(low, old_low), max(high, old_high))
    if value.ndim == 4:
        peaks = np.abs(value).max(axis=(0, 1, 2))
        statistics.channel_peaks[tensor] = np.maximum(
            statistics.channel_peaks.get(tensor, np.zeros_like(peaks)), peaks
        )
        flat = value.reshape(-1)
        chosen = random.integers(0, flat.size, min(flat.size, RANGE_SAMPLES_PER_PICTURE))
        statistics.samples.setdefault(tensor, []).append(flat[chosen])


def _observe_layer(
    statistics: Statistics,
    model: Any,
    layer: Convolution,
    value: Array,
    random: np.random.Generator,
) -> None:
    """Add sampled input patches of one layer: (n, K), for a depthwise one (n, K, channels)."""
    kernel = [int(side) for side in model.subgraphs[0].tensors[layer.weights].shape][1:3]
    patches = sample_patches(value[0], kernel, layer.stride, POSITIONS_PER_PICTURE, random)
    if layer.depthwise:
        total = patches.sum(axis=0)
        product = np.einsum("nic,njc->cij", patches, patches, optimize=True)
    else:
        flat = patches.reshape(len(patches), -1)
        total, product = flat.sum(axis=0), flat.T @ flat
    key = layer.operator
    statistics.sums[key] = statistics.sums.get(key, 0.0) + total.astype(np.float64)
    statistics.products[key] = statistics.products.get(key, 0.0) + product.astype(np.float64)
    statistics.counts[key] = statistics.counts.get(key, 0) + len(patches)


def sample_patches(
    value: Array, kernel: Sequence[int], stride: int, count: int, random: np.random.Generator
) -> Array:
    """Return `count` random patches of (H, W, C), padded SAME, as (count, kernel area, C)."""
    height, width, _ = value.shape
    rows, columns = -(-height // stride), -(-width // stride)
    tall = max((rows - 1) * stride + kernel[0] - height, 0)
    wide = max((columns - 1) * stride + kernel[1] - width, 0)
    padded = np.pad(value, ((tall // 2, tall - tall // 2), (wide // 2, wide - wide // 2), (0, 0)))
    row = random.integers(0, rows, count) * stride
    column = random.integers(0, columns, count) * stride
    return np.stack(
        [padded[row + i, column + j] for i in range(kernel[0]) for j in range(kernel[1])], axis=1
    )


def equalize(model: Any, peaks: Mapping[int, Array], balance: float) -> int:
    """Scale channels between linearly joined convolutions in place; return the number of groups.

    `balance` is 1 to make all channels equally large, 0 to make all columns of the following
    weights equally large, and between to share the difficulty.
    """
    groups = linear_groups(model)
    for tensors, producers, consumers in groups:
        peak = np.max([peaks[tensor] for tensor in tensors], axis=0)
        weight = np.max([_column_peaks(model, layer) for layer in consumers], axis=0)
        usable = (peak > 0) & (weight > 0)
        scale: Array = np.ones_like(peak)
        scale[usable] = peak[usable] ** balance / weight[usable] ** (1.0 - balance)
        scale[usable] /= np.exp(np.mean(np.log(scale[usable])))
        # A power of two leaves every float weight's digits as they are.
        scale = np.exp2(np.round(np.log2(scale))).astype(np.float32)
        for layer in producers:
            weights = tflite_edit.constant(model, layer.weights)
            bias = tflite_edit.constant(model, layer.bias)
            per_channel = scale if layer.depthwise else scale[:, None, None, None]
            tflite_edit.set_constant(model, layer.weights, weights / per_channel)
            tflite_edit.set_constant(model, layer.bias, bias / scale)
        for layer in consumers:
            weights = tflite_edit.constant(model, layer.weights)
            tflite_edit.set_constant(model, layer.weights, weights * scale)
    return len(groups)


def _column_peaks(model: Any, layer: Convolution) -> Array:
    peaks: Array = np.abs(tflite_edit.constant(model, layer.weights)).max(axis=(0, 1, 2))
    return peaks


def linear_groups(
    model: Any,
) -> list[tuple[list[int], list[Convolution], list[Convolution]]]:
    """Return groups of tensors whose channels can be scaled together: (tensors, from, to).

    Within a group only additions and bilinear resizing happen; everything before it is a
    convolution that is linear or ends in ReLU, everything after it a convolution.
    """
    from ai_edge_litert import schema_py_generated as schema

    codes = schema.BuiltinOperator
    graph = model.subgraphs[0]
    layers = {layer.operator: layer for layer in tflite_edit.convolutions(model)}
    parent: dict[int, int] = {}

    def root(tensor: int) -> int:
        while parent.setdefault(tensor, tensor) != tensor:
            tensor = parent[tensor]
        return tensor

    blocked = {int(t) for t in (*graph.inputs, *graph.outputs)}
    producers: dict[int, Convolution] = {}
    consumers: dict[int, list[Convolution]] = {}
    for index, operator in enumerate(graph.operators):
        code = tflite_edit.operator_code(model, operator)
        tensors = [int(t) for t in (*operator.inputs, *operator.outputs)]
        if index in layers:
            layer = layers[index]
            producers[layer.output] = layer
            consumers.setdefault(layer.input, []).append(layer)
            if layer.activation not in (NONE, RELU):
                blocked.add(layer.output)
        elif code == codes.ADD and operator.builtinOptions.fusedActivationFunction == NONE:
            for tensor in tensors[1:]:
                parent[root(tensor)] = root(tensors[0])
        elif code == codes.RESIZE_BILINEAR:
            parent[root(tensors[-1])] = root(tensors[0])
        else:
            blocked.update(tensors)
    members: dict[int, list[int]] = {}
    for tensor in {*parent, *producers, *consumers}:
        members.setdefault(root(tensor), []).append(tensor)
    groups = []
    for tensors in members.values():
        before = [producers[t] for t in tensors if t in producers]
        after = [layer for t in tensors for layer in consumers.get(t, ())]
        sourceless = [t for t in tensors if t not in producers and not _is_joined(model, t)]
        if before and after and not blocked & set(tensors) and not sourceless:
            groups.append((sorted(tensors), before, after))
    return groups


def _is_joined(model: Any, tensor: int) -> bool:
    return any(tensor in operator.outputs for operator in model.subgraphs[0].operators)


def activation_ranges(
    model: Any, statistics: Statistics, rule: str
) -> dict[str, dict[str, np.float32]]:
    """Return the range of every activation by tensor name, as the quantizer wants them."""
    ranges: dict[str, dict[str, np.float32]] = {}
    for tensor, (low, high) in statistics.ranges.items():
        if rule == "mse" and tensor in statistics.samples:
            low, high = least_squares_range(np.concatenate(statistics.samples[tensor]), low, high)
        name = model.subgraphs[0].tensors[tensor].name.decode("utf-8")
        ranges[name] = {
            "min": np.float32(_round_digits(low)),
            "max": np.float32(_round_digits(high)),
        }
    return ranges


def least_squares_range(samples: Array, low: float, high: float) -> tuple[float, float]:
    """Return the part of low..high that loses least in 8 bits, clipping and rounding together."""
    best = (math.inf, low, high)
    low, high = min(low, 0.0), max(high, 0.0)
    for shrink in np.linspace(1.0, 0.5, 26):
        bottom, top = low * shrink, high * shrink
        step = (top - bottom) / 255 or 1.0
        coded = np.clip(np.round((samples - bottom) / step), 0, 255) * step + bottom
        error = float(np.mean((coded - samples) ** 2))
        if error < best[0]:
            best = (error, bottom, top)
    return best[1], best[2]


def _round_digits(value: float) -> float:
    """Return a value with 4 digits, so that another processor's last bits do not change files."""
    return float(f"{value:.4g}")


def _quantize_graph(
    data: bytes, ranges: Mapping[str, Mapping[str, np.float32]], keep_float: Sequence[str]
) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer

    operations = (
        qtyping.TFLOperationName.CONV_2D,
        qtyping.TFLOperationName.DEPTHWISE_CONV_2D,
    )
    work = quantizer.Quantizer(bytearray(data))
    for operation in operations:
        work.add_static_config(
            regex=".*", operation_name=operation, activation_num_bits=8, weight_num_bits=8
        )
    for pattern in keep_float:
        for operation in operations:
            work.update_quantization_recipe(
                regex=f".*(?:{pattern}).*", operation_name=operation, algorithm_key="no_quantize"
            )
    # Channels whose weights are all zero have no scale; their codes are replaced anyway.
    with (
        tempfile.TemporaryDirectory() as folder,
        np.errstate(invalid="ignore"),
        # The quantizer draws progress bars although it is told not to.
        contextlib.redirect_stderr(io.StringIO()),
    ):
        target = Path(folder) / "quantized.tflite"
        work.quantize(
            {name: dict(bounds) for name, bounds in ranges.items()},
            serialize_to_path=str(target),
            enable_progress_bar=False,
            enable_progress_report=False,
        )
        return target.read_bytes()


def _replace_weights(model: Any, quantized: Any, statistics: Statistics) -> list[float]:
    before, after = tflite_edit.convolutions(model), tflite_edit.convolutions(quantized)
    if len(before) != len(after):
        raise ConversionError(
            f"quantizing changed the number of convolutions from {len(before)} to {len(after)}"
        )
    errors = []
    tensors = quantized.subgraphs[0].tensors
    for layer, target in zip(before, after, strict=True):
        if tensors[target.weights].type != 9:
            continue
        weights = tflite_edit.constant(model, layer.weights)
        bias = tflite_edit.constant(model, layer.bias)
        count = statistics.counts[layer.operator]
        mean = statistics.sums[layer.operator] / count
        second = statistics.products[layer.operator] / count
        if layer.depthwise:
            rows = weights.reshape(-1, weights.shape[-1]).T
            covariance = second - mean.T[:, :, None] * mean.T[:, None, :]
            parts = [
                round_weights(row[None], cov, SCALE_FACTORS)
                for row, cov in zip(rows, covariance, strict=True)
            ]
            codes = np.concatenate([part[0] for part in parts])
            scales = np.concatenate([part[1] for part in parts])
            ratio = float(np.mean([part[2] for part in parts]))
            shift = ((rows - codes * scales[:, None]) * mean.T).sum(axis=1)
            stored = codes.T.reshape(weights.shape)
        else:
            rows = weights.reshape(len(weights), -1)
            codes, scales, ratio = round_weights(rows, second - np.outer(mean, mean), SCALE_FACTORS)
            shift = (rows - codes * scales[:, None]) @ mean
            stored = codes.reshape(weights.shape)
        input_scale = float(tensors[target.input].quantization.scale[0])
        bias_scales = input_scale * scales
        tflite_edit.set_constant(quantized, target.weights, stored.astype(np.int8))
        tflite_edit.set_scales(quantized, target.weights, scales)
        coded = np.clip(np.round((bias + shift) / bias_scales), -(2**31) + 1, 2**31 - 1)
        tflite_edit.set_constant(quantized, target.bias, coded.astype(np.int32))
        tflite_edit.set_scales(quantized, target.bias, bias_scales)
        errors.append(ratio)
    return errors


def round_weights(
    rows: Array, covariance: Array, scale_factors: Sequence[float]
) -> tuple[Array, Array, float]:
    """Return INT8 codes (rows, K), scales (rows,) and the squared error against plain rounding.

    `covariance` (K, K) is that of the layer's inputs. Rows are rounded column by column, the
    most active first; each column's error is passed on to the columns still open. For each row
    the scale factor with the least error wins.
    """
    rows = rows.astype(np.float64)
    size = rows.shape[1]
    damp = DAMPING * float(np.mean(np.diag(covariance))) + 1e-12
    curvature = covariance + damp * np.eye(size)
    order = np.argsort(-np.diag(curvature), kind="stable")
    inverse = np.linalg.inv(curvature[np.ix_(order, order)])
    factor = np.linalg.cholesky((inverse + inverse.T) / 2).T
    peak = np.abs(rows).max(axis=1)
    peak[peak == 0] = 1.0
    best_error = np.full(len(rows), np.inf)
    codes = np.zeros(rows.shape)
    scales = np.ones(len(rows))
    plain = _squared_error(
        rows, np.round(rows / peak[:, None] * WEIGHT_MAX), peak / WEIGHT_MAX, curvature
    )
    for scale_factor in scale_factors:
        scale = (peak * scale_factor / WEIGHT_MAX).astype(np.float32).astype(np.float64)
        found = np.empty(rows.shape)
        found[:, order] = _round_columns(rows[:, order], factor, scale)
        error = _squared_error(rows, found, scale, curvature)
        better = error < best_error
        best_error[better], codes[better], scales[better] = (
            error[better],
            found[better],
            scale[better],
        )
    ratio = float(np.sum(best_error) / max(float(np.sum(plain)), 1e-30))
    return codes, scales.astype(np.float32), ratio


def _round_columns(rows: Array, factor: Array, scale: Array, block: int = 64) -> Array:
    rows = rows.copy()
    codes = np.empty(rows.shape)
    size = rows.shape[1]
    for start in range(0, size, block):
        stop = min(start + block, size)
        errors = np.empty((len(rows), stop - start))
        for column in range(start, stop):
            value = rows[:, column]
            code = np.clip(np.round(value / scale), -WEIGHT_MAX, WEIGHT_MAX)
            codes[:, column] = code
            error = (value - code * scale) / factor[column, column]
            rows[:, column:stop] -= np.outer(error, factor[column, column:stop])
            errors[:, column - start] = error
        rows[:, stop:] -= errors @ factor[start:stop, stop:]
    return codes


def _squared_error(rows: Array, codes: Array, scale: Array, curvature: Array) -> Array:
    difference = rows - codes * scale[:, None]
    result: Array = np.einsum("ri,ri->r", difference @ curvature, difference)
    return result


def use_uint8_input(data: bytes) -> bytes:
    """Return an INT8 file with a float input as one that takes bytes of the same meaning.

    Raises ConversionError when the input is not quantized by the first operator alone.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read_model(data)
    graph = model.subgraphs[0]
    entry = int(graph.inputs[0])
    readers = [operator for operator in graph.operators if entry in operator.inputs]
    if len(readers) != 1 or tflite_edit.operator_code(model, readers[0]) != (
        schema.BuiltinOperator.QUANTIZE
    ):
        raise ConversionError("expected one QUANTIZE operator to read the model's input")
    first = graph.tensors[readers[0].outputs[0]].quantization
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.asarray(first.scale, np.float32)
    # uint8 codes are int8 codes plus 128; the step is the same.
    quantization.zeroPoint = np.asarray(first.zeroPoint, np.int64) + 128
    graph.tensors[entry].type = schema.TensorType.UINT8
    graph.tensors[entry].quantization = quantization
    return write_model(model)


def layer_names(data: bytes, pattern: str) -> list[str]:
    """Return the names of the convolutions that a pattern of `keep_float` means."""
    model = read_model(data)
    tensors = model.subgraphs[0].tensors
    names = [tensors[layer.output].name.decode() for layer in tflite_edit.convolutions(model)]
    return [name for name in names if re.search(pattern, name)]
