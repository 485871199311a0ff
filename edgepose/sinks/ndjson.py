"""Pose messages as lines of JSON on a stream, such as stdout."""

from typing import Protocol

from edgepose import messages
from edgepose.errors import SinkError
from edgepose.messages import PoseMessage


class RawStream(Protocol):
    """An unbuffered stream: `write` returns how many bytes it took."""

    def write(self, data: bytes, /) -> int | None:
        """Write some bytes."""
        ...


class NdjsonSink:
    """Writes one line per message, unbuffered, so that a pipe receives every frame at once.

    The stream stays open; it belongs to the caller.
    """

    def __init__(self, stream: RawStream) -> None:
        self._stream = stream
        self._closed = False

    def publish(self, message: PoseMessage) -> None:
        """Write a line; raises SinkError if the reader closed the stream or the disk is full.

        If the reader closed it (`head` does), the error's cause is a BrokenPipeError.
        """
        if self._closed:
            return
        data = messages.encode(message) + b"\n"
        try:
            while data:
                data = data[self._stream.write(data) or 0 :]
        except BrokenPipeError as error:
            self._closed = True
            raise SinkError("stdout was closed by the reader; exiting") from error
        except OSError as error:
            self._closed = True
            raise SinkError(
                f"cannot write messages to stdout ({error.strerror}): check its reader, or the "
                "disk behind it"
            ) from error

    def close(self) -> None:
        """Write nothing more; closing twice is fine."""
        self._closed = True
