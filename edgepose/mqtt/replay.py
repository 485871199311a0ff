"""A recording back onto MQTT, with its own timing."""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edgepose import messages
from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.messages import PoseMessage
from edgepose.mqtt.topics import Topics

_log = logging.getLogger(__name__)

MAX_LINE_BYTES: Final = 1_000_000
"""No pose message is that long; a file without line ends must not fill the memory."""
MAX_PAUSE_S: Final = 30.0
"""A pause of the recording is replayed for so long at most: the clock may have been set."""
_LONGEST_SLEEP_S: Final = 86_400.0
_OUT_OF_ORDER_S: Final = 1.0
"""Messages of several cameras may be a little out of order."""
_MAX_INVALID_AT_START: Final = 20
_MAX_WARNINGS: Final = 5
_MAX_REASON: Final = 200
_INVALID: Final = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)


class Recorded(NamedTuple):
    """A line of a recording; `captured_s` is its `captured_at` in seconds since 1970."""

    message: PoseMessage
    payload: bytes
    captured_s: float


class Recording:
    """The messages of a recording, read once, since a pipe cannot be read again.

    Lines that are invalid are logged, counted in `skipped`, and left out.
    Raises SourceNotFoundError or SourceError for a file that cannot be read or is no recording.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skipped = 0
        self._problems: list[str] = []
        messages = self._read()
        # Fails here, before anything is published, if there is no message.
        self._messages = chain([next(messages)], messages)

    def __iter__(self) -> Iterator[Recorded]:
        return self._messages

    def _read(self) -> Iterator[Recorded]:
        path = self.path
        number = valid = invalid = 0
        continued = False
        try:
            with path.open("rb") as file:
                while line := file.readline(MAX_LINE_BYTES):
                    begins, continued = not continued, not line.endswith(b"\n")
                    number += begins
                    if begins and not line.strip():
                        continue
                    try:
                        recorded = _parse(line) if begins else None
                    except _INVALID as error:
                        self._skip(number, line, str(error))
                        recorded = None
                    if recorded is not None:
                        valid += 1
                        yield recorded
                    elif not valid and (invalid := invalid + 1) >= _MAX_INVALID_AT_START:
                        break
                    # A file that is no recording has one error, not one for each line.
                    while valid and self._problems:
                        _log.warning("%s", self._problems.pop(0))
        except FileNotFoundError:
            raise SourceNotFoundError(
                f"{path}: no such recording; check the path, or make one with output.record"
            ) from None
        except OSError as error:
            raise SourceError(
                f"{path}: the recording cannot be read ({error.strerror}); expected a file of pose "
                "messages that edgepose may read"
            ) from error
        if not valid:
            raise SourceError(
                f"{path}: no pose message found; expected a recording of edgepose, one JSON "
                "message a line"
            )

    def _skip(self, number: int, line: bytes, reason: str) -> None:
        self.skipped += 1
        if self.skipped > _MAX_WARNINGS:
            return
        if len(reason) > _MAX_REASON:
            reason = f"{reason[:_MAX_REASON]}..."
        if len(line) == MAX_LINE_BYTES:
            reason = f"the line is longer than {MAX_LINE_BYTES:,} bytes"
        elif not line.endswith(b"\n"):
            reason += ", a line without an end (power cut?)"
        self._problems.append(
            f"{self.path}, line {number}: expected a pose message ({reason}); skipped"
        )


def _parse(line: bytes) -> Recorded:
    message = messages.decode(line)
    Topics(node=message.node).poses(message.camera)
    if message.schema != messages.SCHEMA:
        raise ValueError(f"expected schema {messages.SCHEMA}, got schema {message.schema}")
    captured_s = datetime.fromisoformat(message.captured_at).timestamp()
    return Recorded(message, line.strip(), captured_s)


def with_pauses(recording: Recording) -> Iterator[tuple[float, Recorded]]:
    """Yield every message with the seconds to wait before it, from their `captured_at`.

    A pause counts as MAX_PAUSE_S at most, and if the recorded time steps back (the clock was set,
    or two recordings are in one file), the next message follows at once; the first of these is
    logged. Raises SourceError if the recording cannot be read any more.
    """
    newest_s: float | None = None
    logged = False
    for recorded in recording:
        captured_s = recorded.captured_s
        pause_s = 0.0 if newest_s is None else captured_s - newest_s
        steps_back = pause_s < -_OUT_OF_ORDER_S
        if (steps_back or pause_s > MAX_PAUSE_S) and not logged:
            logged = True
            _log.warning(
                "%s: the recorded time jumps by %.0f s at %s; a pause is replayed for %g s at "
                "most, and a step back at once",
                *(recording.path, pause_s, recorded.message.captured_at, MAX_PAUSE_S),
            )
        newest_s = captured_s if newest_s is None or steps_back else max(newest_s, captured_s)
        yield min(max(pause_s, 0.0), MAX_PAUSE_S), recorded


def replay(
    recording: Recording,
    publish: Callable[[str, bytes], None],
    *,
    speed: float = 1.0,
    base: str = "edgepose",
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Publish every message as it was recorded, on `<base>/<node>/<camera>/poses` of the recording.

    Between two messages pass the seconds of `with_pauses`, divided by `speed`; speed 0 does not
    wait at all. `publish` gets topic and payload. Return how many messages were passed to it;
    raises SourceError if the recording cannot be read any more.
    """
    published = 0
    due_s = monotonic()
    for pause_s, (message, payload, _) in with_pauses(recording):
        if speed:
            due_s += pause_s / speed
            wait_s = min(due_s - monotonic(), _LONGEST_SLEEP_S)
            if wait_s > 0:
                sleep(wait_s)
        publish(Topics(node=message.node, base=base).poses(message.camera), payload)
        published += 1
    return published
