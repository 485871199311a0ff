"""The table that was published with the models, and which of our files stand beside which row.

Source: the pose estimation page of TensorFlow Lite's examples ("Performance benchmarks"). Its mAP
is of pictures "filtered and cropped to one person", of which no list was published.
"""

from typing import Final, NamedTuple

from edgepose.benchmark.results import Published

PUBLISHED: Final = (
    Published(
        name="MoveNet.Thunder (FP16)",
        megabytes=12.6,
        map=72.0,
        pixel5_cpu_ms=155,
        pixel5_gpu_ms=45,
        pi4_cpu_ms=594,
    ),
    Published(
        name="MoveNet.Thunder (INT8)",
        megabytes=7.1,
        map=68.9,
        pixel5_cpu_ms=100,
        pixel5_gpu_ms=52,
        pi4_cpu_ms=251,
    ),
    Published(
        name="MoveNet.Lightning (FP16)",
        megabytes=4.8,
        map=63.0,
        pixel5_cpu_ms=60,
        pixel5_gpu_ms=25,
        pi4_cpu_ms=186,
    ),
    Published(
        name="MoveNet.Lightning (INT8)",
        megabytes=2.9,
        map=57.4,
        pixel5_cpu_ms=52,
        pixel5_gpu_ms=28,
        pi4_cpu_ms=95,
    ),
    Published(
        name="PoseNet (MobileNetV1, FP32)",
        megabytes=13.3,
        map=45.6,
        pixel5_cpu_ms=80,
        pixel5_gpu_ms=40,
        pi4_cpu_ms=338,
    ),
)
PUBLISHED_THREADS: Final = 4
"""How many threads the published CPU latencies are of."""

_BY_NAME: Final = {row.name: row for row in PUBLISHED}
_CONVERTED: Final = "our conversion of the same weights"
_QUANTIZED: Final = "our quantization of the same network: first layers and heads in float"
_OTHER_POSENET: Final = "another network: MobileNetV1 0.75 at 385x385, published is 1.0 at 257x257"
_COMPILED: Final = "compiled for the Edge TPU; published latencies are of CPU and GPU"


class Counterpart(NamedTuple):
    """The published row of a model; `comparable` where both do the same work on the same device."""

    row: Published
    difference: str | None
    comparable: bool


def _counterpart(name: str, difference: str | None, *, comparable: bool) -> Counterpart:
    return Counterpart(_BY_NAME[name], difference, comparable)


_OURS: Final = {
    f"movenet-{size}-{precision}": _counterpart(
        f"MoveNet.{size.capitalize()} ({precision.upper()})",
        _CONVERTED if precision == "fp16" else _QUANTIZED,
        comparable=True,
    )
    for size in ("thunder", "lightning")
    for precision in ("fp16", "int8")
}
COUNTERPARTS: Final = {
    **_OURS,
    **{
        f"{name}-official": Counterpart(counterpart.row, None, comparable=True)
        for name, counterpart in _OURS.items()
    },
    **{
        f"{name}-edgetpu": Counterpart(counterpart.row, _COMPILED, comparable=False)
        for name, counterpart in _OURS.items()
        if name.endswith("int8")
    },
    "posenet-mobilenet-fp32": _counterpart(
        "PoseNet (MobileNetV1, FP32)", _OTHER_POSENET, comparable=False
    ),
    "posenet-mobilenet-fp32-official": _counterpart(
        "PoseNet (MobileNetV1, FP32)", None, comparable=True
    ),
}
"""By model name; a model without one (MultiPose, the quantized PoseNet) was not in the table."""

ORDER: Final = (
    "movenet-thunder-fp16",
    "movenet-thunder-int8",
    "movenet-lightning-fp16",
    "movenet-lightning-int8",
    "posenet-mobilenet-fp32",
    "posenet-mobilenet-int8",
    "movenet-multipose-fp16",
    "movenet-multipose-int8",
)
"""The rows of our table: the published ones in their order, then ours."""

TABLE: Final = tuple(name + suffix for name in ORDER for suffix in ("", "-official", "-edgetpu"))
"""All that belong in it when they are on the machine, each beside its kin."""
