"""Topics; users rely on them, so every one is written out here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.errors import ConfigError, EdgeposeError
from edgepose.mqtt.topics import Topics, check_base, check_id

IDS = st.text("abcXYZ019_-", min_size=1, max_size=12)


def test_topics_of_the_contract() -> None:
    topics = Topics(node="gym")
    assert topics.root == "edgepose/gym"
    assert topics.availability == "edgepose/gym/availability"
    assert topics.info == "edgepose/gym/info"
    assert topics.stats == "edgepose/gym/stats"
    assert topics.accelerator == "edgepose/gym/accelerator"
    assert topics.poses("main") == "edgepose/gym/main/poses"
    assert topics.presence("main") == "edgepose/gym/main/presence"
    assert topics.count("main") == "edgepose/gym/main/count"
    assert topics.event("main") == "edgepose/gym/main/event"
    assert topics.status("main") == "edgepose/gym/main/status"
    assert topics.enabled("main") == "edgepose/gym/main/enabled"
    assert topics.command("main", "enabled") == "edgepose/gym/main/enabled/set"


@given(IDS, IDS)
def test_topics_valid_ids_are_unchanged(node: str, camera: str) -> None:
    assert Topics(node=node, base="a/b").poses(camera).split("/") == [
        "a",
        "b",
        node,
        camera,
        "poses",
    ]


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "+", "#", "ä", "a.b", "a\n", "a\0", "\u0660"])
def test_topics_invalid_ids(bad: str) -> None:
    with pytest.raises(ConfigError, match="the node id"):
        Topics(node=bad)
    with pytest.raises(ValueError, match="the camera id"):
        Topics(node="gym").presence(bad)
    with pytest.raises(EdgeposeError):
        check_id(bad, "the id")


@pytest.mark.parametrize("good", ["edgepose", "home/sensors", "Küche", "a-b_c.d"])
def test_topics_base_with_levels(good: str) -> None:
    assert check_base(good) == good


@pytest.mark.parametrize(
    "bad", ["", "/a", "a/", "a//b", "a/+", "#", "$SYS", "a\nb", "a\0", "x" * 40_000]
)
def test_topics_invalid_base(bad: str) -> None:
    with pytest.raises(ConfigError, match="base topic"):
        Topics(node="gym", base=bad)
