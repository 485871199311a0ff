"""Which commands are accepted, and what becomes of the others."""

import logging

import pytest

from edgepose.config.fields import fields_of
from edgepose.config.schema import SmoothingConfig
from edgepose.config.values import parts
from edgepose.mqtt import commands
from edgepose.mqtt.commands import Command, CommandReceiver
from edgepose.mqtt.topics import Topics

GYM = Topics(node="gym")


class Receiver:
    """A receiver of two cameras, with what it passed on."""

    def __init__(self) -> None:
        self.passed: list[Command] = []
        self.receiver = CommandReceiver(GYM, ["main", "door"], self.passed.append)

    def receive(self, topic: str, payload: bytes) -> list[Command]:
        self.passed.clear()
        self.receiver.receive(f"edgepose/gym/{topic}/set", payload)
        return self.passed


def test_command_topics_of_cameras_and_of_the_node() -> None:
    assert sorted(Receiver().receiver.topics) == [
        "edgepose/gym/door/enabled/set",
        "edgepose/gym/door/max_fps/set",
        "edgepose/gym/main/enabled/set",
        "edgepose/gym/main/max_fps/set",
        "edgepose/gym/pose_threshold/set",
        "edgepose/gym/restart/set",
        "edgepose/gym/smoothing/set",
    ]


@pytest.mark.parametrize(
    ("topic", "payload"),
    [("main/max_fps", b"0"), ("main/max_fps", b"12.5"), ("door/max_fps", b"500"),
     ("pose_threshold", b"0.33"), ("pose_threshold", b"-1"), ("smoothing", b"off"),
     ("smoothing", b"steady"), ("restart", b"PRESS"), ("main/enabled", b"OFF")],
)  # fmt: skip
def test_command_valid(topic: str, payload: bytes) -> None:
    camera, _, name = topic.rpartition("/")
    assert Receiver().receive(topic, payload) == [Command(camera or None, name, payload)]


@pytest.mark.parametrize(
    ("topic", "payload", "expected"),
    [("main/max_fps", b"", "a number from 0 to 120"),
     ("main/max_fps", b"fast", "a number from 0 to 120"),
     ("main/max_fps", b"1e3", "a number from 0 to 120"),
     ("main/max_fps", b"nan", "a number from 0 to 120"),
     ("main/max_fps", b" 5", "a number from 0 to 120"),
     ("main/max_fps", b"5\n", "a number from 0 to 120"),
     ("main/max_fps", "\u0665".encode(), "a number from 0 to 120"),
     ("main/max_fps", b"9" * 5000, "a number from 0 to 120"),
     ("pose_threshold", b"0,5", "a number from 0 to 1"),
     ("smoothing", b"Steady", "steady, responsive, off"),
     ("smoothing", b"\xff", "steady, responsive, off"),
     ("restart", b"press", "PRESS"), ("restart", b"", "PRESS")],
)  # fmt: skip
def test_command_invalid_is_ignored_and_logged(
    topic: str, payload: bytes, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert Receiver().receive(topic, payload) == []
    assert f"edgepose/gym/{topic}/set: expected {expected}" in caplog.text
    assert len(caplog.text) < 300


def test_command_numbers_are_moved_into_their_range() -> None:
    """Home Assistant logs an error at a value outside of what was announced."""
    assert commands.parse_max_fps(b"1000") == 120
    assert commands.parse_max_fps(b"-5") == 0
    assert commands.parse_pose_threshold(b"1.5") == 1
    assert commands.parse_pose_threshold(b"-0.1") == 0
    assert commands.parse_pose_threshold(b"0.25") == 0.25


def test_command_earlier_than_the_connection_is_only_taken_if_it_is_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A retained `PRESS` would restart the node for ever."""
    node = Receiver()
    for topic, payload in (
        ("restart", b"PRESS"),
        ("main/max_fps", b"5"),
        ("main/enabled", b"ON"),
        ("main/enabled", b"OFF"),
    ):
        node.receiver.receive_earlier(f"edgepose/gym/{topic}/set", payload)
    assert node.passed == [Command("main", "enabled", b"OFF")]


def test_command_presets_are_those_of_the_configuration() -> None:
    literals = [set(getattr(part, "__args__", ())) for part in parts(
        fields_of(SmoothingConfig)["preset"].type
    )]  # fmt: skip
    assert set(commands.SMOOTHING) in literals
