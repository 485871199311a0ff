"""The computation of the fake Edge TPU; `fake_edgetpu.c` loads this file from beside its library.

It runs in any process that loads the library, so it needs only NumPy and a runtime.
"""

import ctypes
import importlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {1: "<f4", 2: "<i4", 3: "u1", 4: "<i8", 7: "<i2", 9: "i1"}
"""`TfLiteType` codes of the tensors of pose networks."""

Signature = tuple[tuple[str, tuple[int, ...], str, float, int], ...]


class _Tensor(ctypes.Structure):
    """The `TensorView` of `fake_edgetpu.c`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("extents", ctypes.POINTER(ctypes.c_int)),
        ("rank", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("zero_point", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )

    def signature(self) -> tuple[str, tuple[int, ...], str, float, int]:
        return (
            self.name.decode(),
            tuple(self.extents[axis] for axis in range(self.rank)),
            np.dtype(_DTYPES[self.type]).str,
            float(self.scale),
            int(self.zero_point),
        )

    def array(self) -> NDArray[Any]:
        """Return the tensor's memory as an array, valid for this invoke only."""
        _, shape, dtype, _, _ = self.signature()
        memory = (ctypes.c_uint8 * self.bytes).from_address(self.data)
        return np.frombuffer(memory, dtype).reshape(shape)


_device = threading.Lock()
_loaded: dict[tuple[str, Signature, Signature], Any] = {}
_results: dict[tuple[Any, ...], list[NDArray[Any]]] = {}
"""By model and inputs: a frame that comes again costs no processor time, as on a real device."""
MAX_RESULTS = 200


def prepare(
    runtime: str, models: str, inputs: int, n_inputs: int, outputs: int, n_outputs: int
) -> str:
    """Load the model whose inputs and outputs are the operator's.

    `runtime` is the path of the runtime's library, `models` the folder to search, `inputs` and
    `outputs` are the addresses of arrays of `_Tensor`. Returns the error, or "".
    """
    return _error_of(
        lambda: _model(runtime, models, _tensors(inputs, n_inputs), _tensors(outputs, n_outputs))
    )


def fill(
    runtime: str, models: str, inputs: int, n_inputs: int, outputs: int, n_outputs: int
) -> str:
    """Run that model on the operator's inputs and write its outputs; arguments as for `prepare`."""
    return _error_of(
        lambda: _run(runtime, models, _tensors(inputs, n_inputs), _tensors(outputs, n_outputs))
    )


def _error_of(call: Callable[[], object]) -> str:
    try:
        # A device runs one call at a time.
        with _device:
            call()
    except Exception as error:  # noqa: BLE001 - the caller is C and needs a text
        return f"{type(error).__name__}: {error}"
    return ""


def _run(runtime: str, models: str, inputs: list[_Tensor], outputs: list[_Tensor]) -> None:
    model = _model(runtime, models, inputs, outputs)
    key = (id(model), *(tensor.array().tobytes() for tensor in inputs))
    if key not in _results:
        for details, tensor in zip(model.get_input_details(), inputs, strict=True):
            model.set_tensor(details["index"], tensor.array())
        model.invoke()
        if len(_results) >= MAX_RESULTS:
            _results.clear()
        _results[key] = [model.get_tensor(each["index"]) for each in model.get_output_details()]
    for result, tensor in zip(_results[key], outputs, strict=True):
        tensor.array()[...] = result


def _model(runtime: str, models: str, inputs: list[_Tensor], outputs: list[_Tensor]) -> Any:
    wanted = tuple(t.signature() for t in inputs), tuple(t.signature() for t in outputs)
    package = "tflite_runtime" if "tflite_runtime" in runtime else "ai_edge_litert"
    found = _loaded.get((package, *wanted))
    if found is not None:
        return found
    if not models:
        raise LookupError("FAKE_EDGETPU_MODELS is not set, so there is no model to run")
    interpreter_of = importlib.import_module(f"{package}.interpreter").Interpreter
    matching = []
    for path in sorted(Path(models).glob("*.tflite")):
        model = interpreter_of(model_path=str(path), num_threads=1)
        ends = model.get_input_details(), model.get_output_details()
        if tuple(_signature(details) for details in ends) == wanted:
            matching.append((path, model))
    if len(matching) != 1:
        raise LookupError(
            f"expected one model in {models} with this operator's inputs and outputs, got "
            f"{[path.name for path, _ in matching]}"
        )
    model = matching[0][1]
    model.allocate_tensors()
    _loaded[(package, *wanted)] = model
    return model


def _signature(details: list[dict[str, Any]]) -> Signature:
    return tuple(
        (
            str(entry["name"]),
            tuple(int(extent) for extent in entry["shape"]),
            np.dtype(entry["dtype"]).str,
            float(entry["quantization"][0]),
            int(entry["quantization"][1]),
        )
        for entry in details
    )


def _tensors(address: int, count: int) -> list[_Tensor]:
    return list((_Tensor * count).from_address(address))
