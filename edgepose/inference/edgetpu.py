"""Models on a Coral Edge TPU, each in a worker process.

libedgetpu aborts its whole process on a USB fault, and opening a device holds the GIL, so a worker
process does both, and this side notices its death at once.
"""

import contextlib
import fcntl
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from edgepose.errors import AcceleratorError, AcceleratorLostError
from edgepose.inference import edgetpu_worker as worker
from edgepose.inference.interpreter import read_model
from edgepose.inference.runtime import RuntimeName, installed_runtimes, load_runtime
from edgepose.monitoring.edgetpu_devices import EdgeTpuDevice, find_devices, holders
from edgepose.protocols import Tensor
from edgepose.util.process import exit_description, main_command

log = logging.getLogger(__name__)

_STDERR_BYTES: Final = 65536
_DRIVER_TEXT_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class EdgeTpuTimeouts:
    """Timeouts of an Edge TPU, in seconds.

    Opening one takes 2.75 s on a Pi 4. The first inference, which never ends on a device that
    hangs, transfers the model in some tenths of a second; no other one needs a tenth, but other
    work may delay the worker.
    """

    load_s: float = 30.0
    first_invoke_s: float = 3.0
    invoke_s: float = 0.5
    silence_s: float = 5.0
    close_s: float = 2.0


class EdgeTpuAccelerator:
    """Loads compiled models onto an Edge TPU.

    `device` is `usb:0`, `pci:0` and the like, None the first one found. With `runtime` auto every
    installed one is tried, since a libedgetpu works with some versions of the runtimes only; and
    pycoral opens the device if it is installed. `root` holds `sys` and `dev`.
    """

    device: str = "edgetpu"

    def __init__(
        self,
        *,
        runtime: RuntimeName | Literal["auto"] = "auto",
        device: str | None = None,
        timeouts: EdgeTpuTimeouts | None = None,
        root: Path = Path("/"),
    ) -> None:
        self._runtimes = _runtimes(runtime)
        self._device = device
        self._timeouts = timeouts or EdgeTpuTimeouts()
        self._root = root

    def load(self, path: Path) -> "EdgeTpuInterpreter":
        """Open the device in a new process and load a compiled model there; takes seconds.

        Raises ModelFileError if the file is not compiled for an Edge TPU, and AcceleratorError with
        the reason: no library, no device, no permission, busy, a library or a model made for
        another version, a device that does not answer.
        """
        read_model(path, compiled=True)
        failure: AcceleratorError | None = None
        for runtime in self._runtimes:
            try:
                interpreter = self._load(path, runtime)
            except RuntimeIncompatibleError as error:
                log.debug("%s", error)
                failure = failure or error
                continue
            # Next time, begin with the one that works.
            self._runtimes = (runtime, *(r for r in self._runtimes if r != runtime))
            return interpreter
        assert failure is not None
        raise AcceleratorError(str(failure))

    def fingerprint(self) -> object:
        """Return a value that changes when an Edge TPU is plugged in, unplugged or accessible."""
        return tuple((device, device.accessible) for device in find_devices(self._root))

    def _load(self, path: Path, runtime: RuntimeName) -> "EdgeTpuInterpreter":
        request = worker.LoadRequest(str(path.absolute()), runtime, self._device)
        process = _Process(request)
        step = "starting"
        patience_s = self._timeouts.load_s
        deadline = time.monotonic() + patience_s
        try:
            while True:
                report, file = process.next_report(deadline - time.monotonic())
                match report:
                    case worker.Progress():
                        step = report.step
                        if step == worker.FIRST_INFERENCE:
                            patience_s = self._timeouts.first_invoke_s
                            deadline = time.monotonic() + patience_s
                    case worker.Ready():
                        assert file is not None
                        log.debug("%s: opened by %s with %s", path, report.loader, runtime)
                        return EdgeTpuInterpreter(
                            path, process, report, file, self._timeouts, runtime=runtime
                        )
                    case worker.Failed():
                        raise self._load_error(path, runtime, report)
                    case None:
                        raise _died(step, runtime, process)
        except TimeoutError:
            process.kill()
            raise AcceleratorError(
                f"the Edge TPU did not answer for {patience_s:g} s while {step}; unplug it and "
                "plug it in again, on another port or a powered hub if that repeats"
            ) from None
        except BaseException:
            process.kill()
            raise

    def _load_error(
        self, path: Path, runtime: RuntimeName, failed: worker.Failed
    ) -> AcceleratorError:
        text = failed.text
        match failed.stage:
            case worker.Stage.LIBRARY:
                return AcceleratorError(
                    f"the Edge TPU's library cannot be loaded ({text}); install libedgetpu1-std "
                    "from Coral's package archive, or set accelerator: cpu"
                )
            case worker.Stage.DELEGATE:
                return RuntimeIncompatibleError(
                    f"{worker.LIBRARY} is not an Edge TPU library that {runtime} can use ({text}); "
                    "reinstall libedgetpu1-std"
                )
            case worker.Stage.DEVICE:
                return AcceleratorError(self._no_device_message(text))
            case worker.Stage.RUNTIME:
                return RuntimeIncompatibleError(text)
            case worker.Stage.INVOKE:
                return AcceleratorError(f"the Edge TPU failed its first inference: {text}")
            case _:
                return RuntimeIncompatibleError(
                    f"{path}: {worker.LIBRARY} with {runtime} cannot load this model ({text}); it "
                    "was compiled for another version: update libedgetpu, or compile it for the "
                    "one installed (edgetpu_compiler --min_runtime_version)"
                )

    def _no_device_message(self, text: str) -> str:
        found = find_devices(self._root)
        bus, _, number = (self._device or "").partition(":")
        fitting = [device for device in found if not bus or device.bus == bus]
        if not found:
            return (
                "no Edge TPU is plugged in (neither a Coral USB accelerator in `lsusb`, 1a6e:089a "
                "or 18d1:9302, nor /dev/apex_0); plug it in, or set accelerator: cpu"
            )
        if len(fitting) <= int(number or 0):
            there = ", ".join(f"{device.bus} {device.node}" for device in found)
            return f"inference.device is {self._device}, but the Edge TPUs here are: {there}"
        closed = [device for device in fitting if not device.accessible]
        if closed:
            return (
                f"the Edge TPU is there, but {_user()} has no permission to open {closed[0].node}; "
                "install the udev rules (`make install`, or 60-edgepose.rules), join the group "
                "plugdev and plug it in again"
            )
        return (
            f"the Edge TPU is there but busy: {_held_by(fitting)} uses it, and only one process "
            f"can ({text}); stop the other, or choose another device with inference.device"
        )


