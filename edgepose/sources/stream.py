"""Video files and RTSP streams, through OpenCV's FFmpeg."""

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import cv2

from edgepose.clock import boottime_ns
from edgepose.datatypes import Frame
from edgepose.errors import SourceError, SourceNotFoundError, SourceStalledError
from edgepose.sources._base import CaptureClock, Pacer
from edgepose.sources._opencv import open_capture, read_rgb
from edgepose.util.resource import Resource

log = logging.getLogger(__name__)

DEFAULT_FPS: Final = 30.0
OPEN_TIMEOUT_MS: Final = 8_000
READ_TIMEOUT_MS: Final = 4_000
PROBE_TIMEOUT_S: Final = 3.0
MAX_BACKLOG_MS: Final = 2_000.0
"""A stream that is decoded this much later than it was at its best is more than we can decode."""
MAX_STEP_NS: Final = 60_000_000_000
COMPLETE: Final = 0.95
"""A file that has less than this part of what it should have is worth a warning."""
_PORTS: Final = {"rtsp": 554, "rtsps": 322}


class VideoFileSource(Resource):
    """Plays a video file, losing no frame.

    Frames carry media time from the moment the file was opened, so what follows sees the rate of
    the recording however fast it is read; `realtime` also waits for it. `loop` starts again at the
    end, with time running on. With `realtime` the source is live: frames that nobody takes in time
    are dropped. A file that is turned by its metadata arrives upright.
    """

    def __init__(self, path: Path, *, realtime: bool = False, loop: bool = False) -> None:
        self.live = realtime
        self.description = str(path)
        self._path = path
        self._loop = loop
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Open the file; raises SourceNotFoundError or SourceError."""
        self._open_file()

    def _open_file(self) -> cv2.VideoCapture:
        path = self._path
        try:
            if path.exists() and not path.is_file():
                # FFmpeg would wait for a pipe for ever.
                raise SourceError(f"{path}: expected a picture or a video, this is not a file")
            with path.open("rb") as file:
                if not file.read(1):
                    raise SourceError(f"{path}: expected a video, the file is empty")
        except FileNotFoundError as error:
            raise SourceNotFoundError(f"{path}: no such file") from error
        except SourceError:
            raise
        except OSError as error:
            raise SourceError(f"{path}: cannot read the file: {error.strerror}") from error
        self.close()
        # Made absolute, since FFmpeg takes `name:` at the beginning of a path for a protocol.
        capture = open_capture(str(path.absolute()), cv2.CAP_FFMPEG, [])
        self._capture = capture
        if not capture.isOpened():
            self.close()
            raise SourceError(
                f"{path}: expected a picture or a video that FFmpeg can read, got another kind of "
                "file or one that is damaged or cut short"
            )
        # Off by default in OpenCV 4.11, and refused among the parameters.
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        return capture

    def close(self) -> None:
        """Close the file."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def frames(self) -> Iterator[Frame]:
        """Yield every frame; raises SourceError where the file holds none."""
        capture = self._opened()
        fps = capture.get(cv2.CAP_PROP_FPS)
        interval_ns = round(1e9 / (fps if 0.1 <= fps <= 1000 else DEFAULT_FPS))
        pacer = Pacer()
        media_ns = -interval_ns
        base_ns: int | None = None
        sequence = in_pass = 0
        while True:
            image = read_rgb(capture)
            if image is None:
                if in_pass == 0:
                    raise SourceError(f"{self._path}: expected a video, no frame in it decodes")
                if sequence == in_pass:
                    self._warn_if_cut_short(capture, in_pass, media_ns + interval_ns)
                if not self._loop:
                    return
                # Not sought, which not every container can; what it holds is known by now.
                capture = self._open_file()
                base_ns = None
                in_pass = 0
                continue
            position_ns = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
            if base_ns is None:
                base_ns = position_ns - media_ns - interval_ns
            # Some containers leave the position where it is, damaged ones let it leap.
            step_ns = position_ns - base_ns - media_ns
            media_ns += step_ns if 0 < step_ns <= MAX_STEP_NS else interval_ns
            if self.live:
                pacer.wait_for(media_ns)
            yield Frame(image, pacer.start_ns + media_ns, sequence, path=str(self._path))
            # While the next one is decoded, this one belongs to whoever took it.
            del image
            sequence += 1
            in_pass += 1

    def _opened(self) -> cv2.VideoCapture:
        if self._capture is None:
            raise SourceError(f"{self._path}: read before it was opened")
        return self._capture

    def _warn_if_cut_short(self, capture: cv2.VideoCapture, count: int, length_ns: int) -> None:
        """Say that frames are missing, where neither their number nor their time is as told."""
        told_count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        told_fps = capture.get(cv2.CAP_PROP_FPS)
        told_ns = told_count / told_fps * 1e9 if told_fps > 0 else 0.0
        if count < COMPLETE * told_count and length_ns < COMPLETE * told_ns:
            log.warning(
                "%s: the video should have about %d frames but ends after %d; the file is damaged "
                "or cut short",
                self._path,
                told_count,
                count,
            )


