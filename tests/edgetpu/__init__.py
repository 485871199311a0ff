"""A fake Edge TPU: a `libedgetpu.so.1`, models compiled for it, and faults on command.

    fake_edgetpu = FakeEdgeTpu(tmp_path)
    path = fake_edgetpu.compiled_model("movenet-lightning-int8")
    subprocess.Popen(command, env={**os.environ, **fake_edgetpu.environment()})
    fake_edgetpu.set("abort", after=10)

It needs gcc. `fake_edgetpu.c` describes the behaviours.
"""

import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from tests.conftest import MODELS
from tests.edgetpu import compiled
from tests.requirements import missing

HERE = Path(__file__).parent
LIBRARY = "libedgetpu.so.1"

Behaviour = Literal[
    "ok",
    "zeros",
    "absent",
    "busy",
    "unplugged",
    "fail",
    "abort",
    "abort-at-create",
    "segfault-at-create",
    "hang",
    "hang-at-create",
    "slow",
    "slow-at-create",
    "version",
]
BEHAVIOURS: tuple[Behaviour, ...] = get_args(Behaviour)


class FakeEdgeTpu:
    """One fake device, with all its files in one folder.

    `device` is its name, such as `usb:0` or `pci:0`; no other one is found. A behaviour applies at
    once to all processes with this `environment()`.
    """

    def __init__(self, folder: Path, *, device: str = "usb:0") -> None:
        self.folder = folder
        self.device = device
        self.shared_object = folder / "lib" / LIBRARY
        self.control = folder / "control"
        self.models = folder / "models"
        self._heads = folder / "heads"
        for needed in (self.shared_object.parent, self.models, self._heads):
            needed.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_build(), self.shared_object)
        shutil.copyfile(HERE / "heads.py", self.shared_object.parent / "heads.py")

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which a process finds this device."""
        search = [str(self.shared_object.parent), os.environ.get("LD_LIBRARY_PATH", "")]
        return {
            "LD_LIBRARY_PATH": ":".join(folder for folder in search if folder),
            "FAKE_EDGETPU_CONTROL": str(self.control),
            "FAKE_EDGETPU_MODELS": str(self._heads),
            "FAKE_EDGETPU_DEVICE": self.device,
        }

    def set(self, behaviour: Behaviour, *, ms: int | None = None, after: int = 0) -> None:
        """Set the behaviour from now on, or once a process has done `after` more invokes.

        `ms` belongs to `slow` and `slow-at-create`. Raises ValueError for an unknown behaviour.
        """
        if behaviour not in BEHAVIOURS or (ms is not None) != behaviour.startswith("slow"):
            raise ValueError(
                f"no such behaviour: {behaviour}, {ms} ms; they are {', '.join(BEHAVIOURS)}"
            )
        text = behaviour + ("" if ms is None else f" {ms}") + (f" after {after}" if after else "")
        # The same behaviour set again counts its invokes anew.
        text += f"\n# {time.monotonic_ns()}\n"
        # Replaced, not rewritten: no process reads a part of it.
        new = self.control.with_name("control.new")
        new.write_text(text)
        new.replace(self.control)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the device as another process would."""
        with Path(f"{self.control}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    def compiled_model(self, name: str = "movenet-lightning-int8") -> Path:
        """Return `<name>_edgetpu.tflite`, made from a bundled model, whose copy is beside it."""
        return self._install(name, *_compiled(name))

    def add_model(self, edgetpu: Path, cpu: Path) -> Path:
        """Add a file of the real compiler and return its copy, with `cpu` beside it.

        Raises ValueError if `cpu` is not the same network.
        """
        files = cpu.read_bytes(), edgetpu.read_bytes()
        return self._install(cpu.stem, *files, compiled.heads_model(*files))

    def _install(self, name: str, cpu: bytes, edgetpu: bytes, heads: bytes) -> Path:
        path = self.models / f"{name}_edgetpu.tflite"
        (self.models / f"{name}.tflite").write_bytes(cpu)
        (self._heads / f"{name}.tflite").write_bytes(heads)
        path.write_bytes(edgetpu)
        return path


@functools.cache
def _compiled(name: str) -> tuple[bytes, bytes, bytes]:
    cpu = (MODELS / f"{name}.tflite").read_bytes()
    edgetpu = compiled.compile_model(cpu)
    return cpu, edgetpu, compiled.heads_model(cpu, edgetpu)


@functools.cache
def _session() -> tempfile.TemporaryDirectory[str]:
    # Kept alive by the cache, and removed when the process ends.
    return tempfile.TemporaryDirectory(prefix="edgepose-fake-edgetpu-")


@functools.cache
def _build() -> Path:
    """Compile the library, once per session."""
    compiler = shutil.which("gcc")
    if compiler is None:
        missing("gcc is not installed, which builds the fake Edge TPU: apt install gcc")
    library = Path(_session().name) / LIBRARY
    flags = ["-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", library, HERE / "fake_edgetpu.c"], check=True)
    return library
