"""The process that holds the Edge TPU: libedgetpu ends it on a USB fault, and nothing else.

It loads one model, tells the parent what its tensors are, and runs it whenever asked. Tensors lie
in memory that both share; the socket carries one short message each way for an invoke. It ends with
its parent, whatever it is doing.
"""

import contextlib
import ctypes
import fcntl
import importlib
import importlib.util
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from edgepose.datatypes import TensorSpec
from edgepose.errors import AcceleratorError, EdgeposeError
from edgepose.inference.interpreter import (
    RuntimeInterpreter,
    first_line,
    read_model,
)
from edgepose.inference.runtime import RuntimeName, load_runtime

LIBRARY: Final = "libedgetpu.so.1"
PYCORAL: Final = "pycoral"

INVOKE: Final = b"invoke"
DONE: Final = b"done"
MAX_MESSAGE_BYTES: Final = 65536

FIRST_INFERENCE: Final = "its first inference"
HEARTBEAT_S: Final = 0.5
"""How often an idle worker shows that it lives."""

_ALIGNMENT: Final = 64
_PR_SET_PDEATHSIG: Final = 1


class Order(msgspec.Struct, frozen=True):
    """What the parent wants loaded: a model file, by which runtime, on which device."""

    path: str
    runtime: RuntimeName
    device: str | None


class TensorInfo(msgspec.Struct, frozen=True):
    """A tensor's spec as JSON can hold it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int

    @classmethod
    def of(cls, spec: TensorSpec) -> "TensorInfo":
        """Return a spec for the message."""
        return cls(spec.name, spec.shape, spec.dtype.str, spec.scale, spec.zero_point)

    @property
    def spec(self) -> TensorSpec:
        """The spec again."""
        return TensorSpec(self.name, self.shape, np.dtype(self.dtype), self.scale, self.zero_point)


class Stage(msgspec.Struct, frozen=True, tag=True):
    """What the worker does next; where it dies, this says in what."""

    what: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded and has run once; the shared memory comes with this message.

    `through` is what opened the device: pycoral, or the delegate by itself.
    """

    input: TensorInfo
    outputs: tuple[TensorInfo, ...]
    through: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Why the worker gives up: at which door, and what was said there.

    `door` is library, delegate, device, runtime, model or invoke.
    """

    door: str
    text: str


Report = Stage | Ready | Failed


class SharedTensors:
    """The memory both processes see: a heartbeat, the input tensor, the output tensors."""

    def __init__(self, file: int, specs: Sequence[TensorSpec], *, create: bool) -> None:
        offsets = [_ALIGNMENT]
        for spec in specs:
            size = int(np.prod(spec.shape)) * spec.dtype.itemsize
            offsets.append(offsets[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
        if create:
            os.ftruncate(file, offsets[-1])
        self._memory = mmap.mmap(file, offsets[-1])
        self._heartbeat = np.frombuffer(self._memory, np.int64, 1)
        self.input, *self.outputs = (
            np.frombuffer(self._memory, spec.dtype, int(np.prod(spec.shape)), offset).reshape(
                spec.shape
            )
            for spec, offset in zip(specs, offsets, strict=False)
        )

    def beat(self) -> None:
        """Show that the worker lives."""
        self._heartbeat[0] = time.monotonic_ns()

    @property
    def last_beat_ns(self) -> int:
        """When it did so last, on the monotonic clock, which all processes share."""
        return int(self._heartbeat[0])


class WorkerError(Exception):
    """Carries the report that ends this process."""

    def __init__(self, door: str, text: str) -> None:
        super().__init__(text)
        self.report = Failed(door, text)


def main() -> None:
    """Run the worker; arguments are its socket, its parent's process id and the order."""
    line = socket.socket(fileno=int(sys.argv[1]))
    _end_with_parent(int(sys.argv[2]))
    # The parent's own orders to stop reach it as the end of the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with line, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        try:
            _serve(line, msgspec.json.decode(sys.argv[3], type=Order))
        except WorkerError as error:
            line.send(msgspec.json.encode(error.report)[:MAX_MESSAGE_BYTES])


