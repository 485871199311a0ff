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
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from edgepose.errors import AcceleratorError, AcceleratorLostError
from edgepose.inference import edgetpu_worker as worker
from edgepose.inference.interpreter import read_model
from edgepose.inference.runtime import RuntimeName, installed_runtimes, load_runtime
from edgepose.monitoring.edgetpu_devices import find_devices
from edgepose.protocols import Tensor
from edgepose.util.process import (
    environment_without_secrets,
    exit_description,
    main_command,
    processes_using,
)

log = logging.getLogger(__name__)

_DRIVER_TEXT_CHARACTERS: Final = 200

LOAD_TIMEOUT_S: Final = 30.0
"""Opening an Edge TPU takes 2.75 s on a Pi 4."""
FIRST_INVOKE_TIMEOUT_S: Final = 3.0
"""The first inference transfers the model in some tenths of a second, or hangs."""
INVOKE_TIMEOUT_S: Final = 0.5
"""No other inference needs a tenth of a second, but other work may delay the worker."""
SILENCE_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 2.0


class EdgeTpuAccelerator:
    """Loads compiled models onto an Edge TPU.

    `device` is `usb:0`, `pci:0` and the like, None the first one found. With `runtime` auto every
    installed one is tried, since a libedgetpu works with some versions of the runtimes only; and
    pycoral opens the device if it is installed.
    """

    device: str = "edgetpu"

    def __init__(
        self,
        *,
        runtime: RuntimeName | Literal["auto"] = "auto",
        device: str | None = None,
    ) -> None:
        self._runtimes = _runtimes(runtime)
        self._device = device

    def load(self, path: Path) -> "EdgeTpuInterpreter":
        """Open the device in a new process and load a compiled model there; takes seconds.

        Raises ModelFileError if the file is not compiled for an Edge TPU, and AcceleratorError with
        the reason: no library, no device, no permission, busy, a library or a model made for
        another version, a device that does not answer.
        """
        read_model(path, compiled=True)
        failures = []
        for runtime in self._runtimes:
            try:
                interpreter = self._load(path, runtime)
            except RuntimeIncompatibleError as error:
                log.debug("%s", error)
                failures.append(error)
                continue
            # Next time, begin with the one that works.
            self._runtimes = (runtime, *(r for r in self._runtimes if r != runtime))
            return interpreter
        raise failures[0]

    def fingerprint(self) -> object:
        """Return a value that changes when an Edge TPU is plugged in, unplugged or accessible."""
        return tuple((device, device.accessible) for device in find_devices())

    def _load(self, path: Path, runtime: RuntimeName) -> "EdgeTpuInterpreter":
        request = worker.LoadRequest(str(path.absolute()), runtime, self._device)
        process = _Process(request)
        step = "starting"
        patience_s = LOAD_TIMEOUT_S
        deadline = time.monotonic() + patience_s
        try:
            while True:
                report, file = process.next_report(deadline - time.monotonic())
                match report:
                    case worker.Progress():
                        step = report.step
                        if step == worker.FIRST_INFERENCE:
                            patience_s = FIRST_INVOKE_TIMEOUT_S
                            deadline = time.monotonic() + patience_s
                    case worker.Ready():
                        assert file is not None
                        log.debug("%s: opened by %s with %s", path, report.loader, runtime)
                        return EdgeTpuInterpreter(path, process, report, file, runtime)
                    case worker.Failed(no_device=True):
                        raise AcceleratorError(self._no_device_message(report.text))
                    case worker.Failed(other_runtime=True):
                        raise RuntimeIncompatibleError(report.text)
                    case worker.Failed():
                        raise AcceleratorError(report.text)
                    case None:
                        raise RuntimeIncompatibleError(
                            f"{process.exit_description()} while {step} with {runtime}; either "
                            f"the device failed, or {worker.LIBRARY} is made for another version "
                            "of TensorFlow Lite: install one that fits, or set inference.runtime "
                            "to another runtime"
                        )
        except TimeoutError:
            process.kill()
            raise AcceleratorError(
                f"the Edge TPU did not answer for {patience_s:g} s while {step}; unplug it and "
                "plug it in again, on another port or a powered hub if that repeats"
            ) from None
        except BaseException:
            process.kill()
            raise

    def _no_device_message(self, text: str) -> str:
        found = find_devices()
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
                f"the Edge TPU is there, but this user has no permission to open {closed[0].node}; "
                "install the udev rules (`make install`, or 60-edgepose.rules), join the group "
                "plugdev and plug it in again"
            )
        using = processes_using(device.node for device in fitting)
        users = [f"{name} (pid {pid})" for pid, name in using.items()] or ["another process"]
        return (
            f"the Edge TPU is there but busy: {', '.join(users)} uses it, and only one process "
            f"can ({text}); stop the other, or choose another device with inference.device"
        )


