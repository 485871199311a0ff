"""The table published with the models, and which model file corresponds to which of its rows.

Source: the pose estimation page of TensorFlow Lite's examples ("Performance benchmarks"). Its mAP
is of images "filtered and cropped to one person", of which no list was published.
"""

from functools import partial
from typing import Final, NamedTuple

from edgepose.benchmark.results import Published, PublishedBefore

# Name, MB, mAP; then ms on a Pixel 5 (CPU, GPU) and on a Raspberry Pi 4 (CPU).
_THUNDER_FP16: Final = Published("MoveNet.Thunder (FP16)", 12.6, 72.0, 155, 45, 594)
_THUNDER_INT8: Final = Published("MoveNet.Thunder (INT8)", 7.1, 68.9, 100, 52, 251)
_LIGHTNING_FP16: Final = Published("MoveNet.Lightning (FP16)", 4.8, 63.0, 60, 25, 186)
_LIGHTNING_INT8: Final = Published("MoveNet.Lightning (INT8)", 2.9, 57.4, 52, 28, 95)
_POSENET_FP32: Final = Published("PoseNet (MobileNetV1, FP32)", 13.3, 45.6, 80, 40, 338)

PUBLISHED: Final = (_THUNDER_FP16, _THUNDER_INT8, _LIGHTNING_FP16, _LIGHTNING_INT8, _POSENET_FP32)
PUBLISHED_THREADS: Final = 4
"""Number of threads of the published CPU latencies."""

# The page before, of PoseNet alone; its megabytes of the same file are 2**20 bytes.
_BEFORE: Final = partial(PublishedBefore, name=_POSENET_FP32.name, megabytes=12.7)
PUBLISHED_BEFORE: Final = (
    _BEFORE(device="Pixel 3", gpu_ms=12, cpu_ms=31, cpu_threads=4),
    _BEFORE(device="Pixel 4", gpu_ms=12, cpu_ms=19, cpu_threads=4),
    _BEFORE(device="iPhone XS", gpu_ms=4.8, cpu_ms=22, cpu_threads=2),
)

UNTRAINED: Final = "posenet-mobilenet-untrained"
"""The name of the file that `untrained.py` writes."""
UNTRAINED_DIFFERENCE: Final = "same network, untrained weights: latency only"

_CONVERTED: Final = "our conversion of the same weights"
_QUANTIZED: Final = "our quantization of the same network: first layers and heads in float"
_OTHER_POSENET: Final = "another network: MobileNetV1 0.75 at 385x385, published is 1.0 at 257x257"
_COMPILED: Final = "compiled for the Edge TPU; published latencies are of CPU and GPU"


class Counterpart(NamedTuple):
    """The published row of a model; `comparable` if network and device are the same."""

    row: Published
    difference: str | None = None
    comparable: bool = True


COUNTERPARTS: Final = {
    "movenet-thunder-fp16": Counterpart(_THUNDER_FP16, _CONVERTED),
    "movenet-thunder-int8": Counterpart(_THUNDER_INT8, _QUANTIZED),
    "movenet-lightning-fp16": Counterpart(_LIGHTNING_FP16, _CONVERTED),
    "movenet-lightning-int8": Counterpart(_LIGHTNING_INT8, _QUANTIZED),
    "posenet-mobilenet-fp32": Counterpart(_POSENET_FP32, _OTHER_POSENET, comparable=False),
    UNTRAINED: Counterpart(_POSENET_FP32, UNTRAINED_DIFFERENCE),
    "movenet-thunder-fp16-official": Counterpart(_THUNDER_FP16),
    "movenet-thunder-int8-official": Counterpart(_THUNDER_INT8),
    "movenet-lightning-fp16-official": Counterpart(_LIGHTNING_FP16),
    "movenet-lightning-int8-official": Counterpart(_LIGHTNING_INT8),
    "posenet-mobilenet-fp32-official": Counterpart(_POSENET_FP32),
    "movenet-thunder-int8-edgetpu": Counterpart(_THUNDER_INT8, _COMPILED, comparable=False),
    "movenet-lightning-int8-edgetpu": Counterpart(_LIGHTNING_INT8, _COMPILED, comparable=False),
}
"""By model name; MultiPose and the quantized PoseNet are not in the published table."""
