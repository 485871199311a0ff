"""The daemon itself in a real Home Assistant: what its users see, and that nothing is warned of."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from tests.documents import automations
from tests.homeassistant.home import ADDRESS, Home, until

pytestmark = [pytest.mark.homeassistant, pytest.mark.timeout(3600)]

OCCUPANCY = "binary_sensor.gym_main_occupancy"
KITCHEN = "{name: kitchen, source: 'synthetic:?fps=10', label: Kitchen, area: Kitchen}"
DOOR = "{name: door-way, polygon: [[0, 0], [0.1, 0], [0.1, 0.1], [0, 0.1]]}"
MAT = "{name: mat, polygon: [[0, 0], [1, 0], [1, 1], [0, 1]], place: torso}"

EXPECTED = {
    "binary_sensor.gym_connection": "on",
    "binary_sensor.gym_degraded": "off",
    "binary_sensor.gym_main_fall": "off",
    "binary_sensor.gym_main_occupancy": "on",
    "binary_sensor.gym_main_status": "on",
    "binary_sensor.gym_main_zone_door_way_occupancy": "off",
    "binary_sensor.gym_main_zone_mat_occupancy": "on",
    "event.gym_main_event": None,
    "number.gym_main_max_fps": None,
    "number.gym_pose_threshold": None,
    "select.gym_smoothing": None,
    "sensor.gym_accelerator": "cpu",
    "sensor.gym_main_exercise": "nothing",
    "sensor.gym_main_fps": None,
    "sensor.gym_main_latency": None,
    "sensor.gym_main_people": "1",
    "sensor.gym_main_posture": "unclear",
    "sensor.gym_main_repetitions": "0",
    "sensor.gym_main_zone_door_way_people": "0",
    "sensor.gym_main_zone_mat_people": "1",
    "sensor.gym_memory": None,
    "switch.gym_main_enabled": "on",
    "binary_sensor.gym_kitchen_fall": "off",
    "binary_sensor.gym_kitchen_occupancy": "on",
    "binary_sensor.gym_kitchen_status": "on",
    "event.gym_kitchen_event": None,
    "number.gym_kitchen_max_fps": None,
    "sensor.gym_kitchen_exercise": "nothing",
    "sensor.gym_kitchen_fps": None,
    "sensor.gym_kitchen_latency": None,
    "sensor.gym_kitchen_people": "1",
    "sensor.gym_kitchen_posture": "unclear",
    "sensor.gym_kitchen_repetitions": "0",
    "switch.gym_kitchen_enabled": "on",
}
"""The state of each entity; None is any of an event, and that of one disabled by default."""


class Node:
    """A daemon of the node `gym` beside Home Assistant, with two cameras."""

    def __init__(self, folder: Path, home: Home) -> None:
        self._folder, self._home = folder, home
        self.configure()
        self._process = self._start()

    def configure(
        self,
        *,
        kitchen: bool = True,
        zones: str = f"{MAT}, {DOOR}",
        posture: bool = True,
        more: str = "",
    ) -> None:
        """Write the configuration.

        On a busy machine the moving photograph is lost for seconds at a time, which must not look
        like an `off` that the daemon published for another reason.
        """
        cameras = f"{{name: main, source: 'synthetic:?fps=10', zones: [{zones}]}}"
        (self._folder / "config.yaml").write_text(
            f"node: gym\nstate_directory: {self._folder / 'state'}\nstats_interval_s: 2\n"
            f"mqtt: {{url: '{ADDRESS}'}}\nrepetitions: {{exercise: auto}}\n"
            "presence: {off_delay_ms: 30000}\n"
            f"posture: {{enabled: {str(posture).lower()}}}\nfalls: {{enabled: true}}\n"
            f"cameras: [{cameras}{', ' + KITCHEN if kitchen else ''}]\n{more}"
        )

    def reload(self, **changes: object) -> None:
        """Reload a changed configuration."""
        self.configure(**changes)  # type: ignore[arg-type]
        self.send(signal.SIGHUP)

    def send(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def restart(self, number: int = signal.SIGTERM) -> None:
        """End the daemon by a signal, and start it again."""
        self.end(number)
        self._process = self._start()

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the daemon by a signal."""
        self._process.send_signal(number)
        self._process.wait(30)

    def _start(self) -> subprocess.Popen[bytes]:
        words = (sys.executable, "-m", "edgepose", "run", "-c", str(self._folder / "config.yaml"))
        with (self._folder / "log").open("ab") as log:
            # It waits for its broker as a service does.
            environment = {**os.environ, "NOTIFY_SOCKET": "/nowhere"}
            return subprocess.Popen(
                self._home.command(*words), stdout=log, stderr=log, env=environment
            )


