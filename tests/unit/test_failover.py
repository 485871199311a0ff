"""The loss and the return of an accelerator, with a fake device."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgepose.errors import AcceleratorError, AcceleratorLostError
from edgepose.inference.failover import OPENING, Failover, SingleModel
from edgepose.protocols import LoadedModel
from tests.fakes.pipeline import FakeInterpreter, FakePoseModel
from tests.mosquitto import wait_for


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepose.inference.failover.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("edgepose.inference.failover.LONGEST_PAUSE_S", 0.02)
    monkeypatch.setattr("edgepose.inference.failover.LONGEST_PAUSE_WITHOUT_FALLBACK_S", 0.02)
    monkeypatch.setattr("edgepose.inference.failover.CHECK_S", 0.01)


@pytest.fixture
def _pause_without_end(_short_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an attempt follow the first one only if a device is plugged in."""
    monkeypatch.setattr("edgepose.inference.failover.FIRST_PAUSE_S", 3600.0)


def model(name: str, device: str) -> LoadedModel:
    pose_model = FakePoseModel(0, 0)
    return LoadedModel(name, Path(name), device, FakeInterpreter(), pose_model, 0.3, 0.3)


class Device:
    """A fake Edge TPU."""

    def __init__(self) -> None:
        self.refuses: Exception | None = None
        self.dead: AcceleratorLostError | None = None
        self.opened: list[LoadedModel] = []
        self.tries = 0
        self.plugged = 0

    def open(self) -> LoadedModel:
        self.tries += 1
        if self.refuses is not None:
            raise self.refuses
        self.dead = None
        opened = model(f"tpu-{len(self.opened)}", "edgetpu")
        self.opened.append(replace(opened, check=self.check))
        return self.opened[-1]

    def check(self) -> None:
        if self.dead is not None:
            raise self.dead


@contextmanager
def failover(
    device: Device, fallback: LoadedModel | None, *, opened: bool = False
) -> Iterator[Failover]:
    models = Failover(
        device.open,
        fallback,
        primary=device.open() if opened else None,
        fingerprint=lambda: device.plugged,
    )
    try:
        yield models
    finally:
        models.close()


def name_of(models: Failover) -> Callable[[], str]:
    return lambda: models.current.name


def test_failover_runs_the_fallback_until_the_device_is_open() -> None:
    device = Device()
    with failover(device, model("cpu", "cpu")) as models:
        assert (models.current.name, models.current.degraded) == ("cpu", True)
        assert (models.state.device, models.state.degraded) == ("cpu", True)
        assert models.state.reason == OPENING
        models.start()
        wait_for(lambda: models.current.name == "tpu-0", "the device")
        assert not models.current.degraded
        state = models.state
        assert (state.device, state.degraded, state.reason) == ("edgetpu", False, None)


@pytest.mark.usefixtures("_pause_without_end")
def test_failover_switches_on_loss_and_back_on_return() -> None:
    device = Device()
    with failover(device, model("cpu", "cpu"), opened=True) as models:
        lost = models.current
        models.report_lost(lost, AcceleratorLostError("pulled"))
        assert (models.current.name, models.state.reason) == ("cpu", "pulled")
        # A second report of the same loss, from a frame on its way, changes nothing.
        models.report_lost(lost, AcceleratorLostError("pulled again"))
        assert (models.state.reason, models.state.restarts) == ("pulled", 1)
        models.start()
        interpreter = lost.interpreter
        assert isinstance(interpreter, FakeInterpreter)
        wait_for(lambda: interpreter.closed, "the lost one to be closed")
        assert device.tries == 1, "a device that was just lost is not opened at once"
        device.plugged += 1
        wait_for(
            lambda: models.current.name == "tpu-1",
            "an attempt after plugging in",
        )


@pytest.mark.usefixtures("_pause_without_end")
def test_failover_notices_a_loss_between_frames() -> None:
    device = Device()
    with failover(device, model("cpu", "cpu"), opened=True) as models:
        models.start()
        device.dead = AcceleratorLostError("silent")
        wait_for(lambda: models.current.name == "cpu", "the fallback")
        assert models.state.reason == "silent"


