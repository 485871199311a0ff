"""Discovery messages and settings of a real daemon at a real broker."""

import json
import os
import signal
from pathlib import Path

from edgepose.mqtt.topics import DiscoveryTopics
from tests.daemon import CAMERA, NODE, last, running, wait_for_last
from tests.mosquitto import Listener, Mosquitto, wait_for

PLACES = DiscoveryTopics("testnode")
NODE_CONFIG, CAMERA_CONFIG = PLACES.device(), PLACES.device("main")
AVAILABILITY = f"{NODE}/availability"


def test_daemon_announces_itself_before_its_states(
    tmp_path: Path, broker: Mosquitto, listener: Listener
) -> None:
    """On every connect, and when Home Assistant starts: discovery, info, states, availability."""
    with running(tmp_path, broker):
        wait_for_last(listener, AVAILABILITY, b"online")
        wait_for_last(listener, f"{CAMERA}/status", b"online")
        order = [message.topic for message in listener.received]
        assert order[:3] == [NODE_CONFIG, CAMERA_CONFIG, f"{NODE}/info"]
        before = order[: order.index(AVAILABILITY)]
        settings = {f"{NODE}/smoothing", f"{NODE}/pose_threshold", f"{CAMERA}/max_fps"}
        assert {f"{NODE}/accelerator", f"{CAMERA}/enabled", *settings} <= set(before)
        assert last(listener, f"{NODE}/smoothing") == b"steady"
        assert last(listener, f"{CAMERA}/max_fps") == b"0"
        assert json.loads(last(listener, CAMERA_CONFIG) or b"")["device"]["name"] == "testnode main"
        with broker.listener() as newcomer:
            for topic in (NODE_CONFIG, CAMERA_CONFIG, *settings):
                assert newcomer.wait_for(topic).retain

        born = len(listener.received)
        broker.publish(PLACES.birth, b"online")
        wait_for(lambda: f"{CAMERA}/status" in listener.topics()[born:], "the states")
        again = listener.topics()[born:]
        first = again.index(NODE_CONFIG)
        assert again[first : first + 3] == order[:3]
        assert again.count(NODE_CONFIG) == 1


