"""The discovery messages of Home Assistant, against those that it accepted without a warning."""

import pytest

from edgepose.config.schema import CameraConfig, Config, DashboardConfig
from edgepose.homeassistant.discovery import camera_message, with_removals
from edgepose.messages import encode
from edgepose.mqtt.topics import DiscoveryTopics
from tests.homeassistant.devices import camera, decoded, golden, gym_main, node


def test_discovery_topics_are_those_of_the_node() -> None:
    topics = DiscoveryTopics("gym")
    assert topics.device() == golden("node")["topic"]
    assert topics.device("main") == golden("camera-main")["topic"]
    assert topics.birth == "homeassistant/status"


def test_discovery_of_a_node() -> None:
    assert node() == golden("node")["payload"]


def test_discovery_of_a_camera_with_everything_on() -> None:
    """Posture, falls, repetitions and two zones, of which one has a hyphen in its id."""
    assert gym_main() == golden("camera-main")["payload"]


def test_discovery_of_a_camera_with_label_and_area() -> None:
    """What is off is removed by a part with nothing but its platform."""
    assert camera("kitchen", label="Kitchen", area="Kitchen") == golden("camera-kitchen")["payload"]


def test_discovery_links_the_page() -> None:
    """The node and its cameras have the address of the live page, and nothing else differs."""
    url = "http://gym.local:8080"
    config = Config(node="gym", dashboard=DashboardConfig(url=url))
    kitchen = CameraConfig(name="kitchen", label="Kitchen", area="Kitchen")
    messages = {
        "node": node(config),
        "camera-kitchen": decoded(camera_message(config, kitchen)),
    }
    for name, message in messages.items():
        assert message["device"].pop("configuration_url") == url
        assert message == golden(name)["payload"]


def test_discovery_of_a_node_that_reports_less() -> None:
    """On a PC at a terminal: no throttling, no temperature, nothing that would start it again."""
    parts = node(temperature=None, throttling=False, restartable=False)["components"]
    assert {key: part for key, part in parts.items() if len(part) == 1} == {
        "throttled": {"platform": "binary_sensor"},
        "temperature": {"platform": "sensor"},
        "restart": {"platform": "button"},
    }


def test_discovery_ids_of_different_nodes_never_meet() -> None:
    """`a` with the camera `b_c`, and `a_b` with the camera `c`."""
    ids: set[str] = set()
    for name, of in (("a", "b_c"), ("a_b", "c")):
        message = decoded(camera_message(Config(node=name), CameraConfig(name=of)))
        ids |= {part["unique_id"] for part in message["components"].values() if len(part) > 1}
        ids |= set(message["device"]["identifiers"])
    assert len(ids) == 2 * 9


# --- parts that are gone


def test_discovery_removes_a_zone_that_is_gone() -> None:
    """Home Assistant keeps a part that is only left out."""
    before, after = encode(gym_main()), encode(camera("main"))
    removal = with_removals(before, after)
    assert removal is not None
    parts = decoded(removal)["components"]
    added = {key: part for key, part in parts.items() if key.startswith("zone_")}
    assert added == {
        "zone_mat_occupancy": {"platform": "binary_sensor"},
        "zone_mat_people": {"platform": "sensor"},
        "zone_door-way_occupancy": {"platform": "binary_sensor"},
        "zone_door-way_people": {"platform": "sensor"},
    }
    assert {key: part for key, part in parts.items() if key not in added} == (
        camera("main")["components"]
    )
    assert with_removals(after, before) is None
    assert with_removals(after, after) is None


@pytest.mark.parametrize(
    "foreign",
    [b"", b"{}", b"[]", b"\xff", b'{"components": 3}', b'{"components": {"a": 1}}',
     b'{"components": {"a": {}}}', b"[" * 100_000],
)  # fmt: skip
def test_discovery_ignores_messages_of_another_kind(foreign: bytes) -> None:
    assert with_removals(foreign, encode(camera("main"))) is None
