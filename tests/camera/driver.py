"""The virtual camera, controlled by a test, and `edgepose run` reading it."""

import json
import signal
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose import messages
from edgepose.messages import PoseMessage
from edgepose.sources.synthetic import SyntheticSource
from tests.camera.debian import Debian
from tests.chroot import TEST_FOLDER
from tests.mosquitto import Listener, Mosquitto, wait_for

NODE: Final = "edgepose/testnode"
CAMERA: Final = f"{NODE}/main"
IMAGES: Final = 16
REPEATED: Final = 4
"""How many frames of libcamera's virtual camera show the same image."""

Image = NDArray[np.uint8]

_CAMERA: Final = """\
"Virtual{number}":
  supported_formats:
  - width: 640
    height: 480
    frame_rates: [30]
  - width: 320
    height: 240
    frame_rates: [30]
  frames:
    path: "/test/images/"
  location: "CameraLocationFront"
  model: "virtual"
"""


class VirtualCamera:
    """A test's folder: the camera's configuration, its images and its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "images").mkdir()
        source = SyntheticSource(fps=30 / REPEATED, live=False)
        there = [frame.image for frame in islice(source.frames(), IMAGES // 2 + 1)]
        # And back again: at a jump in the motion, the person would be another one.
        self.show([*there, *reversed(there[1:-1])])
        self.command("run 30")
        self.plug()

    def show(self, images: list[Image]) -> None:
        """Set the RGB images of the camera, which are read when libcamera starts."""
        for path in (self.folder / "images").iterdir():
            path.unlink()
        for number, image in enumerate(images):
            path = self.folder / "images" / f"{number:03}.jpg"
            assert cv2.imwrite(str(path), _as_filmed(image), [cv2.IMWRITE_JPEG_QUALITY, 100])

    def plug(self, cameras: int = 1) -> None:
        """Set how many cameras libcamera finds, all with the same images."""
        path = self.folder / "cameras.yaml"
        path.write_text("".join(_CAMERA.format(number=number) for number in range(cameras)))
        if not cameras:
            path.unlink()

    def command(self, words: str) -> None:
        """Set the camera's behaviour from now on (see inside/faults.c)."""
        fresh = self.folder / "command.new"
        fresh.write_text(words)
        fresh.rename(self.folder / "command")


def _as_filmed(rgb: Image) -> Image:
    """Return the BGR image whose JPEG has the Y, Cb, Cr that a camera would deliver for `rgb`.

    The virtual camera delivers the values of the JPEG, which are BT.601 in full range, and reports
    them as BT.709 in limited range.
    """
    red, green, blue = (rgb[..., channel] / 255.0 for channel in range(3))
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    filmed = np.stack(
        (
            16 + 219 * luma,
            128 + 224 * (red - luma) / (2 * (1 - 0.2126)),
            128 + 224 * (blue - luma) / (2 * (1 - 0.0722)),
        ),
        axis=-1,
    )
    ycrcb: Image = np.rint(filmed).astype(np.uint8)
    return cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2BGR).astype(np.uint8, copy=False)


class Holder:
    """Another program that uses the camera until it is released."""

    def __init__(self, debian: Debian, camera: VirtualCamera) -> None:
        self._log = (camera.folder / "holder.log").open("a")
        self._process = debian.python(
            camera.folder,
            "-c",
            "from picamera2 import Picamera2; camera = Picamera2(0); camera.start('video'); "
            "camera.capture_array(); print('acquired', flush=True); input(); camera.close()",
            log=self._log,
        )

    def acquired(self) -> bool:
        """Wait until it has the camera; False if it could not open it."""
        assert self._process.stdout is not None
        return self._process.stdout.readline() == "acquired\n"

    def release(self) -> None:
        """Release the camera and end."""
        self._process.communicate("\n", timeout=20)
        self._log.close()


