"""From the configuration to the discovery messages."""

import json
from typing import Any

import msgspec

from edgepose.config.homeassistant import HomeAssistantConfig
from edgepose.config.people import FallsConfig, PostureConfig, RepetitionsConfig, ZoneConfig
from edgepose.config.schema import CameraConfig, Config, MqttConfig
from edgepose.homeassistant.discovery import Host, discovery_messages
from edgepose.homeassistant.host import read_host
from tests.homeassistant.devices import SQUARE, gym_main

HOST = Host(hardware="PC", temperature=None, throttling=False, restartable=False)


def messages(**values: Any) -> dict[str, dict[str, Any]]:
    config = Config(node="gym", **values)
    return {
        topic: json.loads(message) for topic, message in discovery_messages(config, HOST).items()
    }


def parts(**values: Any) -> dict[str, Any]:
    """Return the parts of the camera `main` that are not off."""
    of_camera = messages(**values)["homeassistant/device/edgepose-gym/main/config"]["components"]
    return {key: part for key, part in of_camera.items() if len(part) > 1}


def test_announced_with_the_default_configuration() -> None:
    """What every camera has; nothing of what is off by default."""
    assert list(messages()) == [
        "homeassistant/device/edgepose-gym/config",
        "homeassistant/device/edgepose-gym/main/config",
    ]
    assert list(parts()) == [
        *("occupancy", "people", "event", "status", "enabled", "max_fps", "fps", "latency"),
    ]


def test_announced_with_other_topics_and_names() -> None:
    found = messages(
        cameras=(CameraConfig(name="a"), CameraConfig(name="b", label="Hall", area="Cellar")),
        mqtt=MqttConfig(base_topic="home/poses"),
        homeassistant=HomeAssistantConfig(discovery_prefix="ha", name="Gym", area="Attic"),
        stats_interval_s=100.0,
    )
    node, a, b = found.values()
    assert list(found) == [f"ha/device/edgepose-gym{path}/config" for path in ("", "/a", "/b")]
    assert (node["device"]["name"], node["device"]["suggested_area"]) == ("Gym", "Attic")
    assert (a["device"]["name"], a["device"].get("suggested_area")) == ("gym a", None)
    assert (b["device"]["name"], b["device"]["suggested_area"]) == ("Hall", "Cellar")
    assert a["components"]["people"]["state_topic"] == "home/poses/gym/a/count"
    assert a["components"]["fps"]["expire_after"] == 300


def test_announced_zones_are_those_with_topics() -> None:
    zones = (
        ZoneConfig(name="door", polygon=SQUARE),
        ZoneConfig(name="sofa", polygon=SQUARE, exclude="falls"),
        ZoneConfig(name="mirror", polygon=SQUARE, exclude="all"),
    )
    found = parts(cameras=(CameraConfig(zones=zones),))
    assert [key for key in found if key.startswith("zone_")] == [
        *("zone_door_occupancy", "zone_door_people", "zone_sofa_occupancy", "zone_sofa_people"),
    ]
    assert found["event"]["event_types"] == ["enter", "leave", "zone_enter", "zone_leave"]


def test_announced_exercises_are_those_that_are_counted() -> None:
    every = parts(repetitions=RepetitionsConfig(exercise="auto"))["exercise"]
    assert every["options"] == ["squat", "push_up", "curl", "nothing"]
    one = parts(repetitions=RepetitionsConfig(exercise="lunge"))["exercise"]
    assert one["options"] == ["lunge", "nothing"]


def test_announced_posture_and_falls() -> None:
    """With what the detectors report, as Home Assistant accepted it."""
    found = parts(posture=PostureConfig(enabled=True), falls=FallsConfig(enabled=True))
    assert found["posture"] == gym_main()["components"]["posture"]
    assert found["fall"] == gym_main()["components"]["fall"]
    assert found["event"]["event_types"] == ["enter", "leave", "fall"]


def test_announced_nothing_while_discovery_is_off() -> None:
    assert messages(homeassistant=HomeAssistantConfig(enabled=False)) == {}


def test_announced_host_of_this_machine() -> None:
    """What is not there is not announced, whatever the machine."""
    host = read_host(restartable=True)
    assert host.hardware
    assert host.restartable
    assert msgspec.json.encode(list(discovery_messages(Config(node="a"), host)))
