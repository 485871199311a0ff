"""Pose messages as lines of JSON on a stream, such as stdout."""

from typing import BinaryIO

from edgepose import messages
from edgepose.errors import SinkError
from edgepose.messages import PoseMessage


class NdjsonSink:
    """Writes one line a message and flushes it, so that a pipe sees every frame at once.

    The stream stays open; it belongs to whoever opened it.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._closed = False

    def publish(self, message: PoseMessage) -> None:
        """Write a line; raises SinkError where nobody reads any more or the disk is full.

        Behind a reader that left (`head` does), the error's cause is a BrokenPipeError.
        """
        if self._closed:
            return
        try:
            self._stream.write(messages.encode(message) + b"\n")
            self._stream.flush()
        except BrokenPipeError as error:
            self._closed = True
            raise SinkError("whoever read the messages from stdout left; ending") from error
        except OSError as error:
            self._closed = True
            raise SinkError(
                f"the messages cannot be written to stdout ({error.strerror}): check what reads "
                "it, or the disk behind it"
            ) from error

    def close(self) -> None:
        """Write nothing more; closing twice is fine."""
        self._closed = True
