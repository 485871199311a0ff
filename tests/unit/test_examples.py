"""The files of docs/examples against our topics, messages and entities."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
import yaml

from edgepose.messages import EventMessage, PoseMessage
from edgepose.mqtt.topics import Topics
from tests.builders import line_of
from tests.documents import ROOT, blocks, example

TOPICS = Topics(node="gym")
ENTITIES = json.loads((ROOT / "tests/homeassistant/golden/expected.json").read_text())
CARDS = {"vertical-stack", "tile", "entities", "conditional", "markdown", "history-graph"}


def values(tree: object, key: str) -> Iterator[str]:
    """Yield the strings under a key anywhere in a tree, also those in lists."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            found = value if isinstance(value, list) else [value]
            if name == key:
                yield from (one for one in found if isinstance(one, str))
            yield from values(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from values(value, key)


def matches(topic_filter: str, topic: str) -> bool:
    levels = topic_filter.split("/")
    return len(levels) == topic.count("/") + 1 and all(
        level in ("+", part) for level, part in zip(levels, topic.split("/"), strict=True)
    )


def test_example_automations_name_entities_that_exist() -> None:
    """Their ids are those that discovery makes of `gym` and `main`."""
    automations = yaml.safe_load(example("home-assistant-automations.yaml").read_text())
    assert len({one["id"] for one in automations}) == len(automations) == 3
    used = {entity for entity in values(automations, "entity_id") if "gym_main" in entity}
    assert used <= set(ENTITIES)
    assert "binary_sensor.gym_main_occupancy" in used
    for one in automations:
        assert {"alias", "triggers", "actions"} <= set(one)


def test_example_card_names_entities_that_exist() -> None:
    card = yaml.safe_load(example("home-assistant-card.yaml").read_text())
    assert set(values(card, "type")) == CARDS
    used = {*values(card, "entity"), *values(card, "entities")}
    assert used <= set(ENTITIES)
    assert len(used) >= 5
    # What is disabled in Home Assistant has no state to show.
    assert all(ENTITIES[entity] is not None for entity in used)


def test_example_python_program_is_the_one_in_the_document() -> None:
    program = example("subscriber.py").read_text()
    assert program in [block.text for block in blocks("")]
    assert len([line for line in program.splitlines() if line]) <= 15


def node_red() -> dict[str, dict[str, Any]]:
    return {node["id"]: node for node in json.loads(example("node-red-flow.json").read_text())}


def test_example_node_red_flow_is_connected() -> None:
    """Every wire and broker names a node, and the topic is ours."""
    nodes = node_red()
    assert nodes["edgepose-poses"]["topic"] == TOPICS.poses("main")
    assert nodes["edgepose-poses"]["datatype"] == "json"
    for node in nodes.values():
        wired = [target for output in node.get("wires", []) for target in output]
        assert set(wired) <= set(nodes)
        if node["type"].startswith("mqtt "):
            assert node["broker"] == "edgepose-broker"
        assert node["type"] in ("tab", "mqtt-broker", "mqtt in", "function", "mqtt out")


def with_keypoints(**points: tuple[float, float] | None) -> dict[str, Any]:
    """Return a pose message as JSON; keypoints that are not given are null."""
    order = ("left_shoulder", "right_shoulder", "left_wrist", "right_wrist")
    keypoints: list[object] = [None] * 17
    for name, index in zip(order, (5, 6, 9, 10), strict=True):
        point = points.get(name)
        keypoints[index] = point and [*point, 0.9]
    message: dict[str, Any] = json.loads(line_of(0.0))
    message["poses"][0]["keypoints"] = keypoints
    return message


def test_example_node_red_function_finds_a_raised_hand() -> None:
    """It publishes changes only; a keypoint that is not visible is not above another."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    up = with_keypoints(left_shoulder=(0.5, 0.5), left_wrist=(0.5, 0.3))
    down = with_keypoints(right_shoulder=(0.5, 0.5), right_wrist=(0.5, 0.7))
    hidden = with_keypoints(left_wrist=(0.5, 0.1))
    empty = {**up, "poses": []}
    crossed = with_keypoints(right_shoulder=(0.5, 0.5), left_wrist=(0.5, 0.3))
    messages = [empty, up, up, down, hidden, up, empty, crossed]
    program = """
        const [code, messages] = JSON.parse(require("fs").readFileSync(0));
        const store = new Map();
        const context = {get: (key) => store.get(key), set: (key, value) => store.set(key, value)};
        const run = new Function("msg", "context", code);
        console.log(JSON.stringify(messages.map((payload) => run({payload}, context)?.payload)));
    """
    done = subprocess.run(
        [node, "-e", program],
        input=json.dumps([node_red()["edgepose-raised"]["func"], messages]),
        text=True,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == ["OFF", "ON", None, "OFF", None, "ON", "OFF", None]


def test_example_telegraf_reads_topics_and_fields_that_exist() -> None:
    """Telegraf itself is not run."""
    config = tomllib.loads(example("telegraf.conf").read_text())
    inputs = {one["name_override"]: one for one in config["inputs"]["mqtt_consumer"]}
    topics = {
        "edgepose_people": TOPICS.count("main"),
        "edgepose_event": TOPICS.event("main"),
        "edgepose_stats": TOPICS.stats,
    }
    assert set(inputs) == set(topics)
    for name, topic in topics.items():
        (topic_filter,) = inputs[name]["topics"]
        assert matches(topic_filter, topic)
        for parsing in inputs[name].get("topic_parsing", ()):
            assert parsing["topic"] == topic_filter
            tags = dict(zip(parsing["tags"].split("/"), topic.split("/"), strict=True))
            assert tags["node"] == "gym"
            assert tags.get("camera", "main") == "main"
    event = inputs["edgepose_event"]
    named = {*event["tag_keys"], *event["json_string_fields"], event["json_time_key"]}
    assert named <= set(EventMessage.__struct_fields__)
    assert set(config["outputs"]) == {"influxdb_v2", "postgresql"}


def test_example_keypoint_order_is_that_of_the_messages() -> None:
    """The indices in the Node-RED function are those of the named keypoints."""
    from edgepose.skeleton import KEYPOINT_NAMES

    code = node_red()["edgepose-raised"]["func"]
    found = re.search(r"const \[([A-Z_, ]+)\] = \[([\d, ]+)\]", code)
    assert found is not None
    names = [name.lower() for name in found[1].split(", ")]
    assert [KEYPOINT_NAMES.index(name) for name in names] == [int(n) for n in found[2].split(", ")]
    assert msgspec.json.decode(line_of(0.0), type=PoseMessage).poses
