"""The process that holds the Edge TPU: libedgetpu aborts it on a USB fault, and nothing else.

It loads one model, reports its tensors to the parent, and runs it on request. Tensors lie in shared
memory; the socket carries one short message each way for an invoke. The kernel ends it with its
parent, even while it hangs in the driver.
"""

import contextlib
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
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from edgepose.datatypes import TensorSpec
from edgepose.errors import AcceleratorError, EdgeposeError
from edgepose.inference.interpreter import RuntimeInterpreter, first_line, read_model
from edgepose.inference.runtime import RuntimeName, load_runtime

LIBRARY: Final = "libedgetpu.so.1"
PYCORAL: Final = "pycoral"

INVOKE: Final = b"invoke"
DONE: Final = b"done"
MAX_MESSAGE_BYTES: Final = 65536

FIRST_INFERENCE: Final = "running its first inference"
HEARTBEAT_S: Final = 0.5
"""How often an idle worker updates its heartbeat."""

_ALIGNMENT: Final = 64


class LoadRequest(msgspec.Struct, frozen=True):
    """The model file to load, the runtime and the device."""

    path: str
    runtime: RuntimeName
    device: str | None


class TensorInfo(msgspec.Struct, frozen=True):
    """A tensor's spec as JSON."""

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


class Progress(msgspec.Struct, frozen=True, tag=True):
    """What the worker does next: if it dies, the parent knows in which step."""

    step: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded and has run once; the shared memory comes with this message.

    `loader` opened the device: pycoral, or the delegate library.
    """

    input: TensorInfo
    outputs: tuple[TensorInfo, ...]
    loader: str


class Stage(StrEnum):
    """The step in which loading a model fails; each has its own remedy."""

    LIBRARY = "library"
    """libedgetpu cannot be loaded."""
    DELEGATE = "delegate"
    """The library is not an Edge TPU delegate."""
    DEVICE = "device"
    """No device, no permission, or it is busy."""
    RUNTIME = "runtime"
    """The runtime is not installed or does not load."""
    MODEL = "model"
    """The model does not fit the library or is no model."""
    INVOKE = "invoke"
    """An inference failed."""


_OPENING_STAGES: Final = {
    OSError: Stage.LIBRARY,
    AttributeError: Stage.DELEGATE,
    ValueError: Stage.DEVICE,
    RuntimeError: Stage.DEVICE,
}
_LOADING_STAGES: Final = {ValueError: Stage.MODEL, RuntimeError: Stage.MODEL}


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The worker ends: the stage that failed, and the error text of library or runtime."""

    stage: Stage
    text: str


Report = Progress | Ready | Failed


class SharedTensors:
    """The shared memory: a heartbeat, the input tensor, the output tensors."""

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
        """Update the heartbeat."""
        self._heartbeat[0] = time.monotonic_ns()

    @property
    def last_beat_ns(self) -> int:
        """The last update, on the monotonic clock, which all processes share."""
        return int(self._heartbeat[0])


class WorkerError(Exception):
    """Carries the report that ends this process."""

    def __init__(self, stage: Stage, text: str) -> None:
        super().__init__(text)
        self.report = Failed(stage, text)


def main() -> None:
    """Run the worker; arguments are its socket, the lifeline pipe and the request."""
    line = socket.socket(fileno=int(sys.argv[1]))
    end_with_parent(int(sys.argv[2]))
    # Signals are for the parent, whose end closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with line, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        try:
            _serve(line, msgspec.json.decode(sys.argv[3], type=LoadRequest))
        except WorkerError as error:
            line.send(msgspec.json.encode(error.report)[:MAX_MESSAGE_BYTES])


def end_with_parent(lifeline: int) -> None:
    """Have the kernel end this process when the other end of a pipe closes.

    The parent alone holds that end. A thread would not do: the driver can hang while it holds the
    GIL. Nor would PR_SET_PDEATHSIG, which is sent when the thread that forked ends.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    # The default action of SIGIO, which the kernel sends from now on, is to end the process.
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    poll = select.poll()
    poll.register(lifeline)
    if poll.poll(0):
        os._exit(1)


def _serve(line: socket.socket, request: LoadRequest) -> None:
    interpreter, loader = _load(line, request)
    specs = (interpreter.input, *interpreter.outputs)
    _send(line, Progress(FIRST_INFERENCE))
    _invoke(interpreter, np.zeros(interpreter.input.shape, interpreter.input.dtype))
    file = os.memfd_create("edgepose-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    tensors = SharedTensors(file, specs, create=True)
    # Access beyond the end of a file that shrank would be a SIGBUS.
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    tensors.beat()
    ready = Ready(
        TensorInfo.of(interpreter.input),
        tuple(TensorInfo.of(spec) for spec in interpreter.outputs),
        loader,
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


def _load(line: socket.socket, request: LoadRequest) -> tuple[RuntimeInterpreter, str]:
    path = Path(request.path)
    try:
        data = read_model(path, compiled=True)
        _, module = load_runtime(request.runtime)
    except EdgeposeError as error:
        raise WorkerError(
            Stage.RUNTIME if isinstance(error, AcceleratorError) else Stage.MODEL, str(error)
        ) from error
    _send(line, Progress("opening the device"))
    if request.runtime == "tflite-runtime" and has_pycoral():
        loader = PYCORAL
        with _reported(_OPENING_STAGES):
            edgetpu = importlib.import_module("pycoral.utils.edgetpu")
            interpreter = edgetpu.make_interpreter(data, device=request.device)
    else:
        loader = LIBRARY
        options = {} if request.device is None else {"device": request.device}
        with _reported(_OPENING_STAGES):
            delegate = module.load_delegate(LIBRARY, options)
        _send(line, Progress("loading the model"))
        with _reported(_LOADING_STAGES):
            interpreter = module.Interpreter(model_content=data, experimental_delegates=[delegate])
    with _reported(_LOADING_STAGES):
        interpreter.allocate_tensors()
    try:
        return RuntimeInterpreter(interpreter, path), loader
    except EdgeposeError as error:
        raise WorkerError(Stage.MODEL, str(error)) from error


@contextlib.contextmanager
def _reported(stages: Mapping[type[Exception], Stage]) -> Iterator[None]:
    """End this process with the stage that belongs to the type of what is raised."""
    try:
        yield
    except tuple(stages) as error:
        stage = next(stage for kind, stage in stages.items() if isinstance(error, kind))
        raise WorkerError(stage, first_line(error)) from error


def has_pycoral() -> bool:
    """Whether Google's pycoral is installed; the package of that name on PyPI is another one."""
    try:
        return importlib.util.find_spec("pycoral.utils.edgetpu") is not None
    except ImportError:
        return False


def _invoke(interpreter: RuntimeInterpreter, tensor: Any) -> Sequence[Any]:
    try:
        return interpreter.invoke(tensor)
    except AcceleratorError as error:
        # The runtime's error text grows with each failure: this process is not used again.
        raise WorkerError(Stage.INVOKE, str(error)) from error


def _send(line: socket.socket, report: Report) -> None:
    line.send(msgspec.json.encode(report))
