"""What the broker retains for a node, and who else publishes there; on an injected clock."""

import logging
from typing import cast

import pytest

from edgepose.homeassistant.discovery import with_removals
from edgepose.mqtt.announcements import BIRTH_DELAY_S, Announcements
from edgepose.mqtt.connection import MqttConnection, Outgoing
from edgepose.mqtt.event_store import EventStore
from edgepose.mqtt.outbox import Outbox
from edgepose.mqtt.retained import RetainedTopics
from edgepose.mqtt.topics import (
    DiscoveryTopics,
    Topics,
    in_groups,
    state_filters,
    state_owner,
)

TOPICS, DISCOVERY = Topics(node="gym"), DiscoveryTopics("gym")
AVAILABILITY, STATUS = TOPICS.availability, TOPICS.status("main")


class FakeConnection:
    """A broker that acknowledges at once, and echoes what is published to `watched`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.idle = True
        self.watched: RetainedTopics | None = None

    def publish(self, message: Outgoing) -> None:
        assert message.retain
        self.sent.append((message.topic, message.payload))
        if message.on_acknowledged is not None:
            message.on_acknowledged()
        if self.watched is not None:
            self.watched.receive(message.topic, message.payload, retained=False)


class Node:
    """A connected node with the camera `main`, online, and what it `announces`."""

    def __init__(self, previous: str | None = None, **announces: bytes) -> None:
        self.now_s = 0.0
        self.forgotten = 0
        self.outbox = Outbox(EventStore(None, max_events=1), AVAILABILITY)
        for camera, message in announces.items():
            self.outbox.set_state(DISCOVERY.device(camera), message, 1)
        self.outbox.set_state(STATUS, b"online", 1)
        announcements = Announcements(
            DISCOVERY,
            self.outbox,
            with_removals,
            previous=None if previous is None else DiscoveryTopics(previous.rpartition("/")[2]),
            monotonic=lambda: self.now_s,
        )
        self.retained = RetainedTopics(
            TOPICS,
            self.outbox,
            announcements=announcements,
            previous_root=previous,
            forget_previous=self.forget_previous,
            monotonic=lambda: self.now_s,
        )
        self.connection = FakeConnection()
        self.outbox.attach(cast("MqttConnection", self.connection))
        self.connection.watched = self.retained
        self.retained.connected()
        self.retained.subscribed()
        self.connection.sent.clear()

    def forget_previous(self) -> None:
        self.forgotten += 1

    def checks(self, count: int) -> list[tuple[str, bytes]]:
        """Return what is published within some seconds."""
        for _ in range(count):
            self.now_s += 1
            self.retained.check()
        sent = self.connection.sent[:]
        self.connection.sent.clear()
        return sent


@pytest.fixture(autouse=True)
def _log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_state_filters_match_states_only() -> None:
    root = "a/gym"
    assert f"{root}/availability" in state_filters(root)
    assert f"{root}/+/enabled" in state_filters(root)
    groups = list(in_groups(state_filters(root)))
    assert [topic for group in groups for topic in group] == list(state_filters(root))
    assert max(map(len, groups)) <= 8, "what AWS IoT Core takes in one SUBSCRIBE"
    for topic, owner in {
        "a/gym/info": "",
        "a/gym/main/count": "main",
        "a/gym/main/fall": "main",
        "a/gym/main/zones/door/presence": "main",
        "a/gym/main/zones/door/event": None,
        "a/gym/main/zones/presence": None,
        "a/gym/main/poses": None,
        "a/gym/main/enabled/set": None,
        "a/gym/hall/main/count": None,
        "a/gym2/info": None,
        "a/gym/status": None,
        "info": None,
    }.items():
        assert state_owner(root, topic) == owner, topic


def test_retained_states_of_a_removed_camera_are_cleared(caplog: pytest.LogCaptureFixture) -> None:
    """Once, only those that are there, and nothing of the cameras that are configured."""
    node = Node()
    old = [TOPICS.presence("old"), TOPICS.status("old")]
    for topic in (*old, STATUS, AVAILABILITY):
        node.retained.receive(topic, b"ON", retained=True)
    assert node.checks(5) == [(topic, b"") for topic in old]
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert old[0] in caplog.text


def test_retained_states_of_a_removed_zone_are_cleared() -> None:
    """And those of a feature that is off, but nothing that the node has, as of now."""
    node = Node()
    door, bed = (TOPICS.camera_state("main", f"zones/{name}/presence") for name in ("door", "bed"))
    fall = TOPICS.camera_state("main", "fall")
    node.outbox.set_state(bed, b"OFF", 1)
    for topic in (door, bed, fall, TOPICS.stats):
        node.retained.receive(topic, b"ON", retained=True)
    sent = node.checks(5)
    assert [(topic, payload) for topic, payload in sent if topic != bed] == [
        (fall, b""),
        (door, b""),
    ]


def test_retained_state_that_is_cleared_stays_so() -> None:
    """It is not published again, on this connection or the next."""
    node = Node()
    door = TOPICS.camera_state("main", "zones/door/presence")
    node.outbox.set_state(door, b"ON", 1)
    node.outbox.clear_state(door)
    node.outbox.clear_state(door)
    assert node.connection.sent == [(door, b"ON"), (door, b"")]
    node.connection.sent.clear()
    assert node.checks(5) == []
    node.outbox.attach(cast("MqttConnection", node.connection))
    assert door not in dict(node.connection.sent)


def test_retained_states_of_a_removed_camera_wait_for_our_own() -> None:
    """First the states of the cameras that there are."""
    node = Node()
    node.connection.idle = False
    node.retained.receive(TOPICS.presence("old"), b"ON", retained=True)
    assert node.checks(3) == []
    node.connection.idle = True
    assert node.checks(3) == [(TOPICS.presence("old"), b"")]


def test_retained_states_that_another_client_publishes_now_are_not_leftovers() -> None:
    node = Node()
    node.retained.receive(TOPICS.presence("another"), b"ON", retained=False)
    assert node.checks(3) == []


def test_retained_leftovers_are_cleared_in_bounded_number() -> None:
    node = Node()
    for number in range(1000):
        node.retained.receive(TOPICS.presence(f"c{number}"), b"ON", retained=True)
    assert len(node.checks(3)) == 200


def test_retained_topics_of_a_renamed_node_are_cleared() -> None:
    node = Node("edgepose/old")
    assert any("edgepose/old/availability" in group for group in node.retained.filters)
    left = {"availability": b"offline", "info": b"{}", "main/presence": b"ON"}
    for name, payload in left.items():
        node.retained.receive(f"edgepose/old/{name}", payload, retained=True)
    assert node.checks(5) == [(f"edgepose/old/{name}", b"") for name in left]
    assert node.forgotten == 1


def test_retained_topics_of_a_renamed_node_without_leftovers() -> None:
    node = Node("edgepose/old")
    assert node.checks(5) == []
    assert node.forgotten == 1


def test_retained_topics_of_a_node_that_is_online_stay() -> None:
    """Another node with the earlier name; if it was ours, its last will comes later."""
    node = Node("edgepose/old")
    node.retained.receive("edgepose/old/availability", b"online", retained=True)
    node.retained.receive("edgepose/old/main/presence", b"ON", retained=True)
    assert node.checks(100) == []
    assert node.forgotten == 0
    node.retained.receive("edgepose/old/availability", b"offline", retained=False)
    assert [topic for topic, _ in node.checks(2)] == [
        "edgepose/old/availability",
        "edgepose/old/main/presence",
    ]
    assert node.forgotten == 1


def test_retained_offline_of_another_client_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """A second daemon that ends leaves `offline` behind, and its states."""
    node = Node()
    node.retained.receive(AVAILABILITY, b"offline", retained=False)
    node.retained.receive(STATUS, b"offline", retained=False)
    assert node.checks(2) == [(AVAILABILITY, b"online"), (STATUS, b"online")]
    assert node.checks(100) == []
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "another client publishes on edgepose/gym/availability" in record.getMessage()
    assert "'gym'" in record.getMessage()


def test_retained_state_that_another_client_clears_is_replaced() -> None:
    node = Node()
    node.retained.receive(STATUS, b"", retained=False)
    assert node.checks(2) == [(STATUS, b"online")]


def test_retained_states_of_two_living_clients_make_no_flood(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each publishes its own again, at most every 5 s, and logs that once."""
    node = Node()
    sent = []
    for _ in range(60):
        node.retained.receive(STATUS, b"offline", retained=False)
        sent += node.checks(1)
    assert sent == [(STATUS, b"online")] * 12
    assert len(caplog.records) == 1


