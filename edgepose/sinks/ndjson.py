"""Pose messages as lines of JSON on a stream, such as stdout."""

import select
from io import RawIOBase
from typing import BinaryIO

from edgepose import messages
from edgepose.errors import SinkError
from edgepose.messages import PoseMessage


class NdjsonSink:
    """Writes one line per message, unbuffered, so that a pipe receives every frame at once.

    `stream` is unbuffered; it stays open and belongs to the caller.
    """

    def __init__(self, stream: RawIOBase | BinaryIO) -> None:
        self._stream = stream
        self._unfinished = b""

    def publish(self, message: PoseMessage) -> None:
        """Write a line, waiting for the reader; a line that a full disk cut is completed first.

        Raises BrokenPipeError if the reader closed the stream (`head` does), and SinkError if it
        cannot be written.
        """
        line = messages.encode(message) + b"\n"
        data = self._unfinished + line
        try:
            while data:
                written = self._stream.write(data)
                if written is None:
                    # The program that started this one made the stream non-blocking.
                    select.select([], [self._stream], [])
                data = data[written or 0 :]
        except BrokenPipeError:
            raise
        except OSError as error:
            self._unfinished = data if len(data) < len(line) else data[: -len(line)]
            raise SinkError(
                f"cannot write messages to stdout ({error.strerror}): check its reader, or the "
                "disk behind it"
            ) from error
        self._unfinished = b""

    def close(self) -> None:
        """Do nothing: there is no buffer, and the stream belongs to the caller."""