class RtspSource(Resource):
    """Reads an RTSP stream over TCP; every wait is bounded."""

    live = True

    def __init__(self, url: str, *, description: str) -> None:
        self.description = description
        self._url = url
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Connect; raises SourceError where the stream does not start in time, and why."""
        # The only way to choose FFmpeg's transport through OpenCV; UDP loses whole frames on Wi-Fi.
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
        self._capture = open_capture(
            self._url,
            cv2.CAP_FFMPEG,
            [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                OPEN_TIMEOUT_MS,
                cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                READ_TIMEOUT_MS,
                # Every further decoding thread holds a frame back: 39 ms more delay with two.
                cv2.CAP_PROP_N_THREADS,
                1,
            ],
        )
        if not self._capture.isOpened():
            self.close()
            raise SourceError(f"{self.description}: {_why_not(self._url)}")

    def close(self) -> None:
        """Disconnect."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def frames(self) -> Iterator[Frame]:
        """Yield frames as they arrive; raises SourceStalledError where the stream falls silent.

        SourceError where the server ends it.
        """
        clock = CaptureClock()
        backlog = _Backlog(self.description)
        sequence = 0
        while self._capture is not None:
            asked_ns = boottime_ns()
            image = read_rgb(self._capture)
            waited_ms = (boottime_ns() - asked_ns) // 1_000_000
            # After a timeout FFmpeg may first hand out a frame that its decoder had kept: one as
            # old as the silence, which another timeout would follow.
            if waited_ms >= READ_TIMEOUT_MS or (
                image is None and waited_ms >= READ_TIMEOUT_MS // 2
            ):
                raise SourceStalledError(
                    f"{self.description}: the stream is silent since {waited_ms / 1000:.0f} s; "
                    "check the camera and the network to it"
                )
            if image is None:
                raise SourceError(f"{self.description}: the server ended the stream")
            timestamp_ns = clock.stamp()
            backlog.check(timestamp_ns / 1e6, self._capture.get(cv2.CAP_PROP_POS_MSEC))
            yield Frame(image, timestamp_ns, sequence)
            # While the next one is awaited, this one belongs to whoever took it.
            del image
            sequence += 1


class _Backlog:
    """Notices, once, that a stream arrives faster than it can be decoded.

    What waits in between shows in no timestamp of ours, but makes poses late without limit.
    """

    def __init__(self, description: str) -> None:
        self._description = description
        self._best_ms: float | None = None
        self._position_ms = 0.0
        self._told = False

    def check(self, arrival_ms: float, position_ms: float) -> None:
        """Compare the time since the stream's own first frame with the time on our clock."""
        delay_ms = arrival_ms - position_ms
        if self._best_ms is None or position_ms < self._position_ms or delay_ms < self._best_ms:
            self._best_ms = delay_ms
        self._position_ms = position_ms
        if delay_ms - self._best_ms > MAX_BACKLOG_MS and not self._told:
            self._told = True
            log.warning(
                "%s: frames are seen %.0f s late, since this machine cannot decode the stream as "
                "fast as it comes or the network is too slow; choose the camera's smaller stream",
                self._description,
                (delay_ms - self._best_ms) / 1000,
            )


def _why_not(url: str) -> str:
    """Ask the server of a stream that could not be opened, since OpenCV keeps the reason."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S) as connection:
            if parts.scheme == "rtsps":
                return "the server takes the connection but delivers no stream that can be decoded"
            bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            connection.sendall(
                f"DESCRIBE {bare} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n".encode()
            )
            answer = connection.recv(1024).decode("latin-1").partition("\r\n")[0]
    except (socket.gaierror, UnicodeError):
        # UnicodeError: a part of the name is empty or longer than 63 letters.
        return f"no host is called {host}; check the address"
    except ConnectionRefusedError:
        return f"nothing at {host} listens on port {port}; check the address and the port"
    except TimeoutError:
        return (
            f"{host} does not answer on port {port} within {PROBE_TIMEOUT_S:.0f} s; is the camera "
            "on, and in this network?"
        )
    except OSError as error:
        return f"cannot reach {host} on port {port}: {error.strerror}"
    status = answer.partition(" ")[2][:3] if answer.startswith("RTSP/") else ""
    match status:
        case "401" | "403" if parts.username:
            return "the server does not accept the user and password in the URL"
        case "401" | "403":
            return "the server wants a user and a password: rtsp://user:password@host/..."
        case "404" | "454":
            return "the server has no stream of that name; see the camera's manual for its path"
        case "200":
            return "the server answers, but its stream has no video that can be decoded"
        case "":
            return f"what listens on port {port} of {host} is no RTSP server"
        case _:
            return f"the server answers {answer!r}"
