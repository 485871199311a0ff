"""INT8 models: equalized channels, calibrated ranges, error-compensated weight rounding.

Four steps, each measured separately in models/README.md:

1. equalization: between convolutions that are joined by linear steps only, scaling a channel down
   before and up after changes nothing in float, and much in INT8;
2. ranges of the activations from calibration images;
3. rounding of the weights one after the other, each one's error passed on to those that are still
   open, weighted by the covariance of the layer's inputs (the method of GPTQ, Frantar et al. 2022,
   arXiv:2210.17323), and the bias set so that the mean output is exact;
4. a list of layers that stay in float because they cost accuracy and are small.
"""

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgepose.inference.runtime import redirect_native_stderr
from edgepose.model_builder import tflite_edit
from edgepose.model_builder.tflite_edit import Array, Convolution
from edgepose.registry.tflite_file import read_model, write_model

WEIGHT_MAX = 127
PATCHES_PER_IMAGE = 96
RANGE_SAMPLES_PER_IMAGE = 1024
SCALE_FACTORS = (1.0, 0.93, 0.86, 0.8)
# Relative to the mean curvature: keeps the factorization stable if inputs are always zero.
DAMPING = 0.01
# Of the inputs of a layer; a sum of products of PATCHES_PER_IMAGE pairs then has at most 47 bits,
# and a float64 holds 53.
INPUT_BITS = 20


LinearGroup = tuple[list[int], list[Convolution], list[Convolution]]
"""Tensors whose channels can be scaled together, the layers before and the layers after."""

LayerInputs = tuple[Array, Array]
"""Mean (groups, k) and covariance (groups, k, k) of a convolution's input patches.

A depthwise convolution has a group for each channel, any other one group of all channels.
"""


def quantize(
    float_model: bytes,
    images: Sequence[Array],
    float_layers: str | None,
    log: Callable[[str], None],
) -> bytes:
    """Return the INT8 file of a float32 TFLite file.

    `images` are model inputs without the batch axis; layers whose names match `float_layers`, a
    regular expression, stay in float.
    """
    model = read_model(float_model)
    groups = linear_groups(model)
    if groups:
        equalize(model, groups, channel_peaks(model, images[::2]))
        log(f"equalized {len(groups)} groups of channels")
    ranges, inputs = calibrate(model, images)
    quantized = read_model(_quantize_graph(write_model(model), ranges, float_layers))
    count = _replace_weights(model, quantized, inputs)
    log(f"rounded the weights of {count} layers")
    tflite_edit.shorten_names(quantized)
    return write_model(quantized)


def linear_groups(model: Any) -> list[LinearGroup]:
    """Return the groups of tensors between convolutions, in the order of their first tensors.

    Within a group only additions and bilinear resizing happen; everything before it is a
    convolution that is linear or ends in ReLU, everything after it a convolution.
    """
    codes, functions = schema.BuiltinOperator, schema.ActivationFunctionType
    graph = model.subgraphs[0]
    layers = {layer.operator: layer for layer in tflite_edit.convolutions(model)}
    produced: set[int] = set()
    blocked = {*map(int, graph.inputs), *map(int, graph.outputs)}
    joined: dict[int, set[int]] = {}
    for index, operator in enumerate(graph.operators):
        code = tflite_edit.operator_code(model, operator)
        inputs, outputs = list(map(int, operator.inputs)), set(map(int, operator.outputs))
        produced |= outputs
        activation = getattr(operator.builtinOptions, "fusedActivationFunction", functions.NONE)
        if index in layers:
            if activation not in (functions.NONE, functions.RELU):
                blocked |= outputs
            continue
        if code == codes.ADD and activation == functions.NONE:
            same = outputs.union(inputs)
        elif code == codes.RESIZE_BILINEAR:
            same = outputs.union(inputs[:1])
        else:
            blocked |= outputs.union(inputs)
            continue
        same = same.union(*(joined.get(tensor, ()) for tensor in same))
        joined.update(dict.fromkeys(same, same))
    groups = []
    for first in sorted(produced):
        tensors = joined.get(first, {first})
        before = [layer for layer in layers.values() if layer.output in tensors]
        after = [layer for layer in layers.values() if layer.input in tensors]
        if first == min(tensors) and tensors <= produced - blocked and before and after:
            groups.append((sorted(tensors), before, after))
    return groups


def channel_peaks(model: Any, images: Iterable[Array]) -> dict[int, Array]:
    """Return the largest magnitude in every channel of the feature maps, by tensor number."""
    peaks: dict[int, Array] = {}
    for values in activations(model, images):
        for tensor, value in values.items():
            if value.ndim == 4:
                peak = np.abs(value).max(axis=(0, 1, 2))
                peaks[tensor] = np.maximum(peaks.get(tensor, 0.0), peak)
    return peaks