class EdgeTpuInterpreter:
    """A model on an Edge TPU, in its worker process; see `protocols.Interpreter`.

    `invoke` is called by one thread; `check` and `close` may be called by others.
    """

    def __init__(
        self,
        path: Path,
        process: "_Process",
        ready: worker.Ready,
        file: int,
        timeouts: EdgeTpuTimeouts,
        *,
        runtime: RuntimeName,
    ) -> None:
        self.input = ready.input.spec
        self.outputs = tuple(info.spec for info in ready.outputs)
        self.runtime = runtime
        self.process_id = process.process_id
        self._path = path
        self._process = process
        self._timeouts = timeouts
        try:
            self._tensors = worker.SharedTensors(file, (self.input, *self.outputs), create=False)
        finally:
            os.close(file)
        self._invoking = threading.Lock()
        self._lost: str | None = None

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        """Run the model; raises AcceleratorLostError once the Edge TPU is lost, or closed."""
        with self._invoking:
            if self._lost is None:
                np.copyto(self._tensors.input, tensor, casting="no")
                try:
                    answer = self._process.request(self._timeouts.invoke_s)
                except TimeoutError:
                    self._lost = f"the Edge TPU did not answer within {self._timeouts.invoke_s:g} s"
                else:
                    if answer == worker.DONE:
                        return [output.copy() for output in self._tensors.outputs]
                    self._lost = self._reason(answer)
            raise AcceleratorLostError(f"{self._path}: {self._lost}")

    def check(self) -> None:
        """Raise AcceleratorLostError if the worker ended or, idle, stopped its heartbeat."""
        if self._invoking.locked():
            # `invoke` has its own timeout.
            return
        silent_ns = time.monotonic_ns() - self._tensors.last_beat_ns
        if self._process.ended:
            self._lost = self._lost or self._reason(b"")
        elif silent_ns > self._timeouts.silence_s * 1e9 and not self._invoking.locked():
            self._lost = f"the Edge TPU's process has not responded for {silent_ns / 1e9:.0f} s"
        self._process.truncate_stderr()
        if self._lost is not None:
            raise AcceleratorLostError(f"{self._path}: {self._lost}")

    def close(self) -> None:
        """End the process, which frees the device."""
        self._lost = self._lost or "invoked after close()"
        self._process.kill(self._timeouts.close_s)

    def _reason(self, answer: bytes) -> str:
        if answer:
            report = msgspec.json.decode(answer, type=worker.Report)
            return (
                f"the Edge TPU failed: {report.text}" if isinstance(report, worker.Failed) else ""
            )
        return f"the Edge TPU's process {self._process.exit_description()}"


