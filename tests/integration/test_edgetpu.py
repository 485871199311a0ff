"""An Edge TPU in its own process: a fake device, both runtimes, every way to fail."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from edgepose.errors import AcceleratorError, AcceleratorLostError, ModelFileError
from edgepose.inference import edgetpu
from edgepose.inference.cpu import load_on_cpu
from edgepose.inference.edgetpu import EdgeTpuAccelerator, EdgeTpuInterpreter
from edgepose.inference.runtime import installed_runtimes
from edgepose.monitoring.edgetpu_devices import EdgeTpuDevice, find_devices
from edgepose.protocols import Interpreter
from tests.builders import photograph_tensor
from tests.conftest import MODELS, ROOT
from tests.edgetpu import Behaviour, FakeEdgeTpu
from tests.machines import plug_in
from tests.mosquitto import wait_for
from tests.processes import children

RuntimeName = Literal["litert", "tflite-runtime"]


@pytest.fixture
def fake_edgetpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEdgeTpu:
    device = FakeEdgeTpu(tmp_path / "edgetpu")
    for name, value in device.environment().items():
        monkeypatch.setenv(name, value)
    return device


@pytest.mark.parametrize("runtime", installed_runtimes())
def test_edgetpu_interpreter_protocol(fake_edgetpu: FakeEdgeTpu, runtime: RuntimeName) -> None:
    path = fake_edgetpu.compiled_model()
    accelerator = EdgeTpuAccelerator(runtime=runtime)
    interpreter = accelerator.load(path)
    assert isinstance(interpreter, Interpreter)
    on_cpu = load_on_cpu(MODELS / "movenet-lightning-int8.tflite", runtime=runtime)
    tensor = photograph_tensor(interpreter.input)
    (expected,) = on_cpu.invoke(tensor)
    (first,) = interpreter.invoke(tensor)
    kept = first.copy()
    interpreter.invoke(np.zeros_like(tensor))
    assert np.array_equal(first, kept), "the outputs belong to the caller"
    assert np.abs(first.astype(float) - expected.astype(float)).max() < 1e-5
    interpreter.check()
    interpreter.close()
    interpreter.close()
    with pytest.raises(AcceleratorLostError, match="close"):
        interpreter.invoke(tensor)


def test_edgetpu_wrong_tensor_type(fake_edgetpu: FakeEdgeTpu) -> None:
    interpreter = EdgeTpuAccelerator().load(fake_edgetpu.compiled_model())
    with pytest.raises(TypeError):
        interpreter.invoke(np.zeros(interpreter.input.shape, np.float32))
    interpreter.close()


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("abort", "SIGABRT .*usb_driver"),
        ("fail", "the Edge TPU failed"),
        ("hang", "did not answer within 0.5 s"),
        ("unplugged", "process"),
    ],
)
def test_edgetpu_worker_death_during_invoke_is_final(
    fake_edgetpu: FakeEdgeTpu, behaviour: Behaviour, message: str
) -> None:
    interpreter = EdgeTpuAccelerator().load(fake_edgetpu.compiled_model())
    tensor = photograph_tensor(interpreter.input)
    interpreter.invoke(tensor)
    fake_edgetpu.set(behaviour)
    with pytest.raises(AcceleratorLostError, match=message):
        interpreter.invoke(tensor)
    fake_edgetpu.set("ok")
    with pytest.raises(AcceleratorLostError, match=message):
        interpreter.invoke(tensor)
    with pytest.raises(AcceleratorLostError, match=message):
        interpreter.check()
    interpreter.close()
    EdgeTpuAccelerator().load(fake_edgetpu.compiled_model()).close()


@pytest.mark.parametrize("behaviour", ["hang", "hang-at-create"])
def test_edgetpu_device_hangs_during_open(
    fake_edgetpu: FakeEdgeTpu, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_edgetpu.set(behaviour)
    with monkeypatch.context() as short:
        short.setattr(edgetpu, "LOAD_TIMEOUT_S", 3.0)
        with pytest.raises(AcceleratorError, match="did not answer for 3 s while"):
            EdgeTpuAccelerator().load(fake_edgetpu.compiled_model())
    fake_edgetpu.set("ok")
    EdgeTpuAccelerator().load(fake_edgetpu.compiled_model()).close()


def test_edgetpu_device_by_name(fake_edgetpu: FakeEdgeTpu) -> None:
    path = fake_edgetpu.compiled_model()
    EdgeTpuAccelerator(device="usb:0").load(path).close()
    with pytest.raises(AcceleratorError, match="no Edge TPU is plugged in"):
        EdgeTpuAccelerator(device="pci:0").load(path)


def test_edgetpu_missing_library(fake_edgetpu: FakeEdgeTpu) -> None:
    fake_edgetpu.shared_object.unlink()
    with pytest.raises(AcceleratorError, match="install libedgetpu1-std"):
        EdgeTpuAccelerator().load(fake_edgetpu.compiled_model())


def test_edgetpu_library_without_delegate(fake_edgetpu: FakeEdgeTpu) -> None:
    """Any other shared library has no delegate."""
    fake_edgetpu.shared_object.unlink()
    fake_edgetpu.shared_object.symlink_to(
        next(Path("/lib").glob("*-linux-gnu/libm.so.6")).resolve()
    )
    with pytest.raises(AcceleratorError, match="is not an Edge TPU library"):
        EdgeTpuAccelerator().load(fake_edgetpu.compiled_model())


def test_edgetpu_model_not_compiled(fake_edgetpu: FakeEdgeTpu) -> None:
    with pytest.raises(ModelFileError, match="compiled for the Edge TPU"):
        EdgeTpuAccelerator().load(MODELS / "movenet-lightning-int8.tflite")


def test_edgetpu_open_error_has_reason(
    fake_edgetpu: FakeEdgeTpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake_edgetpu.compiled_model()
    root = tmp_path / "root"
    node = plug_in(root, "2-1", "18d1", "9302")
    monkeypatch.setattr(edgetpu, "find_devices", lambda: find_devices(root))
    accelerator = EdgeTpuAccelerator()
    with fake_edgetpu.held(), pytest.raises(AcceleratorError, match="busy: another process"):
        accelerator.load(path)
    with (
        node.open(),
        fake_edgetpu.held(),
        pytest.raises(AcceleratorError, match=rf"busy: .* \(pid {os.getpid()}\)"),
    ):
        accelerator.load(path)
    with fake_edgetpu.held(), pytest.raises(AcceleratorError, match=r"usb:3, but .* usb .*/007"):
        EdgeTpuAccelerator(device="usb:3").load(path)
    monkeypatch.setattr(EdgeTpuDevice, "accessible", property(lambda _self: False))
    with (
        fake_edgetpu.held(),
        pytest.raises(AcceleratorError, match=r"no permission to open .*/007.* udev"),
    ):
        accelerator.load(path)


def test_edgetpu_library_incompatible_with_first_runtime(
    fake_edgetpu: FakeEdgeTpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The official libedgetpu crashes newer runtimes; the other runtime is tried next."""

    class Runtimes(tuple[RuntimeName, ...]):
        """The library crashes the first runtime only."""

        __slots__ = ()

        def __iter__(self) -> Iterator[RuntimeName]:
            fake_edgetpu.set("segfault-at-create")
            yield self[0]
            fake_edgetpu.set("ok")
            yield self[1]

    monkeypatch.setattr(edgetpu, "installed_runtimes", lambda: Runtimes(("litert", "litert")))
    EdgeTpuAccelerator().load(fake_edgetpu.compiled_model()).close()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="tflite-runtime ends at Python 3.11")