def groups(node: Node) -> int:
    return len(list(node.retained.filters))


def test_retained_subscriptions_at_which_connections_end() -> None:
    """The broker may not allow them; then the node works without, until one lasts."""
    node = Node("edgepose/old")
    assert groups(node) == 5
    node.retained.connected()
    assert groups(node) == 5
    assert node.checks(5) == []
    node.retained.connected()
    assert groups(node) == 0
    assert node.checks(25) == []
    node.retained.connected()
    assert groups(node) == 0
    assert node.checks(35) == []
    assert node.forgotten == 0
    node.retained.connected()
    assert groups(node) == 5


def test_retained_own_state_on_its_way_is_not_foreign(caplog: pytest.LogCaptureFixture) -> None:
    """The broker sends a state back late, and the next one is on its way already."""
    node = Node()
    node.connection.watched = None
    for payload in (b"offline", b"online") * 10:
        node.outbox.set_state(STATUS, payload, 1)
        node.connection.sent.clear()
        assert node.checks(1) == []
        node.retained.receive(STATUS, payload, retained=False)
    assert not caplog.records


# --- what Home Assistant was sent by earlier runs

PLAIN = b'{"components":{"people":{"platform":"sensor","name":"People"}}}'
WITH_ZONE = b'{"components":{"people":{"platform":"sensor"},"zone_a":{"platform":"binary_sensor"}}}'
MAIN, OLD = DISCOVERY.device("main"), DISCOVERY.device("old")