class EdgeTpuInterpreter:
    """A model on an Edge TPU, in its worker process; see `protocols.Interpreter`.

    `invoke` is called by one thread; `check` and `close` may be called by others.
    """

    def __init__(
        self, path: Path, process: "_Process", ready: worker.Ready, file: int, runtime: RuntimeName
    ) -> None:
        self.input = ready.input
        self.outputs = ready.outputs
        self.runtime = runtime
        self._path = path
        self._process = process
        try:
            self._tensors = worker.SharedTensors(file, (self.input, *self.outputs), create=False)
        finally:
            os.close(file)
        self._lost: str | None = None

    def invoke(self, tensor: Tensor) -> Sequence[Tensor]:
        """Run the model; raises AcceleratorLostError once the Edge TPU is lost, or closed."""
        if self._lost is None:
            np.copyto(self._tensors.input, tensor, casting="no")
            try:
                match self._process.request(INVOKE_TIMEOUT_S):
                    case worker.Done():
                        return [output.copy() for output in self._tensors.outputs]
                    case worker.Failed(text=text):
                        self._lost = f"the Edge TPU failed: {text}"
                    case _:
                        self._lost = self._process.exit_description()
            except TimeoutError:
                self._lost = f"the Edge TPU did not answer within {INVOKE_TIMEOUT_S:g} s"
        raise AcceleratorLostError(f"{self._path}: {self._lost}")

    def check(self) -> None:
        """Raise AcceleratorLostError if the worker ended or stopped its heartbeat."""
        silent_ns = time.monotonic_ns() - self._tensors.last_beat_ns
        if self._lost is None and self._process.ended:
            self._lost = self._process.exit_description()
        elif self._lost is None and silent_ns > SILENCE_TIMEOUT_S * 1e9:
            self._lost = f"the Edge TPU's process has not responded for {silent_ns / 1e9:.0f} s"
        if self._lost is not None:
            raise AcceleratorLostError(f"{self._path}: {self._lost}")

    def close(self) -> None:
        """End the process, which frees the device."""
        self._lost = self._lost or "invoked after close()"
        self._process.kill()


class RuntimeIncompatibleError(AcceleratorError):
    """The device may work with another runtime."""


class _Process:
    """A worker process, its socket, and the stderr of its libraries."""

    def __init__(self, request: worker.LoadRequest) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stderr = os.memfd_create("edgepose-edgetpu-stderr")
        # Not closed by `kill`: another thread may read the stderr at that moment.
        weakref.finalize(self, os.close, self._stderr)
        # The worker ends when this process no longer holds the other end.
        lifeline, held = os.pipe()
        weakref.finalize(self, os.close, held)
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
                    env=environment_without_secrets(),
                    stdin=subprocess.DEVNULL,
                    stdout=self._stderr,
                    stderr=self._stderr,
                    pass_fds=(theirs.fileno(), lifeline),
                    # Ctrl-C at a terminal goes to the parent alone, which then ends this one.
                    start_new_session=True,
                )
            finally:
                os.close(lifeline)

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
        try:
            self._line.settimeout(timeout_s)
            message, files, _, _ = socket.recv_fds(self._line, worker.MAX_MESSAGE_BYTES, 1)
        except TimeoutError:
            raise
        except OSError:
            return None, None
        return worker.decoder.decode(message) if message else None, files[0] if files else None

    def request(self, timeout_s: float) -> worker.Report | None:
        """Run the model on the tensor in shared memory, and return the report; None if it died.

        Raises TimeoutError.
        """
        with contextlib.suppress(OSError):
            self._line.send(worker.INVOKE)
        return self.next_report(timeout_s)[0]

    def exit_description(self) -> str:
        """Return how the process ended, with the last line of its stderr."""
        try:
            how = exit_description(self._popen.wait(timeout=1.0))
        except subprocess.TimeoutExpired:
            how = "closed its connection"
        lines = [line.strip() for line in self._printed() if line.strip()]
        last = f" ({lines[-1][-_DRIVER_TEXT_CHARACTERS:]})" if lines else ""
        return f"the Edge TPU's process {how}{last}"

    def kill(self) -> None:
        """Kill the process; one that hangs in the kernel is left behind."""
        self._popen.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(CLOSE_TIMEOUT_S)
        for line in self._printed():
            log.debug("edge tpu: %s", line)
        # Wakes a thread that waits for an answer, before the socket is closed.
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()

    def _printed(self) -> list[str]:
        data = os.pread(self._stderr, worker.MAX_STDERR_BYTES, 0)
        return data.decode(errors="replace").splitlines()


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