class RuntimeIncompatibleError(AcceleratorError):
    """The device may work with another runtime."""


class _Process:
    """A worker process, its socket, and the stderr of its libraries."""

    def __init__(self, request: worker.LoadRequest) -> None:
        self._stderr = os.fdopen(os.memfd_create("edgepose-edgetpu-stderr"), "rb", buffering=0)
        self._reading = threading.Lock()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line = mine
        # The worker ends when this process no longer holds the other end.
        lifeline, self._lifeline = os.pipe()
        # A file opened for appending can be truncated while another process writes to it.
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, os.O_APPEND)
        with theirs:
            try:
                self._popen = subprocess.Popen(  # noqa: S603 - this very program
                    [
                        *main_command(worker.__name__),
                        str(theirs.fileno()),
                        str(lifeline),
                        msgspec.json.encode(request).decode(),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=self._stderr,
                    stderr=self._stderr,
                    pass_fds=(theirs.fileno(), lifeline),
                    # Ctrl-C at a terminal goes to the parent alone, which then ends this one.
                    start_new_session=True,
                )
            finally:
                os.close(lifeline)
        self.process_id = self._popen.pid

    @property
    def ended(self) -> bool:
        """Whether the process ended."""
        return self._popen.poll() is not None

    def next_report(self, timeout_s: float) -> tuple[worker.Report | None, int | None]:
        """Return its next report, and the file that came with it; None if it died.

        Raises TimeoutError.
        """
        if timeout_s <= 0:
            raise TimeoutError
        self._line.settimeout(timeout_s)
        try:
            message, files, _, _ = socket.recv_fds(self._line, worker.MAX_MESSAGE_BYTES, 1)
        except ConnectionError:
            return None, None
        if not message:
            return None, None
        return msgspec.json.decode(message, type=worker.Report), files[0] if files else None

    def request(self, timeout_s: float) -> bytes:
        """Run the model on the tensor in shared memory, and return the answer.

        An empty answer means that the process died. Raises TimeoutError.
        """
        self._line.settimeout(timeout_s)
        try:
            self._line.send(worker.INVOKE)
            return self._line.recv(worker.MAX_MESSAGE_BYTES)
        except TimeoutError:
            raise
        except OSError:
            return b""

    def exit_description(self) -> str:
        """Return how the process ended, with the last line of its stderr."""
        try:
            code = self._popen.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        how = exit_description(code)
        last = self._last_stderr_line()
        return f"{how} ({last})" if last else how

    def truncate_stderr(self) -> None:
        """Bound the memory of what its libraries print."""
        with self._reading:
            if not self._stderr.closed and os.fstat(self._stderr.fileno()).st_size > _STDERR_BYTES:
                os.ftruncate(self._stderr.fileno(), 0)

    def kill(self, timeout_s: float = 2.0) -> None:
        """Kill the process; one that hangs in the kernel is left behind."""
        self._popen.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout_s)
        for line in self._printed().splitlines():
            log.debug("edge tpu: %s", line)
        # Wakes a thread that waits for an answer, before the socket is closed.
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()
        with self._reading:
            self._stderr.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _last_stderr_line(self) -> str:
        lines = [line.strip() for line in self._printed().splitlines() if line.strip()]
        return lines[-1][-_DRIVER_TEXT_CHARACTERS:] if lines else ""

    def _printed(self) -> str:
        with self._reading:
            if self._stderr.closed:
                return ""
            return os.pread(self._stderr.fileno(), _STDERR_BYTES, 0).decode(errors="replace")


def _died(step: str, runtime: RuntimeName, process: _Process) -> AcceleratorError:
    return RuntimeIncompatibleError(
        f"the Edge TPU's process {process.exit_description()} while {step} with {runtime}; "
        f"either the device failed, or {worker.LIBRARY} is made for another version of TensorFlow "
        "Lite: install one that fits, or set inference.runtime to another runtime"
    )


def _runtimes(wanted: RuntimeName | Literal["auto"]) -> tuple[RuntimeName, ...]:
    if wanted != "auto":
        # Raises at once if it is not installed.
        return (load_runtime(wanted)[0],)
    installed = installed_runtimes()
    if not installed:
        load_runtime("auto")
    if worker.has_pycoral() and "tflite-runtime" in installed:
        return tuple(sorted(installed, key=lambda name: name != "tflite-runtime"))
    return installed


def _held_by(devices: Sequence[EdgeTpuDevice]) -> str:
    names = [name for device in devices for name in holders(device)]
    return ", ".join(names) or "another process"


def _user() -> str:
    # Late: a module that only this message needs.
    import pwd

    try:
        return f"the user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"the user with id {os.geteuid()}"