def equalize(model: Any, groups: Iterable[LinearGroup], peaks: Mapping[int, Array]) -> None:
    """Scale the channels of each group, in place.

    Halfway between equally large channels and equally large columns of the following weights: the
    difficulty is shared.
    """
    for tensors, before, after in groups:
        peak = np.max([peaks[tensor] for tensor in tensors], axis=0)
        columns = [np.abs(tflite_edit.constant(model, layer.weights)) for layer in after]
        column_peak = np.max([column.max(axis=(0, 1, 2)) for column in columns], axis=0)
        usable = (peak > 0) & (column_peak > 0)
        exponent = np.zeros_like(peak)
        halves = np.log2(peak[usable] / column_peak[usable]) / 2
        exponent[usable] = halves - halves.mean()
        # A power of two leaves every float weight's digits unchanged.
        scale = np.exp2(np.round(exponent))
        for layer in before:
            weights = tflite_edit.constant(model, layer.weights)
            bias = tflite_edit.constant(model, layer.bias)
            per_channel = scale if layer.depthwise else scale[:, None, None, None]
            tflite_edit.set_constant(model, layer.weights, weights / per_channel)
            tflite_edit.set_constant(model, layer.bias, bias / scale)
        for layer in after:
            weights = tflite_edit.constant(model, layer.weights)
            tflite_edit.set_constant(model, layer.weights, weights * scale)


def activations(model: Any, images: Iterable[Array]) -> Iterator[dict[int, Array]]:
    """Yield for each image the float activations of a model, by tensor number."""
    tensors = [
        index
        for index, tensor in enumerate(model.subgraphs[0].tensors)
        if tensor.type == schema.TensorType.FLOAT32 and model.buffers[tensor.buffer].data is None
    ]
    # The reference kernels run the same instructions on every processor, unlike the default ones.
    # With a delegate, tensors inside the delegated part would never be filled.
    with warnings.catch_warnings(), redirect_native_stderr():
        # It warns that keeping all tensors takes memory; that is intended here.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = Interpreter(
            model_content=write_model(model),
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    for image in images:
        interpreter.set_tensor(entry, image[None])
        interpreter.invoke()
        yield {tensor: interpreter.get_tensor(tensor) for tensor in tensors}


def calibrate(
    model: Any, images: Sequence[Array]
) -> tuple[dict[str, dict[str, Any]], dict[int, LayerInputs]]:
    """Return the range of every activation by name, and the inputs of layers by operator number."""
    tensors = model.subgraphs[0].tensors
    layers = tflite_edit.convolutions(model)
    random = np.random.default_rng(0)
    bounds: dict[int, tuple[float, float]] = {}
    samples: defaultdict[int, list[Array]] = defaultdict(list)
    sums: defaultdict[int, Any] = defaultdict(float)
    products: defaultdict[int, Any] = defaultdict(float)
    for values in activations(model, images):
        for tensor, value in values.items():
            low, high = bounds.get(tensor, (math.inf, -math.inf))
            bounds[tensor] = min(low, float(value.min())), max(high, float(value.max()))
            if value.ndim == 4:
                chosen = random.integers(0, value.size, min(value.size, RANGE_SAMPLES_PER_IMAGE))
                samples[tensor].append(value.reshape(-1)[chosen])
        for layer in layers:
            kernel = tensors[layer.weights].shape[1:3]
            patches = sample_patches(values[layer.input][0], kernel, layer.stride, random)
            if not layer.depthwise:
                patches = patches.reshape(len(patches), -1, 1)
            total, product = exact_sums(patches)
            sums[layer.operator] += total
            products[layer.operator] += product
    ranges = {}
    for tensor, (low, high) in bounds.items():
        if tensor in samples:
            low, high = least_squares_range(np.concatenate(samples[tensor]), low, high)
        # With 4 digits, another processor's last bits do not change files.
        limits = {"min": np.float32(f"{low:.4g}"), "max": np.float32(f"{high:.4g}")}
        ranges[tensors[tensor].name.decode("utf-8")] = limits
    inputs = {}
    for operator, total in sums.items():
        mean = total / (len(images) * PATCHES_PER_IMAGE)
        second = products[operator] / (len(images) * PATCHES_PER_IMAGE)
        inputs[operator] = mean, second - mean[:, :, None] * mean[:, None, :]
    return ranges, inputs