def test_edgetpu_uses_installed_pycoral(
    fake_edgetpu: FakeEdgeTpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package with the one function of pycoral that is called, in the worker's path."""
    package = tmp_path / "site/pycoral/utils"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "edgetpu.py").write_text(
        "from tflite_runtime.interpreter import Interpreter, load_delegate\n"
        "def make_interpreter(model, device=None, delegate=None):\n"
        "    options = {'device': device} if device else {}\n"
        "    found = load_delegate('libedgetpu.so.1', options)\n"
        "    return Interpreter(model_content=model, experimental_delegates=[found])\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{ROOT}")
    logged: list[str] = []
    monkeypatch.setattr(edgetpu.log, "debug", lambda text, *values: logged.append(text % values))
    EdgeTpuAccelerator(device="usb:0").load(fake_edgetpu.compiled_model()).close()
    assert any("opened by pycoral with tflite-runtime" in line for line in logged)
    fake_edgetpu.set("absent")
    with pytest.raises(AcceleratorError, match="no Edge TPU is plugged in"):
        EdgeTpuAccelerator().load(fake_edgetpu.compiled_model())


def test_edgetpu_library_output_is_bounded(fake_edgetpu: FakeEdgeTpu) -> None:
    before = children(os.getpid())
    interpreter = EdgeTpuAccelerator().load(fake_edgetpu.compiled_model())
    (process_id,) = children(os.getpid()) - before
    stderr = Path(f"/proc/{process_id}/fd/2")
    with stderr.open("ab") as flood:
        flood.write(b"W noise\n" * 20_000)
    wait_for(lambda: stderr.stat().st_size < 1000, "the heartbeat that truncates it")
    interpreter.close()


def test_edgetpu_worker_outlives_the_thread_that_started_it(fake_edgetpu: FakeEdgeTpu) -> None:
    """PR_SET_PDEATHSIG is sent when the thread that forked ends, not the process."""
    loaded: list[EdgeTpuInterpreter] = []
    path = fake_edgetpu.compiled_model()
    thread = threading.Thread(target=lambda: loaded.append(EdgeTpuAccelerator().load(path)))
    thread.start()
    thread.join()
    (interpreter,) = loaded
    interpreter.invoke(photograph_tensor(interpreter.input))
    interpreter.check()
    interpreter.close()


@pytest.mark.parametrize("busy", ["time.sleep(60)", "signal.pause()", "sum(range(10**12))"])
def test_end_with_parent_busy_process(busy: str) -> None:
    """A busy process ends when the other end of the pipe closes, with the GIL held or not."""
    lifeline, parent = os.pipe()
    script = (
        "import signal, sys, time\n"
        "from edgepose.inference.edgetpu_worker import end_with_parent\n"
        f"end_with_parent({lifeline})\n"
        "print('ready', flush=True)\n"
        f"{busy}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], pass_fds=(lifeline,), stdout=subprocess.PIPE
    ) as process:
        os.close(lifeline)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert process.poll() is None
        os.close(parent)
        assert process.wait(60) == -signal.SIGIO
