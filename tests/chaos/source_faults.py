"""Faults of further cameras beside the two, which go on."""

import json
import shutil
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chaos.hanging import HangingFolder
from tests.chaos.judge import Row
from tests.chaos.registry import fault
from tests.chaos.rig import TOPICS, Rig, door_images
from tests.fakes.refusing_camera import RefusingCamera
from tests.media import save, write_video

_ELEVEN: Final = 11
_SILENT: Final = 12
_FPS: Final = 2.0
_RELOAD_LIMIT_S: Final = 2.0
_LOGINS: Final = 4
_PATIENCE_S: Final = 60.0
_DESCRIPTORS: Final = 3
"""Standard input, output and error; numbers of descriptors are given anew from the lowest."""


@fault("camera-hangs", "Camera: the driver of another camera never answers")
def _one_hangs(folder: Path, row: Row) -> Row:
    return _hang(folder, row, HangingFolder(folder), 1)


@fault("camera-disk-hangs", "Camera: the network disk with the video of another camera is dead")
def _disk_hangs(folder: Path, row: Row) -> Row:
    return _hang(folder, row, HangingFolder(folder, even_status=True), 1)


@fault("cameras-hang", f"Camera: the drivers of {_ELEVEN} other cameras never answer")
def _eleven_hang(folder: Path, row: Row) -> Row:
    return _hang(folder, row, HangingFolder(folder), _ELEVEN)


def _hang(folder: Path, row: Row, hub: HangingFolder, count: int) -> Row:
    """They go offline, cost one thread each, and neither a reload nor SIGTERM waits for them."""
    names = [f"hub{number}" for number in range(count)]
    clips = [write_video(hub.path / f"{name}.avi", door_images(1), _FPS) for name in names]
    cameras = [
        {"name": name, "source": f"{clip}?loop=1&realtime=1"}
        for name, clip in zip(names, clips, strict=True)
    ]
    with Rig(folder, more_cameras=cameras, environment=hub.environment) as rig:
        _wait_until_online(rig, names, 0.0)
        hung_s = hub.hang()
        row.detected_s = _wait_until_offline(rig, names, hung_s) - hung_s
        # Each was tried again until then.
        time.sleep(10.0)
        threads = rig.daemon.threads()
        time.sleep(15.0)
        more = rig.daemon.threads() - threads
        row.remarks.append(f"{threads} threads, {more} more after 15 s")
        if more > 0:
            row.failures.append(f"{more} more threads in 15 s")
        _reload_rotated(rig, row, names)
        row.gap_s = rig.longest_gap_s(hung_s)
        back_s = hub.recover()
        row.resumed_s = _wait_until_online(rig, names, back_s) - back_s
        # SIGTERM comes while they hang.
        hub.hang()
        return rig.evaluate(row)


@fault("cameras-silent", f"Camera: the recorder of {_SILENT} RTSP cameras accepts and is silent")
def _silent(folder: Path, row: Row) -> Row:
    """Neither a reload nor SIGTERM waits for their answers."""
    names = [f"nvr{number}" for number in range(_SILENT)]
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as recorder:
        port = recorder.getsockname()[1]
        cameras = [{"name": n, "source": f"rtsp://127.0.0.1:{port}/{n}"} for n in names]
        with Rig(folder, more_cameras=cameras) as rig:
            since_s = time.monotonic()
            time.sleep(5.0)
            _reload_rotated(rig, row, names)
            time.sleep(15.0)
            row.gap_s = rig.longest_gap_s(since_s)
            return rig.evaluate(row)


@fault("login-refused", "Camera: another camera refuses the password for a minute")
def _login_refused(folder: Path, row: Row) -> Row:
    """It is tried rarely, since cameras lock an account after a few wrong logins."""
    with RefusingCamera() as camera:
        url = f"rtsp://viewer:wrong@127.0.0.1:{camera.port}/live"
        with Rig(folder, more_cameras=[{"name": "locked", "source": url}]) as rig:
            since_s = time.monotonic()
            time.sleep(60.0)
            row.remarks.append(f"{camera.logins} logins in a minute")
            if not 0 < camera.logins <= _LOGINS:
                row.failures.append(f"{camera.logins} logins in a minute, at most {_LOGINS}")
            row.gap_s = rig.longest_gap_s(since_s)
            return rig.evaluate(row)


@fault("folder-emptied", "Camera: a folder of images is empty at the start, filled, and emptied")
def _folder_emptied(folder: Path, row: Row) -> Row:
    """It is opened again whenever there are images, also after a reload without any."""
    images = folder / "images"
    images.mkdir()
    camera = {"name": "folder", "source": f"{images}?loop=1&realtime=1"}
    with Rig(folder, more_cameras=[camera]) as rig:
        since_s = time.monotonic()
        for _ in range(2):
            filled_s = _fill(images)
            resumed_s = _wait_until_online(rig, ["folder"], filled_s) - filled_s
            row.resumed_s = max(row.resumed_s or 0.0, resumed_s)
            shutil.rmtree(images)
            images.mkdir()
            emptied_s = time.monotonic()
            detected_s = _wait_until_offline(rig, ["folder"], emptied_s) - emptied_s
            row.detected_s = max(row.detected_s or 0.0, detected_s)
            _reload_rotated(rig, row, ["folder"])
        row.gap_s = rig.longest_gap_s(since_s)
        return rig.evaluate(row)


@fault("descriptors", "Process: no further file can be opened for 20 s")
def _descriptors(folder: Path, row: Row) -> Row:
    """What is open goes on; the video at the door begins again once its file can be opened."""
    with Rig(folder) as rig:
        previous = rig.daemon.limit_descriptors(_DESCRIPTORS)
        used_s = time.monotonic()
        row.detected_s = _wait_until_offline(rig, ["door"], used_s) - used_s
        time.sleep(max(0.0, used_s + 20.0 - time.monotonic()))
        row.gap_s = rig.longest_gap_s(used_s)
        if not rig.daemon.alive:
            return rig.evaluate(row)
        rig.daemon.limit_descriptors(previous)
        back_s = time.monotonic()
        row.resumed_s = _wait_until_online(rig, ["door"], back_s) - back_s
        return rig.evaluate(row)


def _wait_until_online(rig: Rig, cameras: Sequence[str], since_s: float) -> float:
    """Wait until all cameras are online; return when the last one was."""
    return max(
        rig.observer.wait_for(TOPICS.status(camera), b"online".__eq__, after_s=since_s).at_s
        for camera in cameras
    )


def _wait_until_offline(rig: Rig, cameras: Sequence[str], since_s: float) -> float:
    """Wait until no camera is online any more; return when the last one ceased to be."""
    return max(
        rig.observer.wait_for(
            TOPICS.status(camera), b"online".__ne__, after_s=since_s, patience_s=_PATIENCE_S
        ).at_s
        for camera in cameras
    )


def _reload_rotated(rig: Rig, row: Row, names: Sequence[str]) -> None:
    """Reload with some cameras changed, so that these are opened anew."""
    for camera in rig.config["cameras"]:
        if camera["name"] in names:
            camera["rotation"] = (camera.get("rotation", 0) + 180) % 360
    rig.write_config(json.dumps(rig.config))
    reload_s = rig.daemon.reload()
    if reload_s > _RELOAD_LIMIT_S:
        row.failures.append(f"the reload took {reload_s:.1f} s")


def _fill(folder: Path) -> float:
    """Put an image into a folder; return when."""
    image = next(door_images(1))
    save(folder.with_name("image.png"), image).rename(folder / "image.png")
    return time.monotonic()
