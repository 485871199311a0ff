"""The tool that measures how many nodes a broker carries."""

import json
import subprocess
import sys

import pytest

from tests.mosquitto import require
from tools.broker_load import HEAD, STAMP, packet, stamps, text


@pytest.mark.parametrize("payload_bytes", [8, 100, 800, 20_000])
def test_broker_load_packets_are_read_as_written(payload_bytes: int) -> None:
    """Also if they arrive in pieces, between others that are no messages."""
    body = text("edgepose/a/main/poses") + STAMP.pack(7) + bytes(payload_bytes - 8)
    stream = bytearray()
    found: list[int] = []
    for byte in (packet(0x30, body) + packet(0xD0, b"")) * 3:
        stream.append(byte)
        found += stamps(stream)
    assert found == [7, 7, 7]
    assert len(stream) <= 5


@pytest.mark.parametrize("subscribers", [1, 2])
def test_broker_load_loses_nothing_at_a_small_load(subscribers: int) -> None:
    require("mosquitto")
    words = ("--nodes", "3", "--rate", "20", "--seconds", "1", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "tools.broker_load", *words, "--subscribers", str(subscribers)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert (measured["nodes"], measured["subscribers"], measured["lost"]) == (3, subscribers, 0)
    assert 0 < measured["published_per_s"] <= 60
    assert 0 <= measured["p50_ms"] <= measured["p99_ms"]


def test_broker_load_table_has_a_cell_for_each_heading() -> None:
    heading, rule = HEAD.splitlines()
    assert heading.count("|") == rule.count("|")
