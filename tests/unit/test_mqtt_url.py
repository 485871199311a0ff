"""Broker addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.errors import ConfigError
from edgepose.mqtt.url import BrokerAddress, parse_broker_url
from edgepose.util.secrets import MQTT_VARIABLE


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://localhost", BrokerAddress("localhost", 1883)),
        ("mqtt://localhost/", BrokerAddress("localhost", 1883)),
        ("mqtts://broker.lan", BrokerAddress("broker.lan", 8883, tls=True)),
        ("mqtt://10.0.0.2:1884", BrokerAddress("10.0.0.2", 1884)),
        ("mqtt://pose@broker:1883", BrokerAddress("broker", 1883, username="pose")),
        ("mqtt://a%40b%3Ac@broker", BrokerAddress("broker", 1883, username="a@b:c")),
        ("mqtts://[fd00::1]:8884", BrokerAddress("fd00::1", 8884, tls=True)),
    ],
)
def test_broker_url_round_trip(url: str, address: BrokerAddress) -> None:
    assert parse_broker_url(url) == address
    assert parse_broker_url(str(address)) == address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("localhost", "does not begin with mqtt://"),
        ("localhost:1883", "does not begin with mqtt://"),
        ("http://localhost", "does not begin with mqtt://"),
        ("ws://localhost:9001", "does not begin with mqtt://"),
        ("mqtt:localhost", "does not begin with mqtt://"),
        ("", "does not begin with mqtt://"),
        ("mqtt://", "does not begin with mqtt://"),
        ("mqtt://:1883", "has no host"),
        ("mqtt://pose@", "has no host"),
        ("mqtt://h:0", "port 0"),
        ("mqtt://h:65536", "invalid port"),
        ("mqtt://h:abc", "invalid port"),
        ("mqtt://h/topic", "after host and port"),
        ("mqtt://h?x=1", "after host and port"),
        ("mqtt://[fd00::1", "malformed"),
        ("mqtt://a b", "space"),
        ("mqtt://a\n", "space"),
    ],
)
def test_broker_url_errors(url: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_broker_url(url)


def test_broker_url_with_password_names_remedy() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_broker_url("mqtt://pose:hunter2@broker")
    assert "hunter2" not in str(caught.value)
    assert "password_file" in str(caught.value)
    assert MQTT_VARIABLE in str(caught.value)


@given(
    st.sampled_from(["mqtt://", "mqtts://", "http://", ""]),
    st.sampled_from(["broker", "broker:99999", "broker:x", "", "[::1", "broker/path"]),
    st.sampled_from(
        ["S3cr3t", "S3cr3t/x", "S3cr3t#x", "S3cr3t?x", "x@S3cr3t", "S3cr3t:9", "S3cr3t["]
    ),
)
def test_broker_url_errors_mask_password(scheme: str, rest: str, password: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_broker_url(f"{scheme}pose:{password}@{rest}")
    assert "S3cr3t" not in str(caught.value)
    assert "S3cr3t" not in repr(caught.value.__cause__)
