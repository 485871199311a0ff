"""What can run a model here: every runtime, with and without XNNPACK, and the Edge TPU."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepose.errors import AcceleratorError, UsageError
from edgepose.inference.cpu import CpuAccelerator
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

_ON_CPU: Final = (LITERT, LITERT_PLAIN, TFLITE_RUNTIME)
_XNNPACK: Final = "XNNPACK"
_EDGE_TPU: Final = "Edge TPU"


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run a model.

    `load` takes the file, the number of threads and the input's (width, height), None for the
    file's own. `delegate_of` says what of an interpreter a delegate has taken over, None where
    nothing is. `threads_matter` is False where the number of threads has no say.
    """

    name: str
    title: str
    device: Device
    runtime: str
    runtime_version: str
    load: Callable[[Path, int, tuple[int, int] | None], Interpreter]
    delegate_of: Callable[[Interpreter], str | None]
    threads_matter: bool = True


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines to measure, and why others that were meant are not among them."""

    engines: tuple[Engine, ...]
    missing: tuple[str, ...]


def find(wanted: Sequence[str]) -> Engines:
    """Return the engines that names mean, in the order of the table.

    `auto` is everything here, `cpu` everything of the CPU. One asked for by its own name is there
    even where it cannot work, so that its rows say why. Raises UsageError for an unknown name.
    """
    named = [name for name in wanted if name not in (AUTO, CPU)]
    for name in named:
        if name not in NAMES:
            known = ", ".join((AUTO, CPU, *NAMES))
            hint = did_you_mean(name, NAMES) or f"; expected {known}"
            raise UsageError(f"--accelerator {name}: there is no such accelerator{hint}")
    general = NAMES if AUTO in wanted else _ON_CPU if CPU in wanted else ()
    engines, missing = [], []
    for name in NAMES:
        if name not in (*named, *general):
            continue
        try:
            engine = _engine(name, asked_for=name in named)
        except AcceleratorError as error:
            if name in named:
                raise
            missing.append(f"{name} ({error})")
        else:
            engines.append(engine)
    if not engines:
        raise AcceleratorError(f"nothing here can run a model: {', '.join(missing)}")
    return Engines(tuple(engines), tuple(missing))


def runtimes() -> dict[str, str]:
    """Return the version of each TFLite runtime that is installed."""
    return {name: runtime_version(name) for name in installed_runtimes()}


def _engine(name: str, *, asked_for: bool) -> Engine:
    match name:
        case "litert":
            return _cpu(name, "LiteRT", "litert", xnnpack=True)
        case "litert-without-xnnpack":
            return _cpu(name, "LiteRT without XNNPACK", "litert", xnnpack=False)
        case "tflite-runtime":
            return _cpu(name, "tflite-runtime", "tflite-runtime", xnnpack=True)
        case _:
            return _edgetpu(asked_for=asked_for)


def _cpu(name: str, title: str, runtime: RuntimeName, *, xnnpack: bool) -> Engine:
    if runtime not in installed_runtimes():
        raise AcceleratorError(f"{runtime} is not installed here")
    # Installed is not enough: tflite-runtime 2.14 does not load beside numpy 2.
    load_runtime(runtime)

    def load(path: Path, threads: int, size_wh: tuple[int, int] | None) -> Interpreter:
        accelerator = CpuAccelerator(runtime=runtime, threads=threads, xnnpack=xnnpack)
        return accelerator.load(path, size_wh)

    return Engine(
        name, title, "cpu", runtime, runtime_version(runtime), load, delegate_of=_xnnpack_parts
    )


def _edgetpu(*, asked_for: bool) -> Engine:
    if not asked_for and not find_devices():
        raise AcceleratorError("no Edge TPU is plugged in")
    accelerator = EdgeTpuAccelerator()
    installed = installed_runtimes()[0]
    return Engine(
        EDGETPU,
        "Edge TPU",
        "edgetpu",
        installed,
        runtime_version(installed),
        lambda path, _threads, _size: accelerator.load(path),
        delegate_of=_edge_tpu_through,
        threads_matter=False,
    )


def _xnnpack_parts(interpreter: Interpreter) -> str | None:
    """Say how many parts of the graph XNNPACK has taken over."""
    if not isinstance(interpreter, RuntimeInterpreter):
        return None
    parts = interpreter.delegated_parts
    return f"{_XNNPACK} ({parts} part{'s' if parts > 1 else ''})" if parts else None


def _edge_tpu_through(interpreter: Interpreter) -> str | None:
    """Say what opened the Edge TPU: of several runtimes, the first that works with it."""
    if not isinstance(interpreter, EdgeTpuInterpreter):
        return None
    return f"{_EDGE_TPU} through {interpreter.runtime}"
