"""A reload: everything is checked before anything changes."""

import dataclasses
import gc
import json
from pathlib import Path

import msgspec
import pytest

from edgepose.config.homeassistant import HomeAssistantConfig
from edgepose.config.loader import load_config
from edgepose.config.people import FallsConfig, IdleConfig, PostureConfig, PublishConfig
from edgepose.config.schema import CameraConfig, Config, SmoothingConfig
from edgepose.daemon.app import App, launch, topics_of
from edgepose.daemon.daemon import Daemon
from edgepose.daemon.signals import Signals
from edgepose.daemon.state_folder import StateFolder
from edgepose.errors import EdgeposeError
from edgepose.inference.failover import SingleModel
from edgepose.mqtt.commands import Command
from edgepose.smoothing.no_smoother import NoSmoother
from tests.fakes.pipeline import FakeInterpreter, FakePoseModel, loaded_model
from tests.fakes.sources import ScriptedSource


class Rig:
    """An app of a fake model, and the configuration that it loads."""

    def __init__(self, folder: Path) -> None:
        self.config = load_config(None, {"mqtt.enabled": False, "node": "gym"})
        model = loaded_model(FakeInterpreter(), FakePoseModel(0.6, 0.9))
        self.state_folder = StateFolder(folder, topics_of(self.config), None)
        self.app = App(
            self.config,
            lambda: self.config,
            self.state_folder,
            models=SingleModel(model),
            new_source=lambda: ScriptedSource([]),
        )
        self.parts = self.app.daemon.cameras["main"].parts

    def state(self) -> list[object]:
        """Return everything that a reload may replace."""
        pipeline = self.parts.pipeline
        return [
            self.app.config,
            self.app.daemon.models,
            pipeline.models,
            pipeline.smoother,
            pipeline.tracker,
            self.parts.new_source,
        ]


def test_app_reload_with_an_invalid_source_changes_nothing(tmp_path: Path) -> None:
    """It was found after the model had been replaced, and ended the daemon."""
    rig = Rig(tmp_path)
    before = rig.state()
    rig.config = msgspec.structs.replace(
        rig.config,
        cameras=(CameraConfig(name="main", source="rtsp://"),),
        model=msgspec.structs.replace(rig.config.model, name="movenet-lightning-fp16"),
        smoothing=SmoothingConfig(preset="off"),
    )
    with pytest.raises(EdgeposeError, match="rtsp"):
        rig.app.reload()()
    assert rig.state() == before


def test_app_reloads_leave_nothing_behind(tmp_path: Path) -> None:
    """A node is reconfigured for years: not one object may remain of each reload."""
    rig = Rig(tmp_path)

    def objects_after(reloads: int) -> int:
        for number in range(reloads):
            smoothing = SmoothingConfig(preset="responsive" if number % 2 else "steady")
            rig.config = msgspec.structs.replace(rig.config, smoothing=smoothing)
            rig.app.reload()()
            rig.app.states()
            rig.app.discovery()
        gc.collect()
        return len(gc.get_objects())

    before = objects_after(10)
    assert objects_after(100) - before < 100


def test_app_reload_publishes_raw_keypoints(tmp_path: Path) -> None:
    """`publish.raw` is applied to running cameras."""
    rig = Rig(tmp_path)
    assert not rig.parts.pipeline.publish_raw
    rig.config = msgspec.structs.replace(rig.config, publish=PublishConfig(raw=True))
    rig.app.reload()()
    assert rig.parts.pipeline.publish_raw


def test_app_reload_searches_another_region(tmp_path: Path) -> None:
    """`region` is applied to the running camera."""
    rig = Rig(tmp_path)
    before = rig.parts.pipeline.region
    (camera,) = rig.config.cameras
    part = msgspec.structs.replace(camera, region=(0.0, 0.5, 0.5, 1.0))
    rig.config = msgspec.structs.replace(rig.config, cameras=(part,))
    rig.app.reload()()
    assert (before, rig.parts.pipeline.region) == ((0, 0, 1, 1), (0, 0.5, 0.5, 1))


def test_app_reload_enables_postures_angles_and_falls(tmp_path: Path) -> None:
    """They are applied to running cameras; postures are estimated as long as one needs them."""
    rig = Rig(tmp_path)
    before = rig.parts.pipeline.postures
    assert before is None
    assert {"posture", "fall"} & rig.parts.detectors.states.keys() == set()
    rig.config = msgspec.structs.replace(
        rig.config,
        posture=PostureConfig(enabled=True),
        falls=FallsConfig(enabled=True),
        publish=PublishConfig(angles=True),
    )
    rig.app.reload()()
    running = rig.parts.pipeline.postures
    assert running is not None
    assert rig.parts.pipeline.publish_angles
    states = rig.parts.detectors.states
    assert (states["posture"], states["fall"]) == ("nobody", "OFF")
    rig.config = msgspec.structs.replace(rig.config, posture=PostureConfig())
    rig.app.reload()()
    assert rig.parts.pipeline.postures is running
    assert "posture" not in rig.parts.detectors.states


