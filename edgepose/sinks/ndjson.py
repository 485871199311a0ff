"""Pose messages as lines of JSON on a stream, such as stdout."""

from typing import BinaryIO

from edgepose import messages
from edgepose.errors import SinkError
from edgepose.messages import PoseMessage


class NdjsonSink:
    """Writes one line per message, unbuffered, so that a pipe receives every frame at once.

    `stream` is unbuffered; it stays open and belongs to the caller.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def publish(self, message: PoseMessage) -> None:
        """Write a line; raises SinkError if the reader closed the stream or the disk is full.

        If the reader closed it (`head` does), the error's cause is a BrokenPipeError.
        """
        data = messages.encode(message) + b"\n"
        try:
            while data:
                data = data[self._stream.write(data) or 0 :]
        except BrokenPipeError as error:
            raise SinkError("stdout was closed by the reader; exiting") from error
        except OSError as error:
            raise SinkError(
                f"cannot write messages to stdout ({error.strerror}): check its reader, or the "
                "disk behind it"
            ) from error

    def close(self) -> None:
        """Do nothing: there is no buffer, and the stream belongs to the caller."""