@pytest.fixture
def node(tmp_path: Path, home: Home) -> Iterator[Node]:
    """Return a daemon whose entities are there."""
    home.mark()
    daemon = Node(tmp_path, home)
    home.wait(OCCUPANCY, "on")
    home.wait("binary_sensor.gym_kitchen_occupancy", "on")
    yield daemon
    daemon.end(signal.SIGKILL)


def check(home: Home) -> None:
    """Check the states of all entities, and that nothing was warned of."""
    expected = comparable(EXPECTED)
    # Home Assistant adds the entities of a message one after the other.
    with suppress(AssertionError):
        until(lambda: comparable(home.states()) == expected, "all entities", 30)
    # It writes its log, and takes what is on its way.
    time.sleep(2)
    assert comparable(home.states()) == expected
    assert home.warnings() == []


def comparable(states: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the states without events, and without what is different for each machine."""
    own = ("binary_sensor.gym_throttled", "sensor.gym_temperature", "button.gym_restart", "event.")
    return {entity: state for entity, state in states.items() if not entity.startswith(own)}


@contextmanager
def never_off(home: Home) -> Iterator[None]:
    """Check that the occupancy goes away and comes back, and is never `off` in between."""
    with home.stream(OCCUPANCY) as states:
        yield
    assert "off" not in states, states
    assert states[0] == states[-1] == "on", states
    assert "unavailable" in states, states


def test_home_assistant_has_every_entity(home: Home, node: Node) -> None:
    """Three devices: the node, and its cameras in their areas."""
    check(home)
    assert home.ask("devices") == ["Kitchen", "gym", "gym main"]
    entities = home.entities()
    kitchen = entities["binary_sensor.gym_kitchen_occupancy"]
    assert (kitchen["area"], kitchen["via"]) == ("Kitchen", "gym")
    assert kitchen["attributes"]["friendly_name"] == "Kitchen Occupancy"
    assert entities["event.gym_main_event"]["state"] != "unavailable"
    assert entities["sensor.gym_accelerator"]["attributes"]["model"] == "movenet-lightning-int8"


def test_home_assistant_accepts_the_automations_of_the_documents(home: Home, node: Node) -> None:
    """They are valid, and their entities exist."""
    assert automations()
    for block in automations():
        triggers = yaml.safe_load(block.text)["triggers"]
        assert home.ask("valid", json.dumps(triggers))
        assert {trigger["entity_id"] for trigger in triggers} <= home.states().keys()


def test_home_assistant_switches_a_camera(home: Home, node: Node) -> None:
    with never_off(home):
        home.call("switch.turn_off", "switch.gym_main_enabled")
        home.wait("switch.gym_main_enabled", "off")
        home.wait(OCCUPANCY, "unavailable")
        assert home.states()["binary_sensor.gym_main_status"] == "off"
        home.call("switch.turn_on", "switch.gym_main_enabled")
        home.wait(OCCUPANCY, "on")
    check(home)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_home_assistant_sees_a_node_end_and_return(home: Home, node: Node, number: int) -> None:
    with never_off(home):
        node.end(number)
        home.wait(OCCUPANCY, "unavailable")
        assert home.states()["binary_sensor.gym_connection"] == "off"
        node.restart()
        home.wait(OCCUPANCY, "on")
    check(home)


def test_home_assistant_sees_a_node_that_hangs(home: Home, node: Node) -> None:
    with never_off(home):
        node.send(signal.SIGSTOP)
        home.wait(OCCUPANCY, "unavailable")
        node.send(signal.SIGCONT)
        home.wait(OCCUPANCY, "on")
    check(home)


def test_home_assistant_after_the_broker_lost_everything(home: Home, node: Node) -> None:
    home.replace_broker()
    home.wait(OCCUPANCY, "on")
    home.wait("binary_sensor.gym_kitchen_occupancy", "on")
    check(home)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_home_assistant_restarted(home: Home, node: Node, number: int) -> None:
    if number == signal.SIGKILL:
        # It writes its registries ten seconds after a change.
        time.sleep(11)
    home.restart(number)
    home.wait(OCCUPANCY, "on")
    home.wait("binary_sensor.gym_kitchen_occupancy", "on")
    check(home)


def test_home_assistant_follows_a_reload(home: Home, node: Node) -> None:
    """A zone and the posture are gone, and return; the occupancy is not touched.

    The devices have a link to the live page from then on: Home Assistant keeps what is left out.
    """
    gone = (
        *("sensor.gym_main_zone_mat_people", "binary_sensor.gym_main_zone_mat_occupancy"),
        "sensor.gym_main_posture",
    )
    with home.stream(OCCUPANCY) as states:
        more = "homeassistant: {name: Cellar}\ndashboard: {url: 'http://gym.local:8080'}\n"
        node.reload(zones=DOOR, posture=False, more=more)
        for entity in gone:
            home.wait(entity, "absent")
        time.sleep(2)
        assert home.warnings() == []
        assert home.ask("devices") == ["Cellar", "Kitchen", "gym main"]
        entities = home.entities()
        assert not set(gone) & entities.keys()
        assert {row["page"] for row in entities.values()} == {"http://gym.local:8080"}
        node.reload()
        home.wait(gone[0], "1")
    assert states == ["on"]
    check(home)


def test_home_assistant_forgets_a_zone_and_a_camera_that_are_gone(home: Home, node: Node) -> None:
    """Of an earlier run: only the broker knows them."""
    node.end()
    node.configure(kitchen=False, zones=DOOR)
    node.restart()
    home.wait("binary_sensor.gym_kitchen_occupancy", "absent")
    home.wait("sensor.gym_main_zone_mat_people", "absent")
    home.wait(OCCUPANCY, "on")
    time.sleep(2)
    assert home.ask("devices") == ["gym", "gym main"]
    # 2026.2.3 warns once for each disabled entity of a device that is removed after a restart.
    assert [w for w in home.warnings() if "No device components to cleanup" not in w] == []


def test_home_assistant_sets_values(home: Home, node: Node) -> None:
    """All that is disabled by default is enabled, and every number and choice set once."""
    hidden = [e for e, state in home.states().items() if state is None]
    for entity in hidden:
        home.ask("enable", entity)
    # Home Assistant waits half a minute for more of them, then loads the integration again.
    for entity, state in (("number.gym_main_max_fps", "0"), ("select.gym_smoothing", "steady")):
        home.wait(entity, state, 90)
    home.wait("number.gym_pose_threshold", "0.3")
    home.call("number.set_value", "number.gym_main_max_fps", value=5)
    home.call("number.set_value", "number.gym_pose_threshold", value=0.25)
    home.call("select.select_option", "select.gym_smoothing", option="responsive")
    home.wait("number.gym_main_max_fps", "5")
    home.wait("number.gym_pose_threshold", "0.25")
    home.wait("select.gym_smoothing", "responsive")
    node.restart()
    home.wait(OCCUPANCY, "on")
    home.wait("number.gym_main_max_fps", "5")
    time.sleep(3)
    assert home.warnings() == []
    unknown = [e for e in hidden if home.states()[e] in ("unknown", "unavailable")]
    assert [entity for entity in unknown if not entity.startswith("button.")] == []


def test_home_assistant_forgets_a_node_whose_discovery_is_off(home: Home, node: Node) -> None:
    node.reload(more="homeassistant: {enabled: false}\n")
    home.wait("binary_sensor.gym_connection", "absent")
    home.wait(OCCUPANCY, "absent")
    time.sleep(2)
    assert home.ask("devices") == []
    assert [w for w in home.warnings() if "No device components to cleanup" not in w] == []
