"""Tries a model file in a child process: a damaged one may crash the runtime that loads it."""

import subprocess
import sys
from pathlib import Path
from typing import Final, Literal

from edgepose.errors import EdgeposeError, ModelFileError
from edgepose.inference.runtime import RuntimeName, load_runtime
from edgepose.util.process import environment_without_secrets, exit_description, main_command

TIMEOUT_S: Final = 60.0
"""Thunder takes a second on a Pi; a file that needs a minute is unusable."""
_MEMORY_BYTES: Final = 4 << 30

_passed: set[tuple[Path, int, int, str]] = set()


def probe_model(
    path: Path,
    runtime: RuntimeName | Literal["auto"] = "auto",
    input_size_wh: tuple[int, int] | None = None,
) -> None:
    """Load a model for the CPU in a child process and run it once.

    A file that passed is not tried again while it is unchanged. Takes about as long as importing
    the runtime. Raises ModelFileError if the file is refused, crashes the runtime or takes longer
    than a minute; AcceleratorError without a runtime.
    """
    runtime, _ = load_runtime(runtime)
    try:
        status = path.stat()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot read the model: {error.strerror}") from error
    key = (path.absolute(), status.st_mtime_ns, status.st_size, f"{runtime} {input_size_wh}")
    if key in _passed:
        return
    size = [] if input_size_wh is None else [str(side) for side in input_size_wh]
    try:
        done = subprocess.run(  # noqa: S603 - this very program
            [*main_command(__name__), str(path), runtime, *size],
            env=environment_without_secrets(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelFileError(
            f"{path}: {runtime} did not run this model once within {TIMEOUT_S:g} s; it is damaged "
            "or no pose model"
        ) from None
    if done.returncode == 1 and done.stdout:
        raise ModelFileError(done.stdout.strip())
    if done.returncode != 0:
        raise ModelFileError(
            f"{path}: expected a TFLite model, got a file on which {runtime} "
            f"{exit_description(done.returncode)}; fetch or build it again"
        )
    _passed.add(key)


def main() -> None:
    """Run the child; arguments are the file, the runtime and the input's width and height."""
    import resource

    import numpy as np

    from edgepose.inference.cpu import load_on_cpu

    # A damaged size may ask for all the memory there is.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path, runtime, *size = sys.argv[1:]
    input_size_wh = (int(size[0]), int(size[1])) if size else None
    try:
        interpreter = load_on_cpu(
            Path(path),
            runtime="litert" if runtime == "litert" else "tflite-runtime",
            input_size_wh=input_size_wh,
        )
        interpreter.invoke(np.zeros(interpreter.input.shape, interpreter.input.dtype))
    except (EdgeposeError, MemoryError) as error:
        sys.stdout.write(str(error) or f"{path}: the model needs too much memory")
        sys.exit(1)
