"""A recording back onto MQTT, with its own timing."""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from edgepose import messages
from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.messages import PoseMessage
from edgepose.mqtt.topics import Topics

_log = logging.getLogger(__name__)

MAX_LINE_BYTES: Final = 1_000_000
"""No pose message is that long; a file without line ends must not fill the memory."""
_LONG_WAIT_S: Final = 30.0
_LONGEST_WAIT_S: Final = 86_400.0
"""A damaged time may be centuries ahead."""
_MAX_INVALID_AT_START: Final = 20
_MAX_WARNINGS: Final = 5
_INVALID: Final = (msgspec.DecodeError, ValueError, OverflowError, RecursionError)


def read_recording(
    path: Path, report: Callable[[str], None]
) -> Iterator[tuple[PoseMessage, bytes, float]]:
    """Yield each message of a recording with its bytes and the seconds of `captured_at`.

    `report` gets a text for each line that is invalid.
    Raises SourceNotFoundError or SourceError for a file that cannot be read or is no recording.
    """
    number = valid = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                if not line.strip():
                    continue
                try:
                    recorded = _parse(line)
                except _INVALID as error:
                    if not valid and number >= _MAX_INVALID_AT_START:
                        break
                    torn = "" if line.endswith(b"\n") else ", a line without an end (power cut?)"
                    report(f"{path}, line {number}: expected a pose message ({error}){torn}")
                else:
                    valid += 1
                    yield recorded
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
            f"{path}: no pose message found; expected a recording of edgepose, one JSON message a "
            "line"
        )


def _parse(line: bytes) -> tuple[PoseMessage, bytes, float]:
    message = messages.decode(line)
    Topics(node=message.node).poses(message.camera)
    if message.schema != messages.SCHEMA:
        raise ValueError(f"expected schema {messages.SCHEMA}, got schema {message.schema}")
    captured_s = datetime.fromisoformat(message.captured_at).timestamp()
    return message, line.strip(), captured_s


def replay(
    path: Path,
    publish: Callable[[str, bytes], None],
    *,
    speed: float = 1.0,
    base: str = "edgepose",
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[int, int]:
    """Publish every message as it was recorded, on `<base>/<node>/<camera>/poses` of the recording.

    Between two messages pass the seconds between their `captured_at`, divided by `speed`; speed 0
    does not wait at all. If the recorded time jumps back (the clock was set, or two recordings are
    in one file), the next message follows at once. `publish` gets topic and payload. Return how
    many messages were published and how many lines skipped; raises what `read_recording` raises.
    """
    published = skipped = 0

    def report(problem: str) -> None:
        nonlocal skipped
        skipped += 1
        if skipped <= _MAX_WARNINGS:
            _log.warning("%s; skipped", problem)

    start_s = first_s = 0.0
    newest_s = float("inf")
    for message, payload, captured_s in read_recording(path, report):
        if captured_s < newest_s - 1.0:
            start_s = monotonic()
            first_s = newest_s = captured_s
        newest_s = max(newest_s, captured_s)
        if speed:
            due_s = start_s + (captured_s - first_s) / speed
            wait_s = min(due_s - monotonic(), _LONGEST_WAIT_S)
            if wait_s > _LONG_WAIT_S:
                _log.warning("%s: nothing was recorded for long; next in %.0f s", path, wait_s)
            if wait_s > 0:
                sleep(wait_s)
        publish(Topics(node=message.node, base=base).poses(message.camera), payload)
        published += 1
    if skipped > _MAX_WARNINGS:
        _log.warning("%s: %d invalid lines were skipped in all", path, skipped)
    return published, skipped