def test_discovery_topics_match_their_filters() -> None:
    for topic, announces in {
        "homeassistant/device/edgepose-gym/config": True,
        "homeassistant/device/edgepose-gym/main/config": True,
        "homeassistant/device/edgepose-gym/config/config": True,
        "homeassistant/device/edgepose-gym2/config": False,
        "homeassistant/device/edgepose-gym/a/b/config": False,
        "homeassistant/device/edgepose-gym/main": False,
        "homeassistant/device/gym/main/config": False,
        "homeassistant/sensor/edgepose-gym/main/config": False,
        "config": False,
        "": False,
    }.items():
        assert DISCOVERY.announces(topic) == announces, topic


def test_announced_camera_that_is_gone_is_removed_before_its_states() -> None:
    """An empty state is an error in the log of Home Assistant."""
    node = Node(main=PLAIN)
    node.retained.receive(TOPICS.presence("old"), b"ON", retained=True)
    node.retained.receive(OLD, WITH_ZONE, retained=True)
    node.retained.receive(MAIN, PLAIN, retained=True)
    node.retained.receive(DISCOVERY.device("other"), b"", retained=False)
    assert node.checks(5) == [(OLD, b""), (TOPICS.presence("old"), b"")]


def test_announced_part_that_is_gone_is_removed_once() -> None:
    """A part that is only left out stays in Home Assistant for ever."""
    node = Node(main=PLAIN)
    node.retained.receive(MAIN, WITH_ZONE, retained=True)
    (removal, again) = node.checks(5)
    assert removal[0] == MAIN
    assert removal[1].endswith(b'"zone_a":{"platform":"binary_sensor"}}}')
    assert again == (MAIN, PLAIN)


def test_announced_node_is_removed_while_discovery_is_off() -> None:
    node = Node()
    node.retained.receive(DISCOVERY.device(), PLAIN, retained=True)
    node.retained.receive(MAIN, PLAIN, retained=True)
    assert node.checks(5) == [(DISCOVERY.device(), b""), (MAIN, b"")]


def test_announced_node_that_was_renamed_is_removed_before_its_states() -> None:
    node = Node("edgepose/old", main=PLAIN)
    earlier = DiscoveryTopics("old")
    node.retained.receive("edgepose/old/info", b"{}", retained=True)
    for topic in (earlier.device(), earlier.device("main")):
        assert any(topic in group or earlier.filters[1] in group for group in node.retained.filters)
        node.retained.receive(topic, PLAIN, retained=True)
    assert node.checks(5) == [
        (earlier.device(), b""),
        (earlier.device("main"), b""),
        ("edgepose/old/info", b""),
    ]


def test_announced_device_that_the_user_deletes_stays_away_for_now() -> None:
    """Home Assistant clears the message then; the next connection announces it again."""
    node = Node(main=PLAIN)
    node.retained.receive(MAIN, b"", retained=False)
    assert node.checks(30) == []


def test_announced_again_some_time_after_the_birth_of_home_assistant() -> None:
    node = Node(main=PLAIN)
    assert node.checks(3) == []
    for _ in range(3):
        node.retained.receive(DISCOVERY.birth, b"online", retained=False)
    assert node.checks(5) == [(MAIN, PLAIN), (STATUS, b"online")]
    assert node.checks(30) == []
    assert BIRTH_DELAY_S[1] + 1 <= 5


@pytest.mark.parametrize(("payload", "retained"), [(b"online", True), (b"offline", False)])
def test_announced_not_again_at_what_is_no_birth(payload: bytes, retained: bool) -> None:
    node = Node(main=PLAIN)
    node.retained.receive(DISCOVERY.birth, payload, retained=retained)
    assert node.checks(30) == []
