"""Which model runs: the Edge TPU's while it is available, otherwise the CPU's."""

import contextlib
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from edgepose.clock import boottime_ns
from edgepose.errors import AcceleratorLostError, EdgeposeError
from edgepose.protocols import LoadedModel

log = logging.getLogger(__name__)

OPENING: Final = "the Edge TPU is being opened"

# Pauses between attempts to open the accelerator, doubled from the first to the longest. Without a
# CPU fallback, retry often: detection is down until the device returns. With one, an attempt takes
# a second of processor time and can wait, unless a device is plugged in.
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
LONGEST_PAUSE_WITHOUT_FALLBACK_S: Final = 4.0
CHECK_S: Final = 0.5
"""How often a running accelerator is checked, and a missing one searched for."""


@dataclass(frozen=True, slots=True)
class AcceleratorState:
    """The model that runs; `degraded` if it is not the one asked for, with the reason in words.

    `model` is None while none runs; `device` is then the one that is waited for. `since_ns` is
    CLOCK_BOOTTIME.
    """

    model: LoadedModel | None
    device: str
    degraded: bool
    reason: str | None
    since_ns: int
    restarts: int = 0


class SingleModel:
    """One model for the whole run; `reason` is why it was chosen, if that is not obvious."""

    def __init__(self, model: LoadedModel, *, reason: str | None = None) -> None:
        self.current = model
        self.ready = True
        self.state = AcceleratorState(model, model.device, False, reason, boottime_ns())
        self.loaded = [model]

    def report_lost(self, _model: LoadedModel, error: AcceleratorLostError, /) -> None:
        """Raise the error: there is no fallback."""
        raise error

    def start(self) -> None:
        """Do nothing: there is nothing to monitor."""

    def close(self) -> None:
        """Free the model."""
        self.current.close()


class Failover:
    """Provides the accelerator's model while it is available, and the fallback otherwise.

    `open_primary` opens the accelerator and may take seconds; a thread of this class calls it until
    it succeeds. It raises EdgeposeError. `fallback` is None if there is none. `primary` is what was
    opened before, if anything was. `fingerprint` changes when devices are plugged in or pulled,
    after which an attempt is made at once. `loaded` are the models at the start.
    """

    def __init__(
        self,
        open_primary: Callable[[], LoadedModel],
        fallback: LoadedModel | None,
        *,
        primary: LoadedModel | None,
        fingerprint: Callable[[], object],
    ) -> None:
        self._open_primary = open_primary
        self._fallback = None if fallback is None else replace(fallback, degraded=True)
        self._fingerprint = fingerprint
        self._primary = primary
        self._lost: LoadedModel | None = None
        self._wake = threading.Condition()
        self._closing = False
        self._logged = ""
        self.loaded = [model for model in (primary, fallback) if model is not None]
        self.state = self._make_state(None if primary is not None else OPENING)
        self._thread = threading.Thread(target=self._run, name="accelerator", daemon=True)

    @property
    def current(self) -> LoadedModel:
        """The model to run; raises AcceleratorLostError while there is none."""
        model = self.state.model
        if model is None:
            raise AcceleratorLostError(self.state.reason or OPENING)
        return model

    @property
    def ready(self) -> bool:
        """Whether there is a model to run."""
        return self.state.model is not None

    def report_lost(self, model: LoadedModel, error: AcceleratorLostError, /) -> None:
        """Switch to the fallback; raises the error if there is none."""
        with self._wake:
            if model is self._primary:
                self._lost, self._primary = model, None
                self.state = self._make_state(str(error), restarts=self.state.restarts + 1)
                self._log_once(
                    f"{error}; falling back to {self._fallback.name} on the CPU"
                    if self._fallback is not None
                    else f"{error}; no fallback; inference stopped until it returns"
                )
                self._wake.notify_all()
        if self._fallback is None:
            raise error

    def start(self) -> None:
        """Start monitoring the accelerator."""
        self._thread.start()

    def close(self) -> None:
        """Free the accelerator and the models; a device that hangs is left to its thread."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread.ident is not None:
            # Not until a device that hangs has been opened: the thread closes it then.
            self._thread.join(CHECK_S + 1)
        for model in (self._lost, self._primary, self._fallback):
            if model is not None:
                model.close()

    def _run(self) -> None:
        while not self._closing:
            primary = self._primary
            if primary is None:
                self._reopen()
                continue
            try:
                primary.check()
            except AcceleratorLostError as error:
                with contextlib.suppress(AcceleratorLostError):
                    self.report_lost(primary, error)
                continue
            with self._wake:
                self._wake.wait_for(lambda: self._closing or self._primary is None, CHECK_S)

    def _reopen(self) -> None:
        """Open the accelerator, after longer and longer pauses until it succeeds."""
        longest_s = LONGEST_PAUSE_S if self._fallback else LONGEST_PAUSE_WITHOUT_FALLBACK_S
        pause_s = FIRST_PAUSE_S
        if self._lost is not None:
            # The device is busy until what is left of it is closed, and then needs a moment.
            self._lost.interpreter.close()
            self._lost = None
            self._pause(pause_s)
        while not self._closing and not self._open():
            self._pause(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    def _open(self) -> bool:
        """Try once to open the accelerator; return whether it succeeded."""
        try:
            primary = self._open_primary()
        except Exception as error:  # noqa: BLE001 - without this thread it is never reopened
            reason = str(error)
            if not isinstance(error, EdgeposeError):
                reason = f"the Edge TPU cannot be opened: {type(error).__name__}: {error}"
            with self._wake:
                self.state = replace(self.state, reason=reason)
            self._log_once(reason)
            return False
        with self._wake:
            if self._closing:
                primary.interpreter.close()
                return True
            self._primary = primary
            self._logged = ""
            self.state = self._make_state(None, restarts=self.state.restarts)
        log.info("Edge TPU active, model %s", primary.name)
        return True

    def _pause(self, duration_s: float) -> None:
        before = self._fingerprint()
        # Jitter: a device shared with another program must not be requested in step with it.
        end_ns = boottime_ns() + int(duration_s * random.uniform(0.8, 1.2) * 1e9)  # noqa: S311
        with self._wake:
            while not self._closing and boottime_ns() < end_ns:
                left_s = (end_ns - boottime_ns()) / 1e9
                self._wake.wait(max(0.0, min(left_s, CHECK_S)))
                if self._fingerprint() != before:
                    return

    def _make_state(self, reason: str | None, *, restarts: int = 0) -> AcceleratorState:
        model = self._primary or self._fallback
        device = "edgetpu" if model is None else model.device
        degraded = self._primary is None
        return AcceleratorState(model, device, degraded, reason, boottime_ns(), restarts)

    def _log_once(self, text: str) -> None:
        """Log a failure once, even if it repeats."""
        if text != self._logged:
            self._logged = text
            log.warning("%s", text)


Models = Failover | SingleModel