def sample_patches(
    value: Array, kernel: Sequence[int], stride: int, random: np.random.Generator
) -> Array:
    """Return random patches of (H, W, C), padded SAME, as (patches, kernel area, C)."""
    height, width, _ = value.shape
    rows, columns = -(-height // stride), -(-width // stride)
    tall = max((rows - 1) * stride + kernel[0] - height, 0)
    wide = max((columns - 1) * stride + kernel[1] - width, 0)
    padded = np.pad(value, ((tall // 2, tall - tall // 2), (wide // 2, wide - wide // 2), (0, 0)))
    row = random.integers(0, rows, PATCHES_PER_IMAGE) * stride
    column = random.integers(0, columns, PATCHES_PER_IMAGE) * stride
    return np.stack(
        [padded[row + i, column + j] for i in range(kernel[0]) for j in range(kernel[1])], axis=1
    )


def exact_sums(patches: Array) -> tuple[Array, Array]:
    """Return the sums (C, k) and the sums of products (C, k, k) of patches (n, k, C) in float64.

    The patches are rounded to INPUT_BITS of the largest one, so that no sum is rounded, and its
    order does not matter.
    """
    _, exponent = np.frexp(np.abs(patches).max(initial=0.0))
    step = np.ldexp(1.0, int(exponent) - INPUT_BITS)
    whole = np.rint(patches.astype(np.float64) / step).transpose(2, 1, 0)
    return whole.sum(axis=2) * step, (whole @ whole.transpose(0, 2, 1)) * step**2


def least_squares_range(samples: Array, low: float, high: float) -> tuple[float, float]:
    """Return the part of low..high that loses least in 8 bits, clipping and rounding together."""

    def error(bounds: tuple[float, float]) -> float:
        bottom, top = bounds
        step = (top - bottom) / 255 or 1.0
        coded = np.clip(np.round((samples - bottom) / step), 0, 255) * step + bottom
        return float(np.mean((coded - samples) ** 2))

    samples = samples.astype(np.float64)
    low, high = min(low, 0.0), max(high, 0.0)
    return min(((low * part, high * part) for part in np.linspace(1.0, 0.5, 26)), key=error)


def _quantize_graph(
    data: bytes, ranges: Mapping[str, Mapping[str, Any]], float_layers: str | None
) -> bytes:
    # Late: without the convert extra, the rest of this file can be tested.
    from ai_edge_quantizer import qtyping, quantizer

    work = quantizer.Quantizer(bytearray(data))
    names = qtyping.TFLOperationName
    for operation in (names.CONV_2D, names.DEPTHWISE_CONV_2D):
        work.add_static_config(
            regex=".*", operation_name=operation, activation_num_bits=8, weight_num_bits=8
        )
        if float_layers is not None:
            skipped = f".*(?:{float_layers}).*"
            work.update_quantization_recipe(skipped, operation, algorithm_key="no_quantize")
    # Channels whose weights are all zero have no scale; their codes are replaced anyway.
    with np.errstate(invalid="ignore"), redirect_native_stderr():
        result = work.quantize(ranges, enable_progress_report=False)
    return bytes(result.quantized_model)


def _replace_weights(model: Any, quantized: Any, inputs: Mapping[int, LayerInputs]) -> int:
    """Round the weights anew wherever the quantizer did; return the number of these layers."""
    tensors = quantized.subgraphs[0].tensors
    layers = zip(tflite_edit.convolutions(model), tflite_edit.convolutions(quantized), strict=True)
    count = 0
    for layer, target in layers:
        if tensors[target.weights].type != schema.TensorType.INT8:
            continue
        weights = tflite_edit.constant(model, layer.weights)
        bias = tflite_edit.constant(model, layer.bias)
        mean, covariance = inputs[layer.operator]
        # (groups, outputs, k), as the inputs.
        rows = weights.reshape(-1, weights.shape[-1]).T[:, None]
        if not layer.depthwise:
            rows = weights.reshape(1, len(weights), -1)
        codes, scales = map(np.stack, zip(*map(round_weights, rows, covariance), strict=True))
        shift = ((rows - codes * scales[:, :, None]) @ mean[:, :, None]).reshape(-1)
        stored = codes[:, 0].T if layer.depthwise else codes
        scales = scales.reshape(-1)
        bias_scales = float(tensors[target.input].quantization.scale[0]) * scales
        bias_codes = np.clip(np.round((bias + shift) / bias_scales), -(2**31) + 1, 2**31 - 1)
        tflite_edit.set_quantized(quantized, target.weights, stored.astype(np.int8), scales)
        tflite_edit.set_quantized(quantized, target.bias, bias_codes.astype(np.int32), bias_scales)
        count += 1
    return count


def round_weights(rows: Array, covariance: Array) -> tuple[Array, Array]:
    """Return INT8 codes (rows, k) and scales (rows,).

    `covariance` (k, k) is that of the layer's inputs. Rows are rounded column by column, the most
    active first; each column's error is passed on to the columns still open. For each row the scale
    factor with the least error wins.
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
    scales = np.ones(len(rows), np.float32)
    for scale_factor in SCALE_FACTORS:
        scale = (peak * scale_factor / WEIGHT_MAX).astype(np.float32).astype(np.float64)
        found = np.empty(rows.shape)
        found[:, order] = _round_columns(rows[:, order], factor, scale)
        difference = rows - found * scale[:, None]
        error = np.einsum("ri,ri->r", difference @ curvature, difference)
        better = error < best_error
        best_error[better] = error[better]
        codes[better], scales[better] = found[better], scale[better]
    return codes, scales


def _round_columns(rows: Array, factor: Array, scale: Array) -> Array:
    rows = rows.copy()
    codes = np.empty(rows.shape)
    for column in range(rows.shape[1]):
        codes[:, column] = np.clip(np.round(rows[:, column] / scale), -WEIGHT_MAX, WEIGHT_MAX)
        error = (rows[:, column] - codes[:, column] * scale) / factor[column, column]
        rows[:, column:] -= np.outer(error, factor[column, column:])
    return codes