def test_daemon_removes_what_it_announced_before(
    tmp_path: Path, broker: Mosquitto, listener: Listener
) -> None:
    """A camera that is gone, then its states; a zone that is gone; at last everything."""
    gone, state = PLACES.device("gone"), f"{NODE}/gone/presence"
    zone = b'{"components": {"zone_a_people": {"platform": "sensor"}}}'
    for topic, payload in ((gone, zone), (state, b"ON"), (CAMERA_CONFIG, zone)):
        broker.publish(topic, payload, retain=True)
    with running(tmp_path, broker) as daemon:
        wait_for_last(listener, state, b"")
        assert last(listener, gone) == b""
        removed = [message.topic for message in listener.received if not message.payload]
        assert removed == [gone, state]
        wait_for(lambda: len(listener.payloads(CAMERA_CONFIG)) == 4, "the removal of the zone")
        _, first, removal, second = map(json.loads, listener.payloads(CAMERA_CONFIG))
        assert first == second
        assert removal["components"].pop("zone_a_people") == {"platform": "sensor"}
        assert removal == first

        daemon.configure("homeassistant: {enabled: false}\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for_last(listener, CAMERA_CONFIG, b"")
        wait_for_last(listener, NODE_CONFIG, b"")
        with broker.listener() as newcomer:
            newcomer.wait_for(AVAILABILITY)
            assert not {NODE_CONFIG, CAMERA_CONFIG} & set(newcomer.topics())


def test_daemon_reload_removes_a_zone(
    tmp_path: Path, broker: Mosquitto, listener: Listener
) -> None:
    """From Home Assistant first, then its states."""
    zone = "{name: mat, polygon: [[0, 0], [1, 0], [1, 1], [0, 1]]}"
    state = f"{CAMERA}/zones/mat/count"
    config = f"cameras: [{{source: 'synthetic:', zones: [{zone}]}}]\n"
    with running(tmp_path, broker, config=config) as daemon:
        listener.wait_for(state)
        daemon.configure("cameras: [{source: 'synthetic:'}]\n")
        seen = len(listener.received)
        daemon.process.send_signal(signal.SIGHUP)
        wait_for_last(listener, state, b"")
    received = [m for m in listener.received[seen:] if m.topic in (CAMERA_CONFIG, state)]
    removal, plain, cleared = [m for m in received if m.topic != state or not m.payload]
    removed = json.loads(removal.payload)["components"]
    assert removed["zone_mat_people"] == {"platform": "sensor"}
    assert removed["zone_mat_occupancy"] == {"platform": "binary_sensor"}
    assert "zone_mat_people" not in json.loads(plain.payload)["components"]
    assert cleared.topic == state


def test_daemon_reload_links_the_page(
    tmp_path: Path, broker: Mosquitto, listener: Listener
) -> None:
    """The devices of Home Assistant have the address of the page from then on."""

    def link(topic: str) -> object:
        return json.loads(last(listener, topic) or b"{}")["device"].get("configuration_url")

    with running(tmp_path, broker) as daemon:
        listener.wait_for(CAMERA_CONFIG)
        assert link(CAMERA_CONFIG) is None
        daemon.configure("dashboard: {url: 'http://gym.local:8080'}\n")
        daemon.process.send_signal(signal.SIGHUP)
        # The node's message is sent first.
        wait_for(lambda: link(CAMERA_CONFIG) == "http://gym.local:8080", "the link")
        assert link(NODE_CONFIG) == "http://gym.local:8080"


def test_daemon_settings_outlast_a_restart(
    tmp_path: Path, broker: Mosquitto, listener: Listener
) -> None:
    """What was set wins over the file until the file's own value changes."""
    states = {
        f"{CAMERA}/max_fps": (b"500", b"120"),
        f"{NODE}/smoothing": (b"off", b"off"),
        f"{NODE}/pose_threshold": (b"0.25", b"0.25"),
    }
    with running(tmp_path, broker) as daemon:
        wait_for_last(listener, AVAILABILITY, b"online")
        for topic, (payload, expected) in states.items():
            broker.publish(f"{topic}/set", b"anything else")
            broker.publish(f"{topic}/set", payload)
            wait_for_last(listener, topic, expected)
        wait_for(
            lambda: b'"pose_threshold":0.25' in (last(listener, f"{NODE}/accelerator") or b""),
            "the model with that threshold",
        )
        _, _, stderr = daemon.end()
    assert stderr.count("ignored") == 3
    seen = len(listener.received)
    with running(tmp_path, broker, config="smoothing: {preset: responsive}\n"):
        wait_for(lambda: AVAILABILITY in listener.topics()[seen:], "the node to return")
        assert last(listener, f"{NODE}/smoothing") == b"responsive"
        assert last(listener, f"{CAMERA}/max_fps") == b"120"
        assert last(listener, f"{NODE}/pose_threshold") == b"0.25"


def test_daemon_frame_rate_limit_lowers_the_rate(
    tmp_path: Path, broker: Mosquitto, listener: Listener
) -> None:
    """The frames that are left out are not counted as dropped."""
    with running(tmp_path, broker):
        wait_for_last(listener, f"{CAMERA}/status", b"online")
        broker.publish(f"{CAMERA}/max_fps/set", b"5")
        wait_for_last(listener, f"{CAMERA}/max_fps", b"5")

        listener.wait_for(f"{NODE}/stats")

        def fps() -> float:
            stats = json.loads(last(listener, f"{NODE}/stats") or b"")
            return float(stats["cameras"]["main"]["fps"])

        wait_for(lambda: 4 <= fps() <= 6, "five frames a second")


def test_daemon_restart_command(tmp_path: Path, broker: Mosquitto, listener: Listener) -> None:
    """Ignored at a terminal, and within a minute of the start of a service."""
    environment = {"NOTIFY_SOCKET": os.fspath(tmp_path / "nobody")}
    for environ, reason in (({}, "no service manager"), (environment, "less than a minute")):
        with running(tmp_path, broker, environment=environ) as daemon:
            listener.received.clear()
            wait_for_last(listener, AVAILABILITY, b"online")
            broker.publish(f"{NODE}/restart/set", b"PRESS")
            broker.publish(f"{CAMERA}/max_fps/set", b"%d" % len(reason))
            wait_for_last(listener, f"{CAMERA}/max_fps", b"%d" % len(reason))
            code, _, stderr = daemon.end()
        assert code == 0
        assert reason in stderr
