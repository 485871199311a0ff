"""RTSP streams."""

import logging
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import av
import av.error

from edgepose.clock import boottime_ns
from edgepose.datatypes import Frame
from edgepose.errors import SourceError, SourceLoginError, SourceStalledError
from edgepose.protocols import FrameStream
from edgepose.sources._base import CaptureClock, DamageCounter
from edgepose.sources._video import Video, open_video

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S: Final = 8.0
READ_TIMEOUT_S: Final = 4.0
PROBE_TIMEOUT_S: Final = 3.0
MAX_BACKLOG_MS: Final = 2_000.0
"""A stream decoded this much later than at its best is more than this machine can decode."""
_PORTS: Final = {"rtsp": 554, "rtsps": 322}
_OPTIONS: Final = {
    # UDP loses whole frames on Wi-Fi.
    "rtsp_transport": "tcp",
    "protocol_whitelist": "rtp,tcp,tls",
}


@dataclass
class RtspSource:
    """Reads an RTSP stream over TCP; every wait is bounded."""

    url: str
    description: str
    live = True

    def frames(self) -> FrameStream:
        """Yield frames as they arrive."""
        backlog, clock = BacklogMonitor(self.description), CaptureClock()
        damage = DamageCounter(self.description, live=True)
        with self._open() as video, closing(damage):
            awaited_ns = boottime_ns()
            for sequence, (image, mirrored, time_ns) in enumerate(video.images(damage.add)):
                arrived_ns = clock.stamp()
                # After a timeout FFmpeg first returns a frame that it had kept: one as old as the
                # silence, followed by another timeout.
                if arrived_ns - awaited_ns >= READ_TIMEOUT_S * 1e9:
                    raise self._silent()
                if time_ns is not None:
                    backlog.check(arrived_ns / 1e6, time_ns / 1e6)
                yield Frame(image, arrived_ns, sequence, mirrored=mirrored)
                # The consumer alone holds the frame while the next one is awaited.
                del image
                awaited_ns = boottime_ns()
            if isinstance(video.error, av.error.ExitError):
                raise self._silent()
            raise SourceError(f"{self.description}: the server ended the stream")

    @contextmanager
    def _open(self) -> Iterator[Video]:
        timeouts_s = (OPEN_TIMEOUT_S, READ_TIMEOUT_S)
        try:
            # Every further decoding thread holds a frame back: 39 ms more delay with two.
            with open_video(
                self.url, self.description, options=_OPTIONS, threads=1, timeouts_s=timeouts_s
            ) as video:
                yield video
        # FFmpeg's error contains the URL with its password, so it is no cause in a traceback.
        except (av.HTTPUnauthorizedError, av.HTTPForbiddenError):
            reason = "the server requires a user and a password; set username and password_file"
            if urlsplit(self.url).username:
                reason = "the server does not accept the user and password"
            raise SourceLoginError(f"{self.description}: {reason}") from None
        except av.FFmpegError:
            raise SourceError(f"{self.description}: {_diagnose(self.url)}") from None

    def _silent(self) -> SourceStalledError:
        return SourceStalledError(
            f"{self.description}: the stream is silent since {READ_TIMEOUT_S:.0f} s; check the "
            "camera and the network to it"
        )


class BacklogMonitor:
    """Logs, once, that a stream arrives faster than it can be decoded.

    Frames that wait in between have no timestamp of ours, but make poses late without limit.
    """

    def __init__(self, description: str) -> None:
        self._description = description
        self._best_ms: float | None = None
        self._position_ms = 0.0
        self._logged = False

    def check(self, arrival_ms: float, position_ms: float) -> None:
        """Compare the time of arrival with the position in the stream, both from any start."""
        delay_ms = arrival_ms - position_ms
        if self._best_ms is None or position_ms < self._position_ms or delay_ms < self._best_ms:
            self._best_ms = delay_ms
        self._position_ms = position_ms
        if delay_ms - self._best_ms > MAX_BACKLOG_MS and not self._logged:
            self._logged = True
            log.warning(
                "%s: frames arrive %.0f s late: this machine decodes the stream too slowly or the "
                "network is too slow; choose the camera's smaller stream",
                self._description,
                (delay_ms - self._best_ms) / 1000,
            )


def _diagnose(url: str) -> str:
    """Return why a stream could not be opened, by asking its server: FFmpeg hides the reason."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S) as connection:
            if parts.scheme == "rtsps":
                return "the server accepts connections but its stream cannot be decoded"
            bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            connection.sendall(
                f"DESCRIBE {bare} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n".encode()
            )
            answer = connection.recv(1024).decode("latin-1").partition("\r\n")[0]
    except (socket.gaierror, UnicodeError):
        # UnicodeError: a part of the name is empty or longer than 63 letters.
        return f"unknown host {host}; check the address"
    except ConnectionRefusedError:
        return f"nothing at {host} listens on port {port}; check the address and the port"
    except TimeoutError:
        return (
            f"{host} does not answer on port {port} within {PROBE_TIMEOUT_S:.0f} s; check that the "
            "camera is on and in this network"
        )
    except OSError as error:
        return f"cannot reach {host} on port {port}: {error.strerror}"
    status = answer.partition(" ")[2][:3] if answer.startswith("RTSP/") else ""
    match status:
        case "404" | "454":
            return "the server has no stream of that name; see the camera's manual for its path"
        case "200" | "401":
            return "the server answers, but its stream has no video that can be decoded"
        case "":
            return f"the server on port {port} of {host} is not an RTSP server"
        case _:
            return f"the server answers {answer!r}"
