"""A recording back onto MQTT, with its own timing."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from edgepose import messages
from edgepose.errors import SourceError, SourceNotFoundError, UsageError
from edgepose.messages import PoseMessage
from edgepose.mqtt.topics import Topics

_log = logging.getLogger(__name__)

MAX_LINE_BYTES: Final = 1_000_000
"""No pose message is that long; a file without line ends must not fill the memory."""
_LONG_WAIT_S: Final = 30.0
_LONGEST_SLEEP_S: Final = 86_400.0
"""The system takes only so long a sleep at once, and a damaged time may be centuries ahead."""
_HOPELESS_LINES: Final = 20
_MAX_COMPLAINTS: Final = 5


@dataclass(frozen=True, slots=True)
class Recorded:
    """One line of a recording: the message, its bytes as they stood, and where."""

    line_number: int
    payload: bytes
    message: PoseMessage
    captured_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the lines of a recording."""

    published: int
    skipped: int


def read_recording(path: Path, complain: Callable[[str], None]) -> Iterator[Recorded]:
    """Yield the messages of a recording; each line that is none goes to `complain` in a sentence.

    Raises SourceNotFoundError or SourceError for a file that cannot be read or is no recording.
    """
    number = good = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                if not line.strip():
                    continue
                try:
                    recorded = _read_line(number, line)
                except _BadLineError as bad:
                    if not good and number >= _HOPELESS_LINES:
                        break
                    complain(f"{path}, line {number}: expected a pose message, {bad}")
                else:
                    good += 1
                    yield recorded
    except FileNotFoundError:
        raise SourceNotFoundError(
            f"{path}: there is no such recording; check the path, or make one with output.record"
        ) from None
    except OSError as error:
        raise SourceError(
            f"{path}: the recording cannot be read ({error.strerror}); expected a file of pose "
            "messages that edgepose may read"
        ) from error
    if not good:
        raise SourceError(
            f"{path}: no pose message in {'it' if number < _HOPELESS_LINES else 'sight'}; "
            "expected a recording of edgepose, one JSON message a line"
        )


class _BadLineError(Exception):
    """A line that is no pose message; the text says why, after a comma."""


def _read_line(number: int, line: bytes) -> Recorded:
    if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
        torn = " (the file ends in the middle of it, as after a power cut)"
    else:
        torn = ""
    try:
        message = messages.decode(line)
        captured_s = datetime.fromisoformat(message.captured_at).timestamp()
        Topics(node=message.node).poses(message.camera)
    except RecursionError:
        raise _BadLineError(f"but it is nested too deeply{torn}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise _BadLineError(f"but {_lower(str(error))}{torn}") from None
    if message.schema != messages.SCHEMA:
        raise _BadLineError(f"of schema {messages.SCHEMA}, got schema {message.schema}")
    return Recorded(number, line.strip(), message, captured_s)


def _lower(text: str) -> str:
    # An acronym stays one.
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def check_recording(path: Path, *, speed: float) -> None:
    """Raise what `replay` would raise, as far as it shows before the first message."""
    _check_speed(speed)
    for _ in read_recording(path, lambda _sentence: None):
        return


def _check_speed(speed: float) -> None:
    if not 0 <= speed < float("inf"):
        raise UsageError(f"speed is 0 or more (1 is as recorded, 0 without waiting), got {speed:g}")


def replay(
    path: Path,
    publish: Callable[[str, bytes], None],
    *,
    speed: float = 1.0,
    base: str = "edgepose",
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Summary:
    """Publish every message as it was recorded, on `<base>/<node>/<camera>/poses` of the recording.

    Between two messages pass the seconds between their `captured_at`, divided by `speed`; speed 0
    does not wait at all. Where the recorded time jumps back (the clock was set, or two recordings
    stand in one file) the next message follows at once. `publish` gets topic and payload.

    Raises UsageError for a negative speed and what `read_recording` raises.
    """
    _check_speed(speed)
    published = skipped = 0

    def complain(sentence: str) -> None:
        nonlocal skipped
        skipped += 1
        if skipped <= _MAX_COMPLAINTS:
            _log.warning("%s; skipped", sentence)

    start_s = 0.0
    first_s: float | None = None
    newest_s = 0.0
    for recorded in read_recording(path, complain):
        if first_s is None or recorded.captured_s < newest_s - 1.0:
            first_s = newest_s = recorded.captured_s
            start_s = monotonic()
        newest_s = max(newest_s, recorded.captured_s)
        if speed:
            wait_s = start_s + (recorded.captured_s - first_s) / speed - monotonic()
            if wait_s > _LONG_WAIT_S:
                _log.warning(
                    "%s, line %d: nothing was recorded for long; going on in %.0f s",
                    path,
                    recorded.line_number,
                    wait_s,
                )
            while wait_s > 0:
                nap_s = min(wait_s, _LONGEST_SLEEP_S)
                sleep(nap_s)
                wait_s -= nap_s
        topics = Topics(node=recorded.message.node, base=base)
        publish(topics.poses(recorded.message.camera), recorded.payload)
        published += 1
    if skipped > _MAX_COMPLAINTS:
        _log.warning("%s: %d damaged lines were skipped in all", path, skipped)
    return Summary(published, skipped)
