"""The effect of a reload for each change of the configuration."""

from typing import Any

import msgspec
import pytest

from edgepose.config.changes import changed_keys, reload_effect
from edgepose.config.fields import ReloadEffect, Section, dotted, section_of
from edgepose.config.people import ZoneConfig
from edgepose.config.schema import (
    CameraConfig,
    Config,
    DashboardConfig,
    EdgeTpuPoseConfig,
    MqttConfig,
    PoseConfig,
    SmoothingConfig,
    TlsConfig,
    sections,
    value_keys,
)
from edgepose.config.values import parts

CAMERAS = (CameraConfig(name="door"), CameraConfig(name="yard"))
LIVE = {
    "tracking": msgspec.structs.replace(Config().tracking, max_age_ms=1),
    "smoothing": SmoothingConfig(preset="off"),
    "presence": msgspec.structs.replace(Config().presence, on_delay_ms=1),
    "dashboard": DashboardConfig(url="http://pi:8080"),
}
LIVE_KEYS = {
    "tracking": "tracking.max_age_ms",
    "smoothing": "smoothing.preset",
    "presence": "presence.on_delay_ms",
    "dashboard": "dashboard.url",
}


def changed(**values: Any) -> dict[str, list[str]]:
    """Return the changed keys by the name of their effect, without effects that have none."""
    old = Config(cameras=CAMERAS)
    changes = changed_keys(old, msgspec.structs.replace(old, **values))
    return {effect.value: list(map(dotted, keys)) for effect, keys in changes.items() if keys}


def test_schema_every_key_states_one_reload_effect() -> None:
    """No key can be added without deciding what a reload does with it."""
    for _, section in sections():
        for field in msgspec.structs.fields(section):
            stated = [part for part in parts(field.type) if isinstance(part, ReloadEffect)]
            expected = 0 if section_of(field.type) else 1
            assert len(stated) == expected, f"{section.__name__}.{field.name}"


def test_schema_every_section_is_reached_from_the_root() -> None:
    """The test above visits every class of the schema."""
    assert {section for _, section in sections()} == {Config, *Section.__subclasses__()}


def test_schema_camera_effects_are_only_in_cameras() -> None:
    """The index of the camera is part of the key."""
    for key, field in value_keys().items():
        if reload_effect(field.type) is ReloadEffect.CAMERA:
            assert key[:2] == ("cameras", 0), dotted(key)


def test_changed_keys_same_configuration() -> None:
    """A reload of an unchanged file does nothing."""
    assert changed() == {}


@pytest.mark.parametrize(("name", "key"), LIVE_KEYS.items())
def test_changed_keys_live(name: str, key: str) -> None:
    """These sections are applied to the running cameras."""
    assert changed(**{name: LIVE[name]}) == {"live": [key]}


def test_changed_keys_model() -> None:
    """Thresholds are part of the loaded model, also the nested ones of the Edge TPU."""
    pose = PoseConfig(edgetpu=EdgeTpuPoseConfig(pose_threshold=0.5))
    assert changed(accelerator="cpu") == {"model": ["accelerator"]}
    assert changed(pose=pose) == {"model": ["pose.edgetpu.pose_threshold"]}


def test_changed_keys_one_camera() -> None:
    """Only the camera whose keys changed is opened again."""
    cameras = (CAMERAS[0], CameraConfig(name="yard", rotation=180))
    assert changed(cameras=cameras) == {"camera": ["cameras.1.rotation"]}


def test_changed_keys_zones() -> None:
    """Zones are added, removed and moved while the camera runs."""
    door = ZoneConfig(name="door", polygon=((0, 0), (1, 0), (1, 1)))
    cameras = (CAMERAS[0], msgspec.structs.replace(CAMERAS[1], zones=(door,)))
    assert changed(cameras=cameras) == {"live": ["cameras.1.zones"]}


def test_changed_keys_restart() -> None:
    """The keys that need a restart are listed as they are written in the file."""
    mqtt = MqttConfig(url="mqtts://h", tls=TlsConfig(insecure=True))
    assert changed(node="x", mqtt=mqtt) == {"restart": ["node", "mqtt.url", "mqtt.tls.insecure"]}


@pytest.mark.parametrize(
    ("cameras", "key"),
    [
        (CAMERAS[:1], "cameras"),
        ((*CAMERAS, CameraConfig(name="attic")), "cameras"),
        ((CAMERAS[0], CameraConfig(name="attic")), "cameras.1.name"),
    ],
)
def test_changed_keys_cameras_added_removed_or_renamed(
    cameras: tuple[CameraConfig, ...], key: str
) -> None:
    """Topics and subscriptions are made of the names, so these need a restart."""
    assert changed(cameras=cameras) == {"restart": [key]}


def test_changed_keys_of_several_kinds() -> None:
    """Every effect has its keys."""
    camera = CameraConfig(name="door", fps=5.0)
    changes = changed(
        cameras=(camera, CAMERAS[1]), accelerator="cpu", smoothing=SmoothingConfig(preset="off")
    )
    assert changes == {
        "camera": ["cameras.0.fps"],
        "model": ["accelerator"],
        "live": ["smoothing.preset"],
    }
