"""A reload: everything is checked before anything changes."""

from pathlib import Path

import msgspec
import pytest

from edgepose.config.loader import load_config
from edgepose.config.schema import CameraConfig, SmoothingConfig
from edgepose.daemon.app import App, topics_of
from edgepose.daemon.state_folder import StateFolder
from edgepose.errors import EdgeposeError
from edgepose.inference.failover import SingleModel
from tests.fakes.pipeline import FakeInterpreter, FakePoseModel, loaded_model
from tests.fakes.sources import ScriptedSource


class Rig:
    """An app of a fake model, and the configuration that it loads."""

    def __init__(self, folder: Path) -> None:
        self.config = load_config(None, {"mqtt.enabled": False})
        model = loaded_model(FakeInterpreter(), FakePoseModel(0.6, 0.9))
        self.app = App(
            self.config,
            lambda: self.config,
            StateFolder(folder, topics_of(self.config), None),
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
        rig.app.daemon.reload()()
    assert rig.state() == before


def test_app_reload_publishes_raw_keypoints(tmp_path: Path) -> None:
    """`publish.raw` is applied to running cameras."""
    rig = Rig(tmp_path)
    assert not rig.parts.pipeline.publish_raw
    rig.config = load_config(None, {"mqtt.enabled": False, "publish.raw": True})
    rig.app.daemon.reload()()
    assert rig.parts.pipeline.publish_raw


def test_app_reload_without_changes_changes_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    before = rig.state()
    rig.config = load_config(None, {"mqtt.enabled": False})
    rig.app.daemon.reload()()
    assert rig.state() == before
