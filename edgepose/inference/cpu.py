"""Models on the CPU, by LiteRT or tflite-runtime (with XNNPACK inside)."""

import math
import os
from pathlib import Path
from typing import Any, Final, Literal

from edgepose.errors import ModelFileError
from edgepose.inference.interpreter import RuntimeInterpreter, first_line, read_model, resize
from edgepose.inference.runtime import RuntimeName, load_runtime, redirect_native_stderr
from edgepose.monitoring.host import cpu_quota

DEVICE: Final = "cpu"
MAX_AUTO_THREADS: Final = 4


def default_threads() -> int:
    """Return the number of cores that this process may use, at most four.

    More threads gain nothing on models this small, and a Pi has four cores.
    """
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return max(1, min(MAX_AUTO_THREADS, cores, cores if quota is None else math.ceil(quota)))


def load_on_cpu(
    path: Path,
    *,
    runtime: RuntimeName | Literal["auto"] = "auto",
    threads: int | None = None,
    xnnpack: bool = True,
    input_size_wh: tuple[int, int] | None = None,
) -> RuntimeInterpreter:
    """Load a model file for the CPU.

    `threads` None means `default_threads()`; `xnnpack` False uses the runtime's reference kernels,
    for benchmarks; the input is resized to `input_size_wh` unless the file fixes its size. A
    damaged file may crash the runtime: see `build.check_model`. Raises AcceleratorError without the
    runtime, and ModelFileError if it cannot read the file or lacks an operator.
    """
    name, module = load_runtime(runtime)
    options: dict[str, Any] = {"num_threads": threads or default_threads()}
    if not xnnpack:
        resolver = module.OpResolverType
        options["experimental_op_resolver_type"] = resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    # The bytes, not the path: the runtime maps a path, and a file replaced while the daemon runs (a
    # package upgrade) would then end it with SIGBUS.
    data = read_model(path)
    with redirect_native_stderr():
        try:
            interpreter = module.Interpreter(model_content=data, **options)
        except ValueError as error:
            raise ModelFileError(
                f"{path}: expected a TFLite model, got a file that {name} cannot read "
                f"({first_line(error)}); fetch or build it again, `edgepose models verify` checks "
                "what is installed"
            ) from error
        try:
            resize(interpreter, input_size_wh)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModelFileError(
                f"{path}: {name} cannot prepare this model ({first_line(error)}); it may need a "
                "newer runtime or not be a pose model"
            ) from error
    return RuntimeInterpreter(interpreter, path)
