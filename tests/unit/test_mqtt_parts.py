"""The parts of the MQTT link that need no broker: waits, the spool, and why things fail."""

import errno
import socket
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.mqtt import diagnostics as failures
from edgepose.mqtt.backoff import Backoff
from edgepose.mqtt.event_store import EventStore, StoredEvent
from edgepose.mqtt.url import BrokerAddress

PLAIN = BrokerAddress("broker", 1883)
TLS = BrokerAddress("broker", 8883, tls=True)


def test_waits_double_up_to_the_longest_and_begin_again() -> None:
    backoff = Backoff(1.0, 60.0, lambda: 1.0)
    assert [backoff.next_s() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.reset()
    assert backoff.next_s() == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_chance_shortens_waits_by_half_at_most(chances: list[float]) -> None:
    draws = iter(chances)
    backoff = Backoff(1.0, 60.0, lambda: next(draws))
    for n in range(len(chances)):
        full_s = min(60.0, 2.0**n)
        assert full_s / 2 <= backoff.next_s() <= full_s


def test_waits_that_cannot_be_meant() -> None:
    for minimum_s, maximum_s in ((0.0, 1.0), (2.0, 1.0)):
        with pytest.raises(ValueError, match="seconds"):
            Backoff(minimum_s, maximum_s, lambda: 0.5)


def message(number: int) -> StoredEvent:
    return StoredEvent("edgepose/gym/main/event", f'{{"n": {number}, "ä": "\\n"}}'.encode())


def payloads(spool: EventStore) -> list[bytes]:
    return [waiting.payload for waiting in spool]


def test_a_spool_survives_a_restart_in_order(tmp_path: Path) -> None:
    path = tmp_path / "state" / "spool"
    spool = EventStore(path, max_messages=10)
    waiting = [message(n) for n in range(5)]
    for one in waiting:
        spool.append(one)
    spool.remove(waiting[1])
    spool.save()
    again = EventStore(path, max_messages=10)
    assert payloads(again) == [waiting[n].payload for n in (0, 2, 3, 4)]
    assert {one.topic for one in again} == {"edgepose/gym/main/event"}
    assert not again.changed
    for one in list(again):
        again.remove(one)
    again.save()
    assert not path.exists()
    assert list(path.parent.iterdir()) == []


def test_a_spool_writes_only_what_changed(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = EventStore(path, max_messages=10)
    first = message(1)
    spool.append(first)
    spool.remove(first)
    assert not spool.changed
    spool.save()
    assert not path.exists()
    spool.append(message(2))
    spool.save()
    inode = path.stat().st_ino
    spool.save()
    assert path.stat().st_ino == inode


def test_a_full_spool_drops_the_oldest_and_counts(tmp_path: Path) -> None:
    spool = EventStore(None, max_messages=3)
    sent = [message(n) for n in range(5)]
    assert [spool.append(one) for one in sent] == [None, None, None, sent[0], sent[1]]
    assert payloads(spool) == [one.payload for one in sent[2:]]
    assert spool.dropped == 2
    spool.remove(sent[0])
    assert len(spool) == 3
    spool.save()
    path = tmp_path / "spool"
    larger = EventStore(path, max_messages=5)
    for one in sent:
        larger.append(one)
    larger.save()
    assert payloads(EventStore(path, max_messages=2)) == [one.payload for one in sent[3:]]


@pytest.mark.parametrize(
    "damage",
    [
        b"rubbish\n",
        b"\xff\xfe\x00",
        b"{}\n",
        b'{"topic":"","payload":""}\n',
        b'{"topic":"a/#","payload":""}\n',
        b'{"topic":1,"payload":""}\n',
        b'{"topic":"a","payl',
    ],
)
def test_damage_is_left_out_with_one_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b'{"topic":"a/b","payload":"x"}\n' + damage)
    spool = EventStore(path, max_messages=10)
    assert payloads(spool) == [b"x"]
    (record,) = caplog.records
    assert "1 of 2 events" in record.getMessage()


def test_a_spool_that_cannot_be_read_or_written_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = EventStore(tmp_path, max_messages=10)
    assert "cannot be read" in caplog.text
    caplog.clear()
    for number in range(3):
        spool.append(message(number))
        spool.save()
    (record,) = caplog.records
    assert "cannot be saved" in record.getMessage()
    assert len(spool) == 3


def verification(text: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, text)
    error.verify_message = text
    return error


@pytest.mark.parametrize(
    ("error", "address", "kind", "says"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), PLAIN, "refused", "nothing listens"),
        (socket.gaierror(-2, "Name or service not known"), PLAIN, "unknown host", "spelling"),
        (TimeoutError("timed out"), PLAIN, "no answer", "firewall"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), PLAIN, "unreachable", "No route"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), TLS, "no TLS", "mqtt://"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), TLS, "no TLS", "TLS handshake"),
        (OSError(errno.EACCES, "Permission denied"), PLAIN, "connect OSError", "denied"),
        (UnicodeError("label too long"), PLAIN, "connect UnicodeError", "label too long"),
    ],
)
def test_each_way_not_to_connect_is_told_apart(
    error: OSError | ValueError, address: BrokerAddress, kind: str, says: str
) -> None:
    # OSError picks the subclass by its number; the kinds are named after what comes out.
    failure = failures.connect_failure(error, address)
    assert failure.kind in (kind, f"connect {type(error).__name__}")
    assert says in failure.sentence
    assert "broker:" in failure.sentence
    assert "\n" not in failure.sentence


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("self-signed certificate in certificate chain", "CA file"),
        ("unable to get local issuer certificate", "CA file"),
        ("Hostname mismatch, certificate is not valid for 'broker'.", "name that the certificate"),
        ("certificate has expired", "time of day"),
        ("certificate is not yet valid", "time of day"),
    ],
)
def test_a_certificate_that_is_not_accepted_comes_with_its_remedy(reason: str, remedy: str) -> None:
    failure = failures.connect_failure(verification(reason), TLS)
    assert reason.rstrip(".") in failure.sentence
    assert remedy in failure.sentence


def test_a_refused_login_says_what_was_missing() -> None:
    def say(username: str | None, *, password: bool, code: int = 0x87) -> str:
        address = BrokerAddress("broker", 1883, username=username)
        return failures.refused_by_broker(
            code, "not authorized", address, password=password
        ).sentence

    assert "asks for a username and password" in say(None, password=False)
    assert "without a password" in say("pose", password=False)
    assert "check the username 'pose'" in say("pose", password=True)
    assert "check the username 'pose'" in say("pose", password=True, code=0x86)
    assert "client id" in say("pose", password=True, code=0x85)
    assert "broker's log" in say("pose", password=True, code=0x80)


def test_the_same_failure_has_the_same_kind_and_another_one_another() -> None:
    def kind(code: int) -> str:
        return failures.refused_by_broker(code, "x", PLAIN, password=True).kind

    assert kind(0x86) == kind(0x87)
    assert len({kind(code) for code in (0x84, 0x85, 0x87, 0x88, 0x89)}) == 5