class Daemon:
    """`edgepose run --source picamera:0` as a process in the chroot."""

    def __init__(
        self,
        debian: Debian,
        camera: VirtualCamera,
        broker: Mosquitto,
        *,
        source: str = "picamera:0",
        config: str = "",
        settings: tuple[str, ...] = (),
    ) -> None:
        self._log = camera.folder / "daemon.log"
        # Measuring the number of threads would change their number during a test.
        (camera.folder / "config.yaml").write_text(
            f"node: testnode\nstate_directory: {TEST_FOLDER}/state\nstats_interval_s: 1\n"
            f"inference: {{threads: 1}}\n{config}"
        )
        with self._log.open("a") as log:
            self.process = debian.python(
                camera.folder,
                *("-m", "edgepose", "run", "-c", f"{TEST_FOLDER}/config.yaml"),
                *(("--source", source) if source else ()),
                *("--mqtt", f"mqtt://127.0.0.1:{broker.port}"),
                log=log,
                settings=settings,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    @property
    def log(self) -> str:
        """The output on stderr until now."""
        return self._log.read_text()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; return the exit code and how many seconds it took."""
        start = time.monotonic()
        self.process.send_signal(number)
        return self.wait(), time.monotonic() - start

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(30)

    def resources(self) -> dict[str, int]:
        """Return the number of threads, and of file descriptors by kind, to detect leaks.

        Read until two in succession are equal: the statistics open files for a moment.
        """
        before: dict[str, int] = {}
        while (now := self._resources()) != before:
            before = now
            time.sleep(0.2)
        return now

    def _resources(self) -> dict[str, int]:
        process = Path(f"/proc/{self.process.pid}")
        kinds: dict[str, int] = {"threads": len(list((process / "task").iterdir()))}
        for descriptor in (process / "fd").iterdir():
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            kind = target.split(":")[0].split("/")[-1]
            kinds[kind] = kinds.get(kind, 0) + 1
        return kinds


class Subscriber:
    """The messages of the camera as a subscriber receives them."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def last(self, topic: str) -> bytes | None:
        """Return the last payload of a topic."""
        payloads = self._listener.payloads(topic)
        return payloads[-1] if payloads else None

    def wait_for(self, topic: str, *payloads: bytes, patience_s: float = 20.0) -> None:
        """Wait until the last payload of a topic is one of these."""
        wait_for(lambda: self.last(topic) in payloads, f"{payloads!r} on {topic}", patience_s)

    def poses(self) -> list[PoseMessage]:
        """Return all pose messages."""
        return [messages.decode(payload) for payload in self._listener.payloads(f"{CAMERA}/poses")]

    def wait_for_poses(self, count: int = 5, patience_s: float = 20.0) -> None:
        """Wait for so many further messages, the last of them with a pose."""
        before = len(self._listener.payloads(f"{CAMERA}/poses"))

        def came() -> bool:
            payloads = self._listener.payloads(f"{CAMERA}/poses")
            return len(payloads) >= before + count and bool(messages.decode(payloads[-1]).poses)

        wait_for(came, "poses", patience_s)

    def stats(self) -> dict[str, Any]:
        """Return the camera's part of the last stats message."""
        payload = self.last(f"{NODE}/stats")
        cameras: dict[str, dict[str, Any]] = json.loads(payload)["cameras"] if payload else {}
        return cameras.get("main", {})

    def next_stats(self) -> dict[str, Any]:
        """Return the camera's part of the stats message after the next, all of it from now on."""
        before = len(self._listener.payloads(f"{NODE}/stats"))
        wait_for(lambda: len(self._listener.payloads(f"{NODE}/stats")) >= before + 2, "two stats")
        return self.stats()


class Timings:
    """How long faults took to be noticed and to end."""

    def __init__(self) -> None:
        self._noticed: dict[str, list[float]] = {}
        self._recovered: dict[str, list[float]] = {}

    def noticed(self, fault: str, since: float) -> float:
        """Record that a fault was noticed now; return the seconds since its start."""
        seconds = time.monotonic() - since
        self._noticed.setdefault(fault, []).append(seconds)
        return seconds

    def recovered(self, fault: str, since: float) -> float:
        """Record that poses arrive again now; return the seconds since the end of the fault."""
        seconds = time.monotonic() - since
        self._recovered.setdefault(fault, []).append(seconds)
        return seconds

    def lines(self) -> list[str]:
        """Return a table."""
        faults = list(dict.fromkeys((*self._noticed, *self._recovered)))
        lines = [f"{'fault':<52} {'noticed':>14} {'recovered':>14}"]
        for fault in faults:
            cells = [_summary(by.get(fault, [])) for by in (self._noticed, self._recovered)]
            lines.append(f"{fault:<52} {cells[0]:>14} {cells[1]:>14}")
        return lines


def _summary(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    if len(seconds) == 1:
        return f"{seconds[0]:.1f}"
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})"
