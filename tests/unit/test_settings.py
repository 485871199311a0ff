"""What subscribers have set, over restarts and changes of the configuration file."""

import errno
import logging
import os
from pathlib import Path

import pytest

from edgepose.config.loader import load_config
from edgepose.config.schema import CameraConfig, Config
from edgepose.daemon.settings import Settings, with_command
from edgepose.mqtt.commands import Command
from tests.mosquitto import wait_for

MAX_FPS = Command("main", "max_fps", b"12.5")
SMOOTHING = Command(None, "smoothing", b"responsive")
THRESHOLD = Command(None, "pose_threshold", b"0.42")


def config_of(**values: object) -> Config:
    return load_config(None, {key.replace("__", "."): value for key, value in values.items()})


def saved(path: Path, *commands: Command, config: Config | None = None) -> Settings:
    """Return the settings of the next start."""
    settings = Settings(path)
    for command in commands:
        settings.keep(command, config or config_of())
    settings.close()
    return Settings(path)


def test_settings_are_applied_after_a_restart(tmp_path: Path) -> None:
    settings = saved(tmp_path / "node" / "settings.json", MAX_FPS, SMOOTHING, THRESHOLD)
    config = settings.applied_to(config_of(smoothing__beta=3.0))
    assert config.cameras[0].max_fps == 12.5
    assert config.smoothing.preset == "responsive"
    assert config.smoothing.beta == 3.0
    assert config.pose.pose_threshold == 0.42


def test_settings_newest_of_one_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    settings = saved(path, MAX_FPS, Command("main", "max_fps", b"3"))
    assert settings.applied_to(config_of()).cameras[0].max_fps == 3


def test_settings_end_when_the_file_changes_that_value(tmp_path: Path) -> None:
    """Who edits the file expects that it counts, and that it does so for good."""
    path = tmp_path / "settings.json"
    settings = saved(path, SMOOTHING, MAX_FPS)
    edited = config_of(smoothing__preset="off")
    assert settings.applied_to(edited).smoothing.preset == "off"
    assert settings.applied_to(edited).cameras[0].max_fps == 12.5
    settings.forget_outdated(edited)
    assert settings.applied_to(config_of()).smoothing.preset == "steady"
    settings.close()
    assert Settings(path).applied_to(config_of()).smoothing.preset == "steady"
    assert Settings(path).applied_to(config_of()).cameras[0].max_fps == 12.5


def test_settings_threshold_counts_on_every_accelerator(tmp_path: Path) -> None:
    config = config_of(pose__edgetpu__pose_threshold=0.2)
    settings = saved(tmp_path / "settings.json", THRESHOLD, config=config)
    pose = settings.applied_to(config).pose
    assert [pose.for_device(device).pose_threshold for device in ("cpu", "edgetpu")] == [0.42] * 2
    assert settings.applied_to(config_of()).pose.pose_threshold is None


def test_settings_remember_a_camera_that_is_not_configured_now(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    without = Config(cameras=(CameraConfig(name="door"),))
    settings = saved(path, MAX_FPS)
    assert settings.applied_to(without) == without
    settings.forget_outdated(without)
    settings.close()
    assert Settings(path).applied_to(config_of()).cameras[0].max_fps == 12.5


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\xff", b"[" * 100_000, b'[{"camera": null, "name": "smoothing"}]',
     b'[{"camera": null, "name": "smoothing", "payload": "wild", "configured": "steady"}]',
     b'[{"camera": "main", "name": "max_fps", "payload": "nan", "configured": 0}]'],
)  # fmt: skip
def test_settings_damaged_file_counts_for_nothing(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        settings = Settings(path)
    assert settings.applied_to(config_of()) == config_of()
    assert f"{path}: expected what was set over MQTT" in caplog.text
    settings.keep(MAX_FPS, config_of())
    settings.close()
    assert Settings(path).applied_to(config_of()).cameras[0].max_fps == 12.5


def test_settings_are_saved_once_the_disk_has_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True

    def fsync(_fd: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "settings.json"
    settings = Settings(path)
    settings.keep(MAX_FPS, config_of())
    wait_for(lambda: "cannot save" in caplog.text, "the warning")
    full = False
    wait_for(path.exists, "the file")
    settings.close()
    assert caplog.text.count("cannot save") == 1
    assert Settings(path).applied_to(config_of()).cameras[0].max_fps == 12.5


def test_settings_command_for_another_camera_changes_nothing() -> None:
    assert with_command(config_of(), Command("attic", "max_fps", b"5")) == config_of()
