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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from edgepose.datatypes import TensorSpec
from edgepose.errors import AcceleratorError, EdgeposeError
from edgepose.inference.interpreter import RuntimeInterpreter, first_line, read_model
from edgepose.inference.runtime import RuntimeName, load_runtime

LIBRARY: Final = "libedgetpu.so.1"
PYCORAL: Final = "pycoral"

INVOKE: Final = b"invoke"
MAX_MESSAGE_BYTES: Final = 65536

FIRST_INFERENCE: Final = "running its first inference"
HEARTBEAT_S: Final = 0.5
"""How often an idle worker updates its heartbeat."""
MAX_STDERR_BYTES: Final = 65536
"""Bounds the memory of what its libraries print."""

_ALIGNMENT: Final = 64
_STDERR: Final = 2


class LoadRequest(msgspec.Struct, frozen=True):
    """The model file to load, the runtime and the device."""

    path: str
    runtime: RuntimeName
    device: str | None


class Progress(msgspec.Struct, frozen=True, tag=True):
    """What the worker does next: if it dies, the parent knows in which step."""

    step: str


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded and has run once; the shared memory comes with this message.

    `loader` opened the device: pycoral, or the delegate library.
    """

    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    loader: str


class Done(msgspec.Struct, frozen=True, tag=True):
    """The outputs of a request are in the shared memory."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The worker ends, with an error for the user.

    `no_device` if the library opened no device: it does not report why. `other_runtime` if it may
    work with another runtime.
    """

    text: str
    no_device: bool = False
    other_runtime: bool = False


Report = Progress | Ready | Done | Failed

_encoder = msgspec.json.Encoder(enc_hook=lambda dtype: dtype.str)
decoder: Final = msgspec.json.Decoder(Report, dec_hook=lambda _type, name: np.dtype(name))


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

    def __init__(self, report: Failed) -> None:
        super().__init__(report.text)
        self.report = report


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
            _send(line, error.report)
        except EdgeposeError as error:
            _send(line, Failed(str(error)))


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
    _send(line, Progress(FIRST_INFERENCE))
    try:
        interpreter.invoke(np.zeros(interpreter.input.shape, interpreter.input.dtype))
    except AcceleratorError as error:
        raise WorkerError(Failed(f"the Edge TPU failed its first inference: {error}")) from error
    file = os.memfd_create("edgepose-tensors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    tensors = SharedTensors(file, (interpreter.input, *interpreter.outputs), create=True)
    # Access beyond the end of a file that shrank would be a SIGBUS.
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    tensors.beat()
    ready = Ready(interpreter.input, interpreter.outputs, loader)
    socket.send_fds(line, [_encoder.encode(ready)], [file])
    os.close(file)
    poll = select.poll()
    poll.register(line, select.POLLIN)
    while True:
        tensors.beat()
        if os.fstat(_STDERR).st_size > MAX_STDERR_BYTES:
            os.ftruncate(_STDERR, 0)
        if not poll.poll(HEARTBEAT_S * 1000):
            continue
        if not line.recv(16):
            return
        # The runtime's error text grows with each failure: one ends this process.
        outputs = interpreter.invoke(tensors.input)
        for shared, output in zip(tensors.outputs, outputs, strict=True):
            shared[...] = output
        tensors.beat()
        _send(line, Done())


def _load(line: socket.socket, request: LoadRequest) -> tuple[RuntimeInterpreter, str]:
    path = Path(request.path)
    data = read_model(path, compiled=True)
    try:
        _, module = load_runtime(request.runtime)
    except AcceleratorError as error:
        raise WorkerError(Failed(str(error), other_runtime=True)) from error
    _send(line, Progress("opening the device"))
    if request.runtime == "tflite-runtime" and has_pycoral():
        loader = PYCORAL
        with _opening(request):
            edgetpu = importlib.import_module("pycoral.utils.edgetpu")
            interpreter = edgetpu.make_interpreter(data, device=request.device)
    else:
        loader = LIBRARY
        options = {} if request.device is None else {"device": request.device}
        with _opening(request):
            delegate = module.load_delegate(LIBRARY, options)
        _send(line, Progress("loading the model"))
        with _loading(request):
            interpreter = module.Interpreter(model_content=data, experimental_delegates=[delegate])
    with _loading(request):
        interpreter.allocate_tensors()
    return RuntimeInterpreter(interpreter, path), loader


@contextlib.contextmanager
def _opening(request: LoadRequest) -> Iterator[None]:
    """End this process with the reason why the library or the device cannot be opened."""
    try:
        yield
    except OSError as error:
        raise WorkerError(
            Failed(
                f"the Edge TPU's library cannot be loaded ({first_line(error)}); install "
                "libedgetpu1-std from Coral's package archive, or set accelerator: cpu"
            )
        ) from error
    except AttributeError as error:
        raise WorkerError(
            Failed(
                f"{LIBRARY} is not an Edge TPU library that {request.runtime} can use "
                f"({first_line(error)}); reinstall libedgetpu1-std",
                other_runtime=True,
            )
        ) from error
    except (ValueError, RuntimeError) as error:
        raise WorkerError(Failed(first_line(error), no_device=True)) from error


@contextlib.contextmanager
def _loading(request: LoadRequest) -> Iterator[None]:
    """End this process with the reason why the model cannot be loaded."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise WorkerError(
            Failed(
                f"{request.path}: {LIBRARY} with {request.runtime} cannot load this model "
                f"({first_line(error)}); it was compiled for another version: update libedgetpu, "
                "or compile it for the one installed (edgetpu_compiler --min_runtime_version)",
                other_runtime=True,
            )
        ) from error


def has_pycoral() -> bool:
    """Whether Google's pycoral is installed; the package of that name on PyPI is another one."""
    try:
        return importlib.util.find_spec("pycoral.utils.edgetpu") is not None
    except ImportError:
        return False


def _send(line: socket.socket, report: Report) -> None:
    line.send(_encoder.encode(report))