def _end_with_parent(parent: int) -> None:
    """Have the kernel end this process with its parent: a hanging TPU would keep it for ever."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _serve(line: socket.socket, order: Order) -> None:
    interpreter, through = _load(line, order)
    specs = (interpreter.input, *interpreter.outputs)
    _say(line, Stage(FIRST_INFERENCE))
    _invoke(interpreter, np.zeros(interpreter.input.shape, interpreter.input.dtype))
    file = os.memfd_create("edgepose-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    tensors = SharedTensors(file, specs, create=True)
    # A file that shrank would end whoever touches the lost part.
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    tensors.beat()
    ready = Ready(
        TensorInfo.of(interpreter.input),
        tuple(TensorInfo.of(spec) for spec in interpreter.outputs),
        through,
    )
    socket.send_fds(line, [msgspec.json.encode(ready)], [file])
    os.close(file)
    poll = select.poll()
    poll.register(line, select.POLLIN)
    while True:
        tensors.beat()
        if not poll.poll(HEARTBEAT_S * 1000):
            continue
        if not line.recv(16):
            return
        for shared, output in zip(
            tensors.outputs, _invoke(interpreter, tensors.input), strict=True
        ):
            shared[...] = output
        tensors.beat()
        line.send(DONE)


def _load(line: socket.socket, order: Order) -> tuple[RuntimeInterpreter, str]:
    path = Path(order.path)
    try:
        data = read_model(path, compiled=True)
        _, module = load_runtime(order.runtime)
    except EdgeposeError as error:
        raise WorkerError(
            "runtime" if isinstance(error, AcceleratorError) else "model", str(error)
        ) from error
    _say(line, Stage("opening the device"))
    if order.runtime == "tflite-runtime" and has_pycoral():
        interpreter, through = _open_by_pycoral(data, order.device), PYCORAL
    else:
        delegate = _open_device(module, order.device)
        _say(line, Stage("loading the model"))
        interpreter = _prepare(
            lambda: module.Interpreter(model_content=data, experimental_delegates=[delegate])
        )
        through = LIBRARY
    _prepare(interpreter.allocate_tensors)
    try:
        return RuntimeInterpreter(interpreter, path), through
    except EdgeposeError as error:
        raise WorkerError("model", str(error)) from error


def has_pycoral() -> bool:
    """Whether Google's pycoral is installed; another package has its name on PyPI."""
    try:
        return importlib.util.find_spec("pycoral.utils.edgetpu") is not None
    except ImportError:
        return False


def _open_device(module: Any, device: str | None) -> Any:
    try:
        return module.load_delegate(LIBRARY, {} if device is None else {"device": device})
    except OSError as error:
        raise WorkerError("library", first_line(error)) from error
    except AttributeError as error:
        raise WorkerError("delegate", first_line(error)) from error
    except (ValueError, RuntimeError) as error:
        raise WorkerError("device", first_line(error)) from error


def _open_by_pycoral(data: bytes, device: str | None) -> Any:
    edgetpu = importlib.import_module("pycoral.utils.edgetpu")
    try:
        return edgetpu.make_interpreter(data, device=device)
    except OSError as error:
        raise WorkerError("library", first_line(error)) from error
    except (ValueError, RuntimeError) as error:
        raise WorkerError("device", first_line(error)) from error


def _prepare(step: Any) -> Any:
    try:
        return step()
    except (ValueError, RuntimeError) as error:
        raise WorkerError("model", first_line(error)) from error


def _invoke(interpreter: RuntimeInterpreter, tensor: Any) -> Sequence[Any]:
    try:
        return interpreter.invoke(tensor)
    except AcceleratorError as error:
        # The runtime's text grows with each further failure: this process is not used again.
        raise WorkerError("invoke", str(error)) from error


def _say(line: socket.socket, report: Report) -> None:
    line.send(msgspec.json.encode(report))
