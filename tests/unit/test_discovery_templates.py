"""The templates of the discovery messages, rendered as Home Assistant does."""

import json
from contextlib import suppress
from typing import Any

import jinja2
import jinja2.sandbox
import pytest

from edgepose.messages import AcceleratorMessage, encode
from tests.homeassistant.devices import GOLDEN, camera, gym_main, node


def values(of: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the topic, template and key of all templates of a message."""
    found = [
        (topic["topic"], topic["value_template"], "availability")
        for topic in of.get("availability", [])
        if "value_template" in topic
    ]
    for key, part in of["components"].items():
        for template, topic in (
            ("value_template", "state_topic"),
            ("json_attributes_template", "json_attributes_topic"),
        ):
            if template in part:
                found.append((part[topic], part[template], key))
    return found


def rendered(template: str, payload: str) -> str:
    """Render as Home Assistant does; a value that is not there is an error, which it logs."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    environment.filters["to_json"] = json.dumps
    environment.tests["search"] = lambda value, pattern: value.endswith(pattern.rstrip("$"))
    variables: dict[str, object] = {"value": payload}
    with suppress(ValueError):
        variables["value_json"] = json.loads(payload)
    text: str = environment.from_string(template).render(variables)
    return text


def state(message: dict[str, Any], key: str, payload: bytes | str) -> str:
    text = payload if isinstance(payload, str) else payload.decode()
    return rendered(message["components"][key]["value_template"], text)


@pytest.mark.parametrize("message", [node(), gym_main()], ids=["node", "camera"])
def test_discovery_templates_of_empty_messages(message: dict[str, Any]) -> None:
    """None of them fails, and what is not known is `None`, which Home Assistant understands."""
    found = values(message)
    assert len(found) >= 6
    for _, template, key in found:
        expected = {
            "accelerator": ("none", '{"model": null, "reason": null, "since": null}'),
            "degraded": ("OFF",),
            "exercise": ("nothing",),
            "event": ("",),
            "status": ("OFF",),
            "availability": ("offline",),
        }.get(key, ("None",))
        assert rendered(template, "{}") in expected, key


def test_discovery_templates_of_statistics() -> None:
    stats = json.dumps(json.loads((GOLDEN / "states.json").read_text())["edgepose/gym/stats"])
    assert state(node(), "temperature", stats) == "51.2"
    assert state(node(), "memory", stats) == "101.8"
    assert state(node(), "throttled", stats) == "OFF"
    assert state(node(), "throttled", stats.replace('voltage_occurred"', 'voltage"')) == "ON"
    assert state(gym_main(), "fps", stats) == "15.02"
    assert state(gym_main(), "latency", stats) == "13.1"
    assert state(camera("attic"), "fps", stats) == "None"


def test_discovery_templates_of_the_accelerator() -> None:
    message = AcceleratorMessage(
        device="edgetpu",
        degraded=True,
        reason="unplugged",
        since="2026-01-31T12:00:00.123456Z",
        model="m",
        pose_threshold=0.3,
        keypoint_threshold=0.3,
        restarts=1,
    )
    payload = encode(message).decode()
    assert state(node(), "accelerator", payload) == "edgetpu"
    assert state(node(), "degraded", payload) == "ON"
    attributes = node()["components"]["accelerator"]["json_attributes_template"]
    assert json.loads(rendered(attributes, payload)) == {
        "model": "m",
        "reason": "unplugged",
        "since": "2026-01-31T12:00:00.123456Z",
    }
    # No model runs, though an Edge TPU is waited for.
    assert state(node(), "accelerator", payload.replace('"m"', "null")) == "none"


def test_discovery_templates_of_states() -> None:
    for status, connected, available in (
        ("online", "ON", "online"),
        ("stalled", "OFF", "offline"),
        ("offline", "OFF", "offline"),
    ):
        assert state(gym_main(), "status", status) == connected
        template = gym_main()["availability"][1]["value_template"]
        assert rendered(template, status) == available
    repetitions = '{"exercise": "squat", "count": 12}'
    assert state(gym_main(), "repetitions", repetitions) == "12"
    assert state(gym_main(), "exercise", repetitions) == "squat"
    assert state(gym_main(), "exercise", '{"exercise": null, "count": 0}') == "nothing"


def test_discovery_event_template_passes_only_what_it_announces() -> None:
    """The types of a later version would be a warning at every event."""
    event = '{"type": "enter", "track_id": 3, "time": "2026-01-31T12:00:00.123456Z"}'
    assert json.loads(state(gym_main(), "event", event)) == {
        **json.loads(event),
        "event_type": "enter",
    }
    assert state(gym_main(), "event", event.replace("enter", "dance")) == ""
    assert state(camera("kitchen"), "event", event.replace("enter", "zone_enter")) == ""
