"""What the page keeps for browsers, who may open it, and the process beside a daemon."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Coroutine
from typing import TypeVar

import pytest

from edgepose.config.schema import Config, DashboardConfig, MqttConfig
from edgepose.daemon import page_process
from edgepose.daemon.page_process import PageProcess
from edgepose.dashboard.access import Access, check_listen, is_loopback
from edgepose.dashboard.hub import MAX_EVENTS, MAX_TOPICS, Browser, Hub
from edgepose.errors import ConfigError
from edgepose.util.address import check_page_url, parse_listen
from edgepose.util.secrets import Secret
from tests.mosquitto import wait_for

TOKEN = Secret("0123456789abcdef")
T = TypeVar("T")


def taken(browser: Browser) -> list[str]:
    """Return what waits for a browser."""
    waiting: Coroutine[None, None, list[str]] = browser.take()
    return asyncio.run(waiting)


def test_hub_a_new_browser_gets_every_state() -> None:
    """States are kept until their topic is cleared; poses and events are not."""
    hub = Hub()
    hub.set_connection(None)
    for topic, payload in (
        ("gym/main/status", b"stalled"),
        ("gym/main/status", b"online"),
        ("gym/main/poses", b"{}"),
        ("gym/main/event", b"{}"),
        ("gym/old/status", b"online"),
        ("gym/old/status", b""),
    ):
        hub.receive(topic, payload)
    assert taken(hub.join()) == ["\nconnected", "gym/main/status\nonline"]


def test_hub_lost_connection() -> None:
    """States of a broker that is lost are not those of the next browser."""
    hub = Hub()
    hub.receive("gym/main/status", b"online")
    browser = hub.join()
    hub.set_connection("the MQTT broker refuses connections")
    assert taken(browser)[-1] == "\nlost the MQTT broker refuses connections"
    assert taken(hub.join()) == ["\nlost the MQTT broker refuses connections"]


def test_hub_limits_what_a_slow_browser_and_a_busy_broker_need() -> None:
    """The newest message of each topic, the newest events, and so many topics."""
    hub = Hub()
    browser = hub.join()
    for number in range(2 * MAX_EVENTS):
        hub.receive("gym/main/poses", str(number).encode())
        hub.receive("gym/main/event", str(number).encode())
    waiting = taken(browser)
    assert waiting[1] == f"gym/main/poses\n{2 * MAX_EVENTS - 1}"
    assert waiting[2:] == [
        f"gym/main/event\n{number}" for number in range(MAX_EVENTS, 2 * MAX_EVENTS)
    ]
    for number in range(MAX_TOPICS + 10):
        hub.receive(f"gym/{number}", b"x")
    assert len(taken(hub.join())) == MAX_TOPICS + 1


def test_hub_a_browser_that_left_gets_nothing() -> None:
    """Its queue does not grow any more."""
    hub = Hub()
    browser = hub.join()
    taken(browser)
    hub.leave(browser)
    hub.receive("gym/main/status", b"online")
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(browser.take(), 0))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.4", False),
        ("pi.local", False),
    ],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    """Only these addresses are not reachable by others, which need a token."""
    assert is_loopback(host) == loopback
    if not loopback:
        with pytest.raises(ConfigError, match="open to everyone"):
            check_listen(host, None)
    check_listen(host, TOKEN)


def test_check_listen_short_token() -> None:
    """A token that can be guessed is none, and is not shown."""
    with pytest.raises(ConfigError, match="fewer than 16 characters") as short:
        check_listen("127.0.0.1", Secret("guess me"))
    assert "guess" not in str(short.value).replace("guessed", "")


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("127.0.0.1:8080", True),
        ("localhost:8080", True),
        ("[::1]:8080", True),
        ("localhost", True),
        ("evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_access_host(header: str, allowed: bool) -> None:
    """A name of the internet that points to this machine opens nothing."""
    assert Access("127.0.0.1", None).allows_host(header) == allowed
    assert Access("0.0.0.0", TOKEN).allows_host(header)


def test_access_session() -> None:
    """Only the right token gives a session, each another one."""
    access = Access("0.0.0.0", TOKEN)
    assert access.log_in("0123456789abcdeX") is None
    assert not access.allows_session(None)
    sessions = {access.log_in(TOKEN.reveal()) for _ in range(3)}
    assert len(sessions) == 3
    assert all(map(access.allows_session, sessions))
    assert not access.allows_session(TOKEN.reveal())
    assert Access("127.0.0.1", None).allows_session(None)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:80", ("::1", 80)),
        ("pi.local:8080", ("pi.local", 8080)),
    ],
)
def test_parse_listen_valid(text: str, address: tuple[str, int]) -> None:
    """Host and port."""
    assert parse_listen(text) == address


@pytest.mark.parametrize("text", ["", "8080", ":8080", "::1:80", "host:", "host:99999", "a b:1"])
def test_parse_listen_invalid(text: str) -> None:
    """The error has an example."""
    with pytest.raises(ValueError, match=r"expected host:port, such as 127\.0\.0\.1:8080"):
        parse_listen(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://192.168.1.20:8080",
        "https://gym.example.org/edgepose/?a=b#c",
        "HTTP://gym_1.local",
        "http://[fd00::1]:8080/",
    ],
)
def test_check_page_url_valid(text: str) -> None:
    """What a browser opens."""
    check_page_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gym.local:8080",
        "ftp://gym.local",
        "http:///page",
        "http://:8080",
        "http://gym:99999",
        "http://[fd00::1",
        "http://gym local/",
        "http://gym.local/a b",
        "http://gym.local/\n",
        "http://g\u00fcm.local",
        "http://me@gym.local",
        "http://me:hunter2@gym.local",
    ],
)
def test_check_page_url_invalid(text: str) -> None:
    """Home Assistant would refuse the device; a login would be retained on the broker."""
    with pytest.raises(ValueError, match="expected the address of a page without a login") as error:
        check_page_url(text)
    assert "hunter2" not in str(error.value)


def test_page_process_starts_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A page that fails is logged once, started again, and disturbs nothing."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit(3)"]
    started: list[int] = []

    def count(words: list[str], **options: object) -> subprocess.Popen[bytes]:
        started.append(1)
        return popen(words, **options)  # type: ignore[call-overload,no-any-return]

    popen = subprocess.Popen
    monkeypatch.setattr(page_process, "tied_command", lambda _command: command)
    monkeypatch.setattr(page_process, "RESTART_S", 0.01)
    monkeypatch.setattr(subprocess, "Popen", count)
    config = Config(mqtt=MqttConfig(), dashboard=DashboardConfig(listen="127.0.0.1:0"))
    with caplog.at_level(logging.WARNING):
        page = PageProcess(config)
        page.start()
        wait_for(lambda: len(started) >= 3, "three attempts")
        page.close()
    (record,) = caplog.records
    assert "the dashboard ended with code 3" in record.getMessage()
