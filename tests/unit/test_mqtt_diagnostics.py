"""Backoff, and the messages for failed connections."""

import errno
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.mqtt import diagnostics
from edgepose.mqtt.backoff import Backoff
from edgepose.mqtt.url import BrokerAddress

PLAIN = BrokerAddress("broker", 1883)
TLS = BrokerAddress("broker", 8883, tls=True)


def test_backoff_doubles_up_to_the_maximum_and_resets() -> None:
    backoff = Backoff(1.0, 60.0, lambda: 1.0)
    assert [backoff.next_s() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.reset()
    assert backoff.next_s() == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_backoff_jitter_shortens_by_at_most_half(chances: list[float]) -> None:
    draws = iter(chances)
    backoff = Backoff(1.0, 60.0, lambda: next(draws))
    for n in range(len(chances)):
        full_s = min(60.0, 2.0**n)
        assert full_s / 2 <= backoff.next_s() <= full_s


def test_backoff_invalid_limits() -> None:
    for minimum_s, maximum_s in ((0.0, 1.0), (2.0, 1.0)):
        with pytest.raises(ValueError, match="seconds"):
            Backoff(minimum_s, maximum_s, lambda: 0.5)


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
def test_connect_failure_kinds(
    error: OSError | ValueError, address: BrokerAddress, kind: str, says: str
) -> None:
    # OSError picks the subclass by its number; the kinds are named after what comes out.
    failure = diagnostics.connect_failure(error, address)
    assert failure.kind in (kind, f"connect {type(error).__name__}")
    assert says in failure.message
    assert "broker:" in failure.message
    assert "\n" not in failure.message


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("self-signed certificate in certificate chain", "CA file"),
        ("unable to get local issuer certificate", "CA file"),
        (
            "Hostname mismatch, certificate is not valid for 'broker'.",
            "name that is in the certificate",
        ),
        ("certificate has expired", "time of day"),
        ("certificate is not yet valid", "time of day"),
    ],
)
def test_connect_failure_certificate_has_a_remedy(reason: str, remedy: str) -> None:
    failure = diagnostics.connect_failure(verification(reason), TLS)
    assert reason.rstrip(".") in failure.message
    assert remedy in failure.message


def test_refused_by_broker_names_what_is_missing() -> None:
    def message(username: str | None, *, password: bool, code: int = 0x87) -> str:
        address = BrokerAddress("broker", 1883, username=username)
        return diagnostics.refused_by_broker(
            code, "not authorized", address, password=password
        ).message

    assert "asks for a username and password" in message(None, password=False)
    assert "without a password" in message("pose", password=False)
    assert "check the username 'pose'" in message("pose", password=True)
    assert "check the username 'pose'" in message("pose", password=True, code=0x86)
    assert "client id" in message("pose", password=True, code=0x85)
    assert "broker's log" in message("pose", password=True, code=0x80)


def test_refused_by_broker_kinds() -> None:
    def kind(code: int) -> str:
        return diagnostics.refused_by_broker(code, "x", PLAIN, password=True).kind

    assert kind(0x86) == kind(0x87)
    assert len({kind(code) for code in (0x84, 0x85, 0x87, 0x88, 0x89)}) == 5
