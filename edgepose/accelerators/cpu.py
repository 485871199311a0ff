"""Models on the CPU, through LiteRT or tflite-runtime (XNNPACK inside both)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from edgepose import flatbuffer
from edgepose.accelerators._litert import RuntimeName, chatter_to_log, load_runtime
from edgepose.datatypes import TensorSpec
from edgepose.errors import AcceleratorError, ModelFileError, ModelShapeError
from edgepose.protocols import Tensor

MAX_AUTO_THREADS: Final = 4


def default_threads() -> int:
    """Return as many threads as this process may use cores, four at most.

    More than four gain nothing on models this small, and a Pi has four.
    """
    return max(1, min(MAX_AUTO_THREADS, len(os.sched_getaffinity(0))))


class CpuAccelerator:
    """Loads models for the CPU.

    `threads` None means `default_threads()`; `xnnpack` False takes the runtime's reference kernels,
    which only a benchmark wants.
    """

    device: str = "cpu"

    def __init__(
        self,
        *,
        runtime: RuntimeName | Literal["auto"] = "auto",
        threads: int | None = None,
        xnnpack: bool = True,
    ) -> None:
        self.runtime, self._module = load_runtime(runtime)
        self.threads = threads or default_threads()
        self._xnnpack = xnnpack

    def load(self, path: Path, input_size_wh: tuple[int, int] | None = None) -> "CpuInterpreter":
        """Load a model file, resized to `input_size_wh` where that is given.

        Raises ModelFileError where the runtime cannot read the file or lacks an operator, and
        ModelShapeError where it cannot take that size.
        """
        resolver = self._module.OpResolverType
        options: dict[str, Any] = {"num_threads": self.threads}
        if not self._xnnpack:
            options["experimental_op_resolver_type"] = resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        with chatter_to_log():
            return self._load(path, input_size_wh, options)

    def _load(
        self, path: Path, input_size_wh: tuple[int, int] | None, options: dict[str, Any]
    ) -> "CpuInterpreter":
        data = _read(path)
        try:
            # The bytes, not the path: the runtime maps a path, and a file replaced under a running
            # daemon (a package upgrade) would then end it with SIGBUS.
            interpreter = self._module.Interpreter(model_content=data, **options)
        except ValueError as error:
            raise ModelFileError(
                f"{path}: expected a TFLite model, got a file that {self.runtime} cannot read "
                f"({_first_line(error)}); fetch or build it again, `edgepose models verify` checks "
                "what is installed"
            ) from error
        try:
            if input_size_wh is not None:
                _resize(interpreter, input_size_wh, path)
            interpreter.allocate_tensors()
        except ModelShapeError:
            raise
        except (RuntimeError, ValueError) as error:
            raise _allocation_error(path, self.runtime, error) from error
        return CpuInterpreter(interpreter, path)


class CpuInterpreter:
    """A model on the CPU; see `protocols.Interpreter`."""

    def __init__(self, interpreter: Any, path: Path) -> None:
        inputs = interpreter.get_input_details()
        outputs = interpreter.get_output_details()
        if len(inputs) != 1:
            raise ModelFileError(
                f"{path}: expected a model with one input tensor, got {len(inputs)}; "
                "this is no pose model that edgepose knows"
            )
        self.input = tensor_spec(inputs[0])
        self.outputs = tuple(tensor_spec(output) for output in outputs)
        self._path = path
        self._interpreter = interpreter
        self._input_index: int = inputs[0]["index"]
        self._output_indices = [output["index"] for output in outputs]

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        """Run the model; raises AcceleratorError where the runtime fails or it was closed."""
        interpreter = self._interpreter
        if interpreter is None:
            raise AcceleratorError(f"{self._path}: invoked after close()")
        try:
            interpreter.set_tensor(self._input_index, tensor)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in self._output_indices]
        except (RuntimeError, ValueError) as error:
            raise AcceleratorError(f"{self._path}: invoke failed: {_first_line(error)}") from error

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


def _read(path: Path) -> bytes:
    """Read a model file, refuse one that would crash a runtime, and make it one the CPU can run."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot read the model: {error.strerror}") from error
    # Runtimes follow a file's offsets unchecked: a truncated file ends the process, not the load.
    operators = flatbuffer.operators(data, name=str(path))
    if flatbuffer.EDGETPU_OP in operators:
        raise ModelFileError(
            f"{path}: compiled for an Edge TPU, and the CPU cannot run it; choose the same model "
            "without -edgetpu, or set accelerator: edgetpu"
        )
    if flatbuffer.POSENET_DECODER_OP in operators:
        return flatbuffer.without_custom_op(data, flatbuffer.POSENET_DECODER_OP, name=str(path))
    return data


def _resize(interpreter: Any, size_wh: tuple[int, int], path: Path) -> None:
    details = interpreter.get_input_details()[0]
    width, height = size_wh
    wanted = (1, height, width, 3)
    if tuple(details["shape"]) == wanted:
        return
    if -1 not in details["shape_signature"]:
        shape = details["shape"]
        raise ModelShapeError(
            f"{path}: its input is fixed at {shape[2]}x{shape[1]}, expected {width}x{height} as "
            "set in model.input_size; leave input_size out"
        )
    interpreter.resize_tensor_input(details["index"], wanted, strict=True)


def _allocation_error(path: Path, runtime: str, error: Exception) -> ModelFileError:
    return ModelFileError(
        f"{path}: {runtime} cannot prepare this model ({_first_line(error)}); it may need a newer "
        "runtime or be no pose model"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
