"""A model in this process, with either runtime, and the check of its file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgepose.datatypes import TensorSpec
from edgepose.errors import AcceleratorError, ModelFileError
from edgepose.protocols import Tensor
from edgepose.registry.tflite_file import POSENET_DECODER_OP, is_compiled, without_custom_op


class RuntimeInterpreter:
    """A model that a runtime of this process runs; see `protocols.Interpreter`."""

    def __init__(self, interpreter: Any, path: Path) -> None:
        inputs = interpreter.get_input_details()
        outputs = interpreter.get_output_details()
        if len(inputs) != 1:
            raise ModelFileError(
                f"{path}: expected a model with one input tensor, got {len(inputs)}; "
                "edgepose knows no such pose model"
            )
        self.input = tensor_spec(inputs[0])
        self.outputs = tuple(tensor_spec(output) for output in outputs)
        self._path = path
        self._interpreter = interpreter
        self._input_index: int = inputs[0]["index"]
        self._output_indices = [output["index"] for output in outputs]

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        """Run the model; raises AcceleratorError if the runtime fails or it was closed."""
        interpreter = self._interpreter
        if interpreter is None:
            raise AcceleratorError(f"{self._path}: invoked after close()")
        try:
            interpreter.set_tensor(self._input_index, tensor)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in self._output_indices]
        except (RuntimeError, ValueError) as error:
            raise AcceleratorError(f"{self._path}: invoke failed: {first_line(error)}") from error

    @property
    def delegated_parts(self) -> int:
        """How many parts of the graph run on a delegate, such as XNNPACK.

        Read from the interpreter, since a runtime with XNNPACK does not always use it:
        tflite-runtime 2.14 does not for some whole models.
        """
        # No public call of either runtime returns this.
        operators = self._interpreter._get_ops_details()  # noqa: SLF001
        return sum(operator["op_name"] == "DELEGATE" for operator in operators)

    def close(self) -> None:
        """Free the model."""
        self._interpreter = None


def tensor_spec(details: dict[str, Any]) -> TensorSpec:
    """Read one entry of a runtime's tensor details; the shape is the one allocated."""
    scale, zero_point = details["quantization"]
    return TensorSpec(
        name=str(details["name"]),
        shape=tuple(int(extent) for extent in details["shape"]),
        dtype=np.dtype(details["dtype"]),
        scale=float(scale),
        zero_point=int(zero_point),
    )


def read_model(path: Path, *, compiled: bool = False) -> bytes:
    """Read a model file, without an operator that no stock runtime has.

    `compiled` files are for the Edge TPU, the others for the CPU. Raises ModelFileError for a file
    that cannot be read, is not a model or is for the other device.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot read the model: {error.strerror}") from error
    if compiled and not is_compiled(data):
        raise ModelFileError(
            f"{path}: expected a model compiled for the Edge TPU, got one for the CPU; choose its "
            "-edgetpu file (`edgepose models list`), compile it with edgetpu_compiler, or set "
            "accelerator: cpu"
        )
    if not compiled and is_compiled(data):
        raise ModelFileError(
            f"{path}: compiled for an Edge TPU, and the CPU cannot run it; choose the same model "
            "without -edgetpu, or set accelerator: edgetpu"
        )
    return without_custom_op(data, POSENET_DECODER_OP, name=str(path))


def resize(interpreter: Any, size_wh: tuple[int, int] | None) -> None:
    """Resize the input tensor to `size_wh` px, unless the file fixes its size."""
    details = interpreter.get_input_details()[0]
    if size_wh is not None and -1 in details["shape_signature"]:
        width, height = size_wh
        interpreter.resize_tensor_input(details["index"], (1, height, width, 3), strict=True)


def first_line(error: Exception) -> str:
    """Return the first line of a runtime's error; the others are about its C++ code."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