def test_app_reload_without_changes_changes_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    before = rig.state()
    rig.app.reload()()
    assert rig.state() == before


def test_app_commands_are_changes_of_the_configuration(tmp_path: Path) -> None:
    """Live ones at once; they are published, and outlast a reload of the file and a restart."""
    rig = Rig(tmp_path)
    for command in (Command(None, "smoothing", b"off"), Command("main", "max_fps", b"500")):
        rig.app.change(command)()
    assert isinstance(rig.parts.pipeline.smoother, NoSmoother)
    assert rig.parts.limit.max_fps == 120
    rig.app.reload()()
    assert isinstance(rig.parts.pipeline.smoother, NoSmoother)
    states = rig.app.states()
    assert states["edgepose/gym/smoothing"] == b"off"
    assert states["edgepose/gym/main/max_fps"] == b"120"
    assert states["edgepose/gym/pose_threshold"] == b"0.5"
    rig.app.close()
    rig.state_folder.close()
    again = Rig(tmp_path)
    assert isinstance(again.parts.pipeline.smoother, NoSmoother)
    assert again.parts.limit.max_fps == 120
    again.config = msgspec.structs.replace(
        again.config, smoothing=SmoothingConfig(preset="responsive")
    )
    again.app.reload()()
    assert again.app.states()["edgepose/gym/smoothing"] == b"responsive"


def test_app_reload_switches_idle_saving(tmp_path: Path) -> None:
    """It is off by default; a running camera takes the change."""
    rig = Rig(tmp_path)
    assert rig.parts.limit.idle_fps == 0
    rig.config = msgspec.structs.replace(rig.config, idle=IdleConfig(enabled=True, fps=4))
    rig.app.reload()()
    assert rig.parts.limit.idle_fps == 4
    rig.config = msgspec.structs.replace(rig.config, idle=IdleConfig(fps=4))
    rig.app.reload()()
    assert rig.parts.limit.idle_fps == 0


def test_app_threshold_command_replaces_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    built: list[float | None] = []

    def build(config: Config, _cache: object, *, wait: bool) -> SingleModel:
        built.append(config.pose.for_device("edgetpu").pose_threshold)
        model = loaded_model(FakeInterpreter(), FakePoseModel(0.6, 0.9))
        return SingleModel(dataclasses.replace(model, pose_threshold=0.25))

    monkeypatch.setattr("edgepose.daemon.app.build_models", build)
    rig.app.change(Command(None, "pose_threshold", b"0.25"))()
    assert built == [0.25]
    assert rig.app.states()["edgepose/gym/pose_threshold"] == b"0.25"


def test_app_discovery_follows_the_configuration(tmp_path: Path) -> None:
    """The node first; none with `enabled: false`."""
    rig = Rig(tmp_path)
    topics = ["homeassistant/device/edgepose-gym/config"]
    topics += ["homeassistant/device/edgepose-gym/main/config"]
    assert list(rig.app.discovery()) == topics
    camera = msgspec.structs.replace(rig.config.cameras[0], label="Kitchen", area="Hall")
    named = HomeAssistantConfig(name="Gym", area="Cellar")
    rig.config = msgspec.structs.replace(rig.config, homeassistant=named, cameras=(camera,))
    rig.app.reload()()
    node, main = (json.loads(message)["device"] for message in rig.app.discovery().values())
    assert (node["name"], node["suggested_area"]) == ("Gym", "Cellar")
    assert (main["name"], main["suggested_area"]) == ("Kitchen", "Hall")
    off = HomeAssistantConfig(enabled=False)
    rig.config = msgspec.structs.replace(rig.config, homeassistant=off)
    rig.app.reload()()
    assert rig.app.discovery() == {}


def test_app_restart_by_command_ends_with_the_exit_code_of_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd starts it again then; after 0 or 2 it would not."""

    def run(daemon: Daemon, signals: Signals) -> None:
        daemon.restart_requested = True

    monkeypatch.setattr(Daemon, "run", run)
    changes = {"mqtt.enabled": False, "state_directory": str(tmp_path)}
    with pytest.raises(SystemExit) as ending:
        launch(lambda: load_config(None, changes), config_file=None)
    assert ending.value.code == 1