def test_failover_without_a_fallback() -> None:
    device = Device()
    with failover(device, None, opened=True) as models:
        with pytest.raises(AcceleratorLostError, match="pulled"):
            models.report_lost(models.current, AcceleratorLostError("pulled"))
        assert not models.ready
        with pytest.raises(AcceleratorLostError, match="pulled"):
            _ = models.current
        state = models.state
        assert (state.model, state.device, state.degraded) == (None, "edgetpu", True)
        models.start()
        wait_for(lambda: models.ready, "the return")


@pytest.mark.parametrize("error", [AcceleratorError("no device"), ZeroDivisionError("a bug")])
def test_failover_retries_after_any_failure(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug once ended the thread, and the device was never opened again."""
    device = Device()
    device.refuses = error
    with failover(device, model("cpu", "cpu")) as models:
        models.start()
        wait_for(lambda: device.tries > 4, "attempts")
        assert str(error) in str(models.state.reason)
        device.refuses = None
        wait_for(lambda: models.current.name == "tpu-0", "the device")
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1, "each reason is logged once"


def test_failover_close_frees_both_models_and_ends_the_thread() -> None:
    device, cpu = Device(), model("cpu", "cpu")
    with failover(device, cpu, opened=True) as models:
        models.start()
        models.close()
        assert [m.interpreter.closed for m in (*device.opened, cpu)] == [True, True]  # type: ignore[attr-defined]
        names = [thread.name for thread in threading.enumerate()]
        assert "accelerator" not in names


def test_failover_close_frees_the_verifier_and_a_loss_does_not() -> None:
    """The fallback needs it after the loss."""
    device, verifier = Device(), model("verifier", "cpu")
    interpreter = verifier.interpreter
    assert isinstance(interpreter, FakeInterpreter)
    cpu = replace(model("cpu", "cpu"), verifier=verifier)
    models = Failover(
        lambda: replace(device.open(), verifier=verifier),
        cpu,
        primary=replace(device.open(), verifier=verifier),
        fingerprint=lambda: device.plugged,
    )
    models.start()
    models.report_lost(models.current, AcceleratorLostError("pulled"))
    wait_for(lambda: models.current.name == "tpu-1", "the device")
    assert models.current.verifier is verifier
    assert not interpreter.closed
    models.close()
    assert interpreter.closed


def test_single_model_close_frees_the_verifier() -> None:
    verifier = model("verifier", "cpu")
    SingleModel(replace(model("cpu", "cpu"), verifier=verifier)).close()
    assert isinstance(verifier.interpreter, FakeInterpreter)
    assert verifier.interpreter.closed


def test_single_model() -> None:
    cpu = model("cpu", "cpu")
    models = SingleModel(cpu, reason="there is no compiled file")
    assert (models.current, models.ready) == (cpu, True)
    assert (models.state.degraded, models.state.reason) == (False, "there is no compiled file")
    with pytest.raises(AcceleratorLostError):
        models.report_lost(cpu, AcceleratorLostError("never"))
    models.close()


def test_failover_close_does_not_wait_for_a_device_that_hangs_in_opening() -> None:
    """It delayed a reload and the stop by 5.5 s; the thread closes what it opens too late."""
    entered, go_on = threading.Event(), threading.Event()
    late = model("tpu", "edgetpu")

    def hanging() -> LoadedModel:
        entered.set()
        assert go_on.wait(60)
        return late

    fallback = model("cpu", "cpu")
    models = Failover(hanging, fallback, primary=None, fingerprint=lambda: 0)
    models.start()
    assert entered.wait(60)
    models.close()
    assert isinstance(fallback.interpreter, FakeInterpreter)
    assert fallback.interpreter.closed
    go_on.set()
    interpreter = late.interpreter
    assert isinstance(interpreter, FakeInterpreter)
    wait_for(lambda: interpreter.closed, "the device to be closed")
