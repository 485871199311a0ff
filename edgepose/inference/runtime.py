"""The TFLite runtimes: LiteRT, and tflite-runtime if only that is installed."""

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Literal

from edgepose.errors import AcceleratorError

log = logging.getLogger(__name__)

RuntimeName = Literal["litert", "tflite-runtime"]

_MODULES: dict[RuntimeName, str] = {
    "litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
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

    Raises AcceleratorError if it is not installed, or cannot be imported (such as tflite-runtime
    2.14 beside numpy 2).
    """
    installed = installed_runtimes()
    if wanted == "auto":
        wanted = installed[0] if installed else "litert"
    package = _package(wanted)
    if wanted not in installed:
        raise AcceleratorError(
            f"the TFLite runtime {package} is not installed here: pip install {package}, or set "
            "inference.runtime to one that is"
        )
    try:
        return wanted, importlib.import_module(_MODULES[wanted])
    except (ImportError, AttributeError) as error:
        raise AcceleratorError(
            f"{package} is installed but does not load ({error}); tflite-runtime needs numpy below "
            "2: set inference.runtime to the other runtime or reinstall it"
        ) from error


def runtime_version(name: RuntimeName) -> str:
    """Return the installed version of a runtime's package."""
    # The name of the folder beside the package has it; importlib.metadata takes 20 ms to import.
    package = _package(name).replace("-", "_")
    spec = importlib.util.find_spec(package)
    for folder in () if spec is None else spec.submodule_search_locations or ():
        for info in Path(folder).parent.glob(f"{package}-*.dist-info"):
            return info.name.removeprefix(f"{package}-").removesuffix(".dist-info")
    from importlib.metadata import version

    return version(_package(name))


def _package(name: RuntimeName) -> str:
    return _MODULES[name].partition(".")[0].replace("_", "-")


@contextmanager
def redirect_native_stderr() -> Iterator[None]:
    """Send what the runtime's C++ code prints on stderr to the debug log instead.

    It prints a line for every model, and has no option against it. The daemon's log is not
    affected: it writes to another descriptor.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    redirected = os.memfd_create("edgepose-runtime-stderr")
    os.dup2(redirected, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        with os.fdopen(redirected, "rb") as file:
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines():
                log.debug("runtime: %s", line)
