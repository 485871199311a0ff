"""The backends that can run a model here: each runtime, with and without XNNPACK, and Edge TPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepose.errors import AcceleratorError, UsageError
from edgepose.inference.cpu import load_on_cpu
from edgepose.inference.edgetpu import EdgeTpuAccelerator, EdgeTpuInterpreter
from edgepose.inference.interpreter import RuntimeInterpreter
from edgepose.inference.runtime import (
    RuntimeName,
    installed_runtimes,
    load_runtime,
    runtime_version,
)
from edgepose.monitoring.edgetpu_devices import find_devices
from edgepose.protocols import Interpreter
from edgepose.registry.registry import Device
from edgepose.util.suggest import did_you_mean

AUTO: Final = "auto"
CPU: Final = "cpu"
LITERT: Final = "litert"
LITERT_PLAIN: Final = "litert-without-xnnpack"
TFLITE_RUNTIME: Final = "tflite-runtime"
EDGETPU: Final = "edgetpu"
NAMES: Final = (LITERT, LITERT_PLAIN, TFLITE_RUNTIME, EDGETPU)
_CPU_RUNTIMES: Final[dict[str, RuntimeName]] = {
    LITERT: "litert",
    LITERT_PLAIN: "litert",
    TFLITE_RUNTIME: "tflite-runtime",
}


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run a model.

    `load` takes the file, the number of threads (ignored by an Edge TPU) and the input's (width,
    height), None for that of the file.
    """

    name: str
    device: Device
    runtime: str
    runtime_version: str
    load: Callable[[Path, int, tuple[int, int] | None], Interpreter]


def find(wanted: Sequence[str]) -> tuple[list[Backend], list[str]]:
    """Return the named backends in the order of the table, and why others are not available.

    `auto` is all that are available, `cpu` those that run on the CPU. Raises UsageError for an
    unknown name, AcceleratorError for a named backend that is not available.
    """
    for name in wanted:
        if name not in (AUTO, CPU, *NAMES):
            known = ", ".join((AUTO, CPU, *NAMES))
            hint = did_you_mean(name, NAMES) or f"; expected {known}"
            raise UsageError(f"--accelerator {name}: there is no such accelerator{hint}")
    backends: list[Backend] = []
    missing: list[str] = []
    for name in NAMES:
        if not (name in wanted or AUTO in wanted or (CPU in wanted and name in _CPU_RUNTIMES)):
            continue
        try:
            if name == EDGETPU and name not in wanted and not find_devices():
                raise AcceleratorError("no Edge TPU is connected")
            backends.append(_backend(name))
        except AcceleratorError as error:
            if name in wanted:
                raise
            missing.append(f"{name} ({error})")
    if not backends:
        raise AcceleratorError(f"no backend is available: {', '.join(missing)}")
    return backends, missing


def runtimes() -> dict[str, str]:
    """Return the version of each installed TFLite runtime."""
    return {name: runtime_version(name) for name in installed_runtimes()}


def delegate_of(interpreter: Interpreter) -> str | None:
    """Return which delegate runs (parts of) the model; None if the runtime's own kernels do."""
    match interpreter:
        case EdgeTpuInterpreter():
            return f"Edge TPU through {interpreter.runtime}"
        case RuntimeInterpreter(delegated_parts=parts) if parts:
            return f"XNNPACK ({parts} part{'s' if parts > 1 else ''})"
        case _:
            return None


def _backend(name: str) -> Backend:
    if name == EDGETPU:
        # Opened by `load`: if that fails, its rows have the reason.
        accelerator, runtime = EdgeTpuAccelerator(), installed_runtimes()[0]
        version = runtime_version(runtime)
        return Backend(name, "edgetpu", runtime, version, lambda path, *_: accelerator.load(path))
    runtime = _CPU_RUNTIMES[name]
    if runtime not in installed_runtimes():
        raise AcceleratorError(f"{runtime} is not installed here")
    # An installed runtime may fail to load: tflite-runtime 2.14 does beside numpy 2.
    load_runtime(runtime)

    def load(path: Path, threads: int, size_wh: tuple[int, int] | None) -> Interpreter:
        xnnpack = name != LITERT_PLAIN
        return load_on_cpu(
            path, runtime=runtime, threads=threads, xnnpack=xnnpack, input_size_wh=size_wh
        )

    return Backend(name, "cpu", runtime, runtime_version(runtime), load)
