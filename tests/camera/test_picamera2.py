"""`edgepose run --source picamera:0` with the real picamera2 and libcamera.

Not real are the sensor, whose images come from libcamera's virtual camera, and its faults, which
tests/camera/inside/faults.c injects into the camera's thread and device.
"""

import json
import time
from datetime import datetime
from itertools import pairwise

import cv2
import numpy as np
import pytest

from tests.camera.debian import Debian
from tests.camera.driver import CAMERA, NODE, Daemon, Holder, Subscriber, Timings, VirtualCamera
from tests.chroot import TEST_FOLDER
from tests.media import BLUE, GREEN, GREY, RED, assert_colours, quarters
from tests.mosquitto import Listener, Mosquitto, wait_for

pytestmark = [pytest.mark.camera, pytest.mark.timeout(180)]

NOTICED_S = 5.0
RECOVERED_S = 5.0


@pytest.fixture
def subscriber(listener: Listener) -> Subscriber:
    """Return the camera's messages as a subscriber receives them."""
    return Subscriber(listener)


def test_daemon_poses_of_camera(
    debian: Debian,
    camera: VirtualCamera,
    broker: Mosquitto,
    subscriber: Subscriber,
    timings: Timings,
) -> None:
    """The daemon publishes tracked poses with plausible times, and ends on SIGTERM."""
    start = time.monotonic()
    with Daemon(debian, camera, broker) as daemon:
        subscriber.wait_for_poses()
        timings.recovered("started", start)
        subscriber.wait_for(f"{CAMERA}/status", b"online")
        subscriber.wait_for(f"{CAMERA}/presence", b"ON")
        subscriber.wait_for(f"{CAMERA}/count", b"1")
        subscriber.wait_for_poses(60)
        code, seconds = daemon.end()
        assert (code, seconds < 5) == (0, True), daemon.log
        assert "Traceback" not in daemon.log
    with_poses = [message for message in subscriber.poses() if message.poses]
    assert {(message.frame.width, message.frame.height) for message in with_poses} == {(640, 480)}
    assert len({pose.id for message in with_poses for pose in message.poses}) == 1
    # The virtual camera takes a frame's time when its buffer is queued: the first four are one.
    with_poses = [message for message in with_poses if message.sequence >= 4]
    captured = [datetime.fromisoformat(message.captured_at) for message in with_poses]
    published = [datetime.fromisoformat(message.published_at) for message in with_poses]
    ages = [(b - a).total_seconds() for a, b in zip(captured, published, strict=True)]
    # Four frames from queue to frame, and the time of inference.
    assert min(ages) > 0
    assert sorted(ages)[len(ages) // 2] < 0.3
    steps = [(b - a).total_seconds() for a, b in pairwise(captured)]
    assert min(steps) > 0
    assert 0.02 < sorted(steps)[len(steps) // 2] < 0.1


@pytest.mark.parametrize("stream", ["main", "lores"])
def test_picamera_colours_and_timestamps(
    debian: Debian, camera: VirtualCamera, stream: str
) -> None:
    """Frames of both streams have true colours and recent timestamps."""
    camera.show([quarters(640, 480)])
    script = f"""
import json, cv2
from edgepose.clock import boottime_ns
from edgepose.sources.picamera import PicameraSource
ages = []
for frame in PicameraSource(0, stream={stream!r}, fps=30).frames():
    ages.append(boottime_ns() - frame.timestamp_ns)
    if frame.sequence == 20:
        break
cv2.imwrite("{TEST_FOLDER}/frame.png", frame.image)
print(json.dumps(ages))
"""
    with (camera.folder / "source.log").open("w+") as log:
        process = debian.python(camera.folder, "-c", script, log=log)
        stdout, _ = process.communicate(timeout=60)
        assert process.returncode == 0, (camera.folder / "source.log").read_text()
    # cv2.imwrite and imread cancel out: red and blue are as they left the source.
    image = cv2.imread(str(camera.folder / "frame.png"))
    assert image is not None
    assert image.shape == (480, 640, 3)
    assert_colours(image.astype(np.uint8, copy=False), [RED, GREEN, BLUE, GREY], tolerance=4)
    ages_ms = [age / 1e6 for age in json.loads(stdout)]
    assert min(ages_ms) > 0
    assert max(ages_ms) < 1000


def test_daemon_repeated_stalls(
    debian: Debian,
    camera: VirtualCamera,
    broker: Mosquitto,
    subscriber: Subscriber,
    timings: Timings,
) -> None:
    """A stall is reported and ends, repeatedly, without a leak, and is logged once in 30 s.

    A camera that stalls for the fourth time would be opened less often.
    """
    with Daemon(debian, camera, broker) as daemon:
        subscriber.wait_for_poses()
        before: dict[str, int] = {}
        for round_ in range(3):
            start = time.monotonic()
            camera.command("silent")
            subscriber.wait_for(f"{CAMERA}/status", b"stalled")
            assert timings.noticed("no more frames", start) < NOTICED_S
            subscriber.wait_for(f"{CAMERA}/presence", b"OFF")
            subscriber.wait_for(f"{CAMERA}/count", b"0")
            # States are sent first, so the empty message may arrive a moment after them.
            wait_for(lambda: subscriber.poses()[-1].poses == [], "the message without poses")
            start = time.monotonic()
            camera.command("run 30")
            subscriber.wait_for_poses(1)
            assert timings.recovered("no more frames", start) < RECOVERED_S
            subscriber.wait_for(f"{CAMERA}/status", b"online")
            subscriber.wait_for(f"{CAMERA}/presence", b"ON")
            if round_ == 0:
                before = daemon.resources()
        assert daemon.resources() == before
        assert daemon.log.count("no frame for 3 s") == 1
        assert daemon.log.count("delivers frames again") == 1
        assert subscriber.next_stats()["fps"] > 15
        assert daemon.end()[0] == 0
        assert "Traceback" not in daemon.log


def test_daemon_short_stalls(
    debian: Debian, camera: VirtualCamera, broker: Mosquitto, subscriber: Subscriber
) -> None:
    """The camera is not reopened; jobs that timed out do not keep its four buffers."""
    with Daemon(debian, camera, broker) as daemon:
        subscriber.wait_for_poses()
        before = daemon.resources()
        for _ in range(6):
            camera.command("silent")
            time.sleep(1.4)
            camera.command("run 30")
            subscriber.wait_for_poses(20)
        assert subscriber.next_stats()["fps"] > 15
        assert subscriber.stats()["reopened"] == 0
        assert daemon.resources() == before
        assert subscriber.last(f"{CAMERA}/status") == b"online"


def test_daemon_long_stall(
    debian: Debian,
    camera: VirtualCamera,
    broker: Mosquitto,
    subscriber: Subscriber,
    timings: Timings,
) -> None:
    """Poses return within seconds after half a minute without frames."""
    with Daemon(debian, camera, broker):
        subscriber.wait_for_poses()
        camera.command("silent")
        subscriber.wait_for(f"{CAMERA}/status", b"stalled")
        time.sleep(26)
        start = time.monotonic()
        camera.command("run 30")
        subscriber.wait_for_poses(1)
        # Two attempts are at most 4.8 s apart.
        assert timings.recovered("no frames for half a minute", start) < RECOVERED_S + 1


def test_daemon_camera_fails_and_recovers(
    debian: Debian,
    camera: VirtualCamera,
    broker: Mosquitto,
    subscriber: Subscriber,
    timings: Timings,
) -> None:
    """The device accepts no buffers, which ends picamera2's event loop, and does not restart."""
    with Daemon(debian, camera, broker) as daemon:
        subscriber.wait_for_poses()
        before: dict[str, int] = {}
        for round_ in range(3):
            start = time.monotonic()
            camera.command("broken")
            subscriber.wait_for(f"{CAMERA}/status", b"stalled", b"offline")
            assert timings.noticed("camera fails", start) < NOTICED_S
            time.sleep(2.5)
            start = time.monotonic()
            camera.command("run 30")
            subscriber.wait_for_poses(1)
            timings.recovered("camera fails", start)
            if round_ == 1:
                before = daemon.resources()
        assert daemon.resources() == before
        assert daemon.end()[0] == 0


def test_daemon_start_without_camera(
    debian: Debian, camera: VirtualCamera, broker: Mosquitto
) -> None:
    """The daemon exits with 1 and one line with the reason."""
    camera.plug(cameras=0)
    with Daemon(debian, camera, broker) as daemon:
        assert daemon.wait() == 1
        message = daemon.log.splitlines()[-1]
        assert message.startswith("edgepose: picamera:0: no such camera; libcamera finds 0 of them")
        assert "Traceback" not in daemon.log


def test_picamera_camera_added_later(debian: Debian, camera: VirtualCamera) -> None:
    """In the same process, although libcamera caches its list of cameras.

    The virtual camera is enumerated again only if there was one before: the second is added.
    """
    script = """
from edgepose.errors import SourceNotFoundError
from edgepose.sources.picamera import PicameraSource
for _ in range(2):
    try:
        next(PicameraSource(1).frames())
    except SourceNotFoundError as error:
        print(error, flush=True)
input()
print(next(PicameraSource(1).frames()).size_wh)
"""
    with (camera.folder / "source.log").open("w") as log:
        process = debian.python(camera.folder, "-c", script, log=log)
        assert process.stdout is not None
        for _ in range(2):
            assert "libcamera finds 1 of them" in process.stdout.readline()
        camera.plug(cameras=2)
        stdout, _ = process.communicate("\n", timeout=30)
    assert stdout == "(640, 480)\n", (camera.folder / "source.log").read_text()


def test_daemon_start_with_busy_camera(
    debian: Debian, camera: VirtualCamera, broker: Mosquitto
) -> None:
    """The daemon exits with 1 and the reason, and works once the camera is free."""
    holder = Holder(debian, camera)
    assert holder.acquired()
    with Daemon(debian, camera, broker) as daemon:
        assert daemon.wait() == 1
        message = daemon.log.splitlines()[-1]
        assert message.startswith("edgepose: picamera:0: another program uses the camera")
        assert "Traceback" not in daemon.log
    holder.release()
    with Daemon(debian, camera, broker) as daemon, broker.listener() as listener:
        Subscriber(listener).wait_for_poses()


def test_daemon_switch_off_and_camera_busy(
    debian: Debian,
    camera: VirtualCamera,
    broker: Mosquitto,
    subscriber: Subscriber,
    timings: Timings,
) -> None:
    """Switched off, the camera is closed; if busy when switched on, the daemon keeps trying."""
    with Daemon(debian, camera, broker) as daemon:
        subscriber.wait_for_poses()
        start = time.monotonic()
        broker.publish(f"{CAMERA}/enabled/set", b"OFF")
        subscriber.wait_for(f"{CAMERA}/status", b"offline")
        timings.noticed("switched off; on again", start)
        subscriber.wait_for(f"{CAMERA}/presence", b"OFF")
        holder = Holder(debian, camera)
        assert holder.acquired(), "the camera is open although it is switched off"
        broker.publish(f"{CAMERA}/enabled/set", b"ON")
        wait_for(lambda: "another program uses the camera" in daemon.log, "busy in the log")
        assert subscriber.last(f"{CAMERA}/status") == b"offline"
        # The daemon keeps trying, and nothing accumulates.
        time.sleep(2)
        before = daemon.resources()
        time.sleep(8)
        assert daemon.resources() == before
        holder.release()
        start = time.monotonic()
        subscriber.wait_for_poses(1, patience_s=60)
        timings.recovered("another program uses the camera", start)
        assert daemon.log.count("another program uses the camera") == 1

        broker.publish(f"{CAMERA}/enabled/set", b"OFF")
        subscriber.wait_for(f"{CAMERA}/status", b"offline")
        start = time.monotonic()
        broker.publish(f"{CAMERA}/enabled/set", b"ON")
        subscriber.wait_for_poses(1)
        timings.recovered("switched off; on again", start)


@pytest.mark.parametrize("fault", ["silent", "broken"])
def test_daemon_sigterm_during_fault(
    debian: Debian,
    camera: VirtualCamera,
    broker: Mosquitto,
    subscriber: Subscriber,
    timings: Timings,
    fault: str,
) -> None:
    """The daemon ends with 0 within seconds."""
    with Daemon(debian, camera, broker) as daemon:
        subscriber.wait_for_poses()
        camera.command(fault)
        time.sleep(0.5)
        code, seconds = daemon.end()
        timings.noticed(f"SIGTERM while {fault}", time.monotonic() - seconds)
        assert code == 0, daemon.log
        assert seconds < 6
        subscriber.wait_for(f"{NODE}/availability", b"offline")
        assert "Traceback" not in daemon.log
