"""The TFLite runtimes behind one door: LiteRT, and tflite-runtime where only that is installed."""

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Literal

from edgepose.errors import AcceleratorError

log = logging.getLogger(__name__)

RuntimeName = Literal["litert", "tflite-runtime"]

_MODULES: dict[RuntimeName, str] = {
    "litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}
_PACKAGES: dict[RuntimeName, str] = {
    "litert": "ai-edge-litert",
    "tflite-runtime": "tflite-runtime",
}


def installed_runtimes() -> tuple[RuntimeName, ...]:
    """Return the names of the runtimes that are installed, the preferred one first."""
    return tuple(
        name
        for name, module in _MODULES.items()
        if importlib.util.find_spec(module.partition(".")[0]) is not None
    )


def load_runtime(wanted: RuntimeName | Literal["auto"] = "auto") -> tuple[RuntimeName, ModuleType]:
    """Import a runtime's interpreter module and return its name with it.

    Raises AcceleratorError where it is not installed, or is but cannot be imported (tflite-runtime
    2.14 beside numpy 2, say).
    """
    installed = installed_runtimes()
    if wanted == "auto":
        if not installed:
            raise AcceleratorError(
                "no TFLite runtime is installed, expected ai-edge-litert or tflite-runtime: "
                "pip install ai-edge-litert"
            )
        wanted = installed[0]
    elif wanted not in installed:
        raise AcceleratorError(
            f"inference.runtime is {wanted} but {_PACKAGES[wanted]} is not installed here: "
            f"pip install {_PACKAGES[wanted]}, or set inference.runtime: auto"
        )
    try:
        return wanted, importlib.import_module(_MODULES[wanted])
    except (ImportError, AttributeError) as error:
        raise AcceleratorError(
            f"{_PACKAGES[wanted]} is installed but does not load ({error}); tflite-runtime needs "
            f"numpy below 2: set inference.runtime to the other runtime or reinstall it"
        ) from error


def runtime_version(name: RuntimeName) -> str:
    """Return the installed version of a runtime's package."""
    # Late: only benchmarks and `info` messages ask for it.
    from importlib.metadata import version

    return version(_PACKAGES[name])


@contextmanager
def chatter_to_log() -> Iterator[None]:
    """Send what the runtime's C++ code prints on stderr to the debug log instead.

    It greets every model with a line that no user asked for, and has no switch for it.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    heard = os.memfd_create("edgepose-runtime-chatter")
    os.dup2(heard, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        with os.fdopen(heard, "rb") as file:
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines():
                log.debug("runtime: %s", line)
