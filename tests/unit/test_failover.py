"""Losing an accelerator and getting it back, with a device that does what the test says."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgepose.errors import AcceleratorError, AcceleratorLostError
from edgepose.inference.failover import OPENING, Failover, PrimaryModel, RetryPolicy, SingleModel
from edgepose.protocols import LoadedModel
from tests.mosquitto import wait_for
from tests.unit.test_pipeline import FakeInterpreter, FakeModel

SOON = RetryPolicy(
    first_try_s=0.01, last_try_s=0.02, max_delay_without_fallback_s=0.02, check_s=0.01
)
NEVER = RetryPolicy(
    first_try_s=3600, last_try_s=3600, max_delay_without_fallback_s=3600, check_s=0.01
)


class Interpreter(FakeInterpreter):
    """Remembers whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def close(self) -> None:
        self.closed = True


def model(name: str, device: str) -> LoadedModel:
    return LoadedModel(name, Path(name), "fake", device, Interpreter(), FakeModel(0, 0), 0.3, 0.3)


class Device:
    """An Edge TPU in the test's hand."""

    def __init__(self) -> None:
        self.refuses: Exception | None = None
        self.dead: AcceleratorLostError | None = None
        self.opened: list[LoadedModel] = []
        self.tries = 0
        self.plugged = 0

    def open(self) -> PrimaryModel:
        self.tries += 1
        if self.refuses is not None:
            raise self.refuses
        self.dead = None
        self.opened.append(model(f"tpu-{len(self.opened)}", "edgetpu"))
        return PrimaryModel(self.opened[-1], self.check)

    def check(self) -> None:
        if self.dead is not None:
            raise self.dead


@contextmanager
def failover(
    device: Device,
    fallback: LoadedModel | None,
    *,
    opened: bool = False,
    times: RetryPolicy = SOON,
) -> Iterator[Failover]:
    models = Failover(
        device.open,
        fallback,
        primary=device.open() if opened else None,
        fingerprint=lambda: device.plugged,
        times=times,
    )
    try:
        yield models
    finally:
        models.close()


def name_of(models: Failover) -> Callable[[], str]:
    return lambda: models.current.name


def test_the_stand_in_looks_until_the_device_is_open() -> None:
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


def test_a_loss_swaps_at_once_and_a_return_swaps_back() -> None:
    device = Device()
    with failover(device, model("cpu", "cpu"), opened=True, times=NEVER) as models:
        lost = models.current
        models.lost(lost, AcceleratorLostError("pulled"))
        assert (models.current.name, models.state.reason) == ("cpu", "pulled")
        # Hearing of the same death again, from a frame that was on its way, changes nothing.
        models.lost(lost, AcceleratorLostError("pulled again"))
        assert (models.state.reason, models.state.restarts) == ("pulled", 1)
        models.start()
        wait_for(lambda: isinstance(lost.interpreter, Interpreter) and lost.interpreter.closed, "")
        assert device.tries == 1, "a device that has just died is left in peace for a moment"
        device.plugged += 1
        wait_for(lambda: models.current.name == "tpu-1", "a try at once when something is plugged")


def test_a_death_while_nobody_looks_is_noticed() -> None:
    device = Device()
    with failover(device, model("cpu", "cpu"), opened=True, times=NEVER) as models:
        models.start()
        device.dead = AcceleratorLostError("silent")
        wait_for(lambda: models.current.name == "cpu", "the stand-in")
        assert models.state.reason == "silent"


def test_nothing_stands_in() -> None:
    device = Device()
    with failover(device, None, opened=True) as models:
        with pytest.raises(AcceleratorLostError, match="pulled"):
            models.lost(models.current, AcceleratorLostError("pulled"))
        assert not models.ready
        with pytest.raises(AcceleratorLostError, match="pulled"):
            _ = models.current
        state = models.state
        assert (state.model, state.device, state.degraded) == (None, "edgetpu", True)
        models.start()
        wait_for(lambda: models.ready, "the return")


@pytest.mark.parametrize("error", [AcceleratorError("no device"), ZeroDivisionError("a mistake")])
def test_tries_go_on_whatever_goes_wrong(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of ours once ended the thread, and with it every hope of the device's return."""
    device = Device()
    device.refuses = error
    with failover(device, model("cpu", "cpu")) as models:
        models.start()
        wait_for(lambda: device.tries > 4, "tries")
        assert str(error) in str(models.state.reason)
        device.refuses = None
        wait_for(lambda: models.current.name == "tpu-0", "the device")
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1, "each reason is said once"


def test_close_frees_both_and_ends_the_tries() -> None:
    device, cpu = Device(), model("cpu", "cpu")
    with failover(device, cpu, opened=True) as models:
        models.start()
        models.close()
        assert [m.interpreter.closed for m in (*device.opened, cpu)] == [True, True]  # type: ignore[attr-defined]
        names = [thread.name for thread in threading.enumerate()]
        assert "accelerator" not in names


def test_one_model_for_ever() -> None:
    cpu = model("cpu", "cpu")
    models = SingleModel(cpu, reason="there is no compiled file")
    assert (models.current, models.ready) == (cpu, True)
    assert (models.state.degraded, models.state.reason) == (False, "there is no compiled file")
    with pytest.raises(AcceleratorLostError):
        models.lost(cpu, AcceleratorLostError("never"))
    models.close()
