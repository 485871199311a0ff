"""What subscribers have set, remembered over restarts."""

import logging
from pathlib import Path
from typing import Any, Final

import msgspec

from edgepose.config.schema import Config
from edgepose.mqtt.commands import (
    Command,
    parse_max_fps,
    parse_pose_threshold,
    parse_smoothing,
)
from edgepose.util.background import BackgroundWriter
from edgepose.util.files import read_regular_file, replace_file

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S: Final = 2.0
_MAX_BYTES: Final = 1 << 20


class Setting(msgspec.Struct, frozen=True):
    """A command, and what the configuration file had in its place."""

    camera: str | None
    name: str
    payload: str
    configured: Any

    @property
    def command(self) -> Command:
        """The command that set it."""
        return Command(self.camera, self.name, self.payload.encode())

    def holds(self, config: Config) -> bool:
        """Whether the file still has the same value; another one is newer than the command."""
        return bool(_configured(config, self.camera, self.name) == self.configured)


class Settings:
    """The settings: kept in memory first, and in a file for the next start.

    The file is written in the background, since a disk may block, and again until that succeeds.
    Settings of cameras that are not configured now are kept: a camera may return.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._settings = self._saved = _read(path)
        self._failure = ""
        self._writer: BackgroundWriter[object] = BackgroundWriter(
            "settings", lambda _: self._save(), max_pending=1, on_idle=self._save
        )

    def applied_to(self, config: Config) -> Config:
        """Return the configuration of the file with what was set in place of its values."""
        cameras = {camera.name for camera in config.cameras} | {None}
        for setting in self._settings:
            if setting.camera in cameras and setting.holds(config):
                config = with_command(config, setting.command)
        return config

    def keep(self, command: Command, config: Config) -> None:
        """Remember a command; `config` is that of the file."""
        payload = command.payload.decode()
        configured = _configured(config, command.camera, command.name)
        setting = Setting(command.camera, command.name, payload, configured)
        others = [s for s in self._settings if (s.camera, s.name) != (command.camera, command.name)]
        self._replace((*others, setting))

    def forget_outdated(self, config: Config) -> None:
        """Forget what the configuration file has overruled."""
        cameras = {camera.name for camera in config.cameras} | {None}
        kept = (s for s in self._settings if s.camera not in cameras or s.holds(config))
        self._replace(tuple(kept))

    def close(self) -> None:
        """Wait for the file, 2 s at most."""
        if not self._writer.close(WRITE_TIMEOUT_S):
            log.warning("%s: the disk does not answer; the settings are not saved", self._path)

    def _replace(self, settings: tuple[Setting, ...]) -> None:
        if settings != self._settings:
            self._settings = settings
            # Dropped if one waits already, which will save this change too.
            self._writer.submit(self)

    def _save(self) -> None:
        """Write the file if it is out of date; a failure is logged once and tried again."""
        settings = self._settings
        if settings == self._saved:
            return
        try:
            replace_file(self._path, msgspec.json.encode(settings))
        except OSError as error:
            failure = error.strerror or str(error)
            if failure != self._failure:
                log.warning(
                    "%s: cannot save what was set over MQTT (%s); trying again", self._path, failure
                )
            self._failure = failure
            return
        self._saved, self._failure = settings, ""


def with_command(config: Config, command: Command) -> Config:
    """Return the configuration that a command makes of another; raises ValueError."""
    replace = msgspec.structs.replace
    match command.name:
        case "max_fps":
            max_fps = parse_max_fps(command.payload)
            cameras = (
                replace(camera, max_fps=max_fps) if camera.name == command.camera else camera
                for camera in config.cameras
            )
            return replace(config, cameras=tuple(cameras))
        case "pose_threshold":
            # On every accelerator.
            edgetpu = replace(config.pose.edgetpu, pose_threshold=None)
            threshold = parse_pose_threshold(command.payload)
            pose = replace(config.pose, pose_threshold=threshold, edgetpu=edgetpu)
            return replace(config, pose=pose)
        case _:
            preset: Any = parse_smoothing(command.payload)
            return replace(config, smoothing=replace(config.smoothing, preset=preset))


def _configured(config: Config, camera: str | None, name: str) -> object:
    """Return what the file has in place of a setting, as it is after encoding and decoding."""
    match name:
        case "max_fps":
            return next(one.max_fps for one in config.cameras if one.name == camera)
        case "pose_threshold":
            return [config.pose.pose_threshold, config.pose.edgetpu.pose_threshold]
        case _:
            return config.smoothing.preset


def _read(path: Path) -> tuple[Setting, ...]:
    """Return what was set; without a file that can be read, the configuration counts."""
    try:
        settings = msgspec.json.decode(
            read_regular_file(path, _MAX_BYTES), type=tuple[Setting, ...]
        )
        for setting in settings:
            with_command(Config(), setting.command)
    except FileNotFoundError:
        return ()
    # Unlimited nesting is a RecursionError, which is no ValueError.
    except (OSError, ValueError, RecursionError) as error:
        log.warning(
            "%s: expected what was set over MQTT, but it cannot be read (%s); the configuration "
            "file counts until something is set again",
            path,
            error,
        )
        return ()
    return settings
