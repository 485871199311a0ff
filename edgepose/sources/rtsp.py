"""RTSP streams, through OpenCV's FFmpeg."""

import logging
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import cv2

from edgepose.clock import boottime_ns
from edgepose.datatypes import Image
from edgepose.errors import SourceError, SourceStalledError
from edgepose.protocols import FrameStream
from edgepose.sources._base import camera_frames
from edgepose.sources._opencv import open_capture, read_rgb

log = logging.getLogger(__name__)

OPEN_TIMEOUT_MS: Final = 8_000
READ_TIMEOUT_MS: Final = 4_000
PROBE_TIMEOUT_S: Final = 3.0
MAX_BACKLOG_MS: Final = 2_000.0
"""A stream decoded this much later than at its best is more than this machine can decode."""
_PORTS: Final = {"rtsp": 554, "rtsps": 322}


@dataclass
class RtspSource:
    """Reads an RTSP stream over TCP; every wait is bounded."""

    url: str
    description: str
    live = True

    def frames(self) -> FrameStream:
        """Yield frames as they arrive."""
        parameters = {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: OPEN_TIMEOUT_MS,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: READ_TIMEOUT_MS,
            # Every further decoding thread holds a frame back: 39 ms more delay with two.
            cv2.CAP_PROP_N_THREADS: 1,
        }
        with open_capture(self.url, cv2.CAP_FFMPEG, parameters) as capture:
            if not capture.isOpened():
                raise SourceError(f"{self.description}: {_diagnose(self.url)}")
            backlog = BacklogMonitor(self.description)
            yield from camera_frames(lambda: self._read(capture, backlog))

    def _read(self, capture: cv2.VideoCapture, backlog: "BacklogMonitor") -> tuple[Image, None]:
        started_ns = boottime_ns()
        image = read_rgb(capture)
        arrived_ns = boottime_ns()
        waited_ms = (arrived_ns - started_ns) // 1_000_000
        # After a timeout FFmpeg may first return a frame that its decoder had kept: one as old as
        # the silence, followed by another timeout.
        if waited_ms >= READ_TIMEOUT_MS or (image is None and waited_ms >= READ_TIMEOUT_MS // 2):
            raise SourceStalledError(
                f"{self.description}: the stream is silent since {waited_ms / 1000:.0f} s; "
                "check the camera and the network to it"
            )
        if image is None:
            raise SourceError(f"{self.description}: the server ended the stream")
        backlog.check(arrived_ns / 1e6, capture.get(cv2.CAP_PROP_POS_MSEC))
        return image, None


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
    """Return why a stream could not be opened, by asking its server: OpenCV hides the reason."""
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
        case "401" | "403" if parts.username:
            return "the server does not accept the user and password in the URL"
        case "401" | "403":
            return "the server requires a user and a password: rtsp://user:password@host/..."
        case "404" | "454":
            return "the server has no stream of that name; see the camera's manual for its path"
        case "200":
            return "the server answers, but its stream has no video that can be decoded"
        case "":
            return f"the server on port {port} of {host} is not an RTSP server"
        case _:
            return f"the server answers {answer!r}"
