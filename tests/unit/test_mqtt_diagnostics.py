"""Backoff, and the messages for failed connections."""

import errno
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edgepose.mqtt import diagnostics
from edgepose.mqtt.backoff import Backoff
from edgepose.mqtt.diagnostics import Failure


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


def verification(text: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, text)
    error.verify_message = text
    return error


@pytest.mark.parametrize(
    ("error", "tls", "expected"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), False, "nothing listens"),
        (socket.gaierror(-2, "Name or service not known"), False, "spelling"),
        (TimeoutError("timed out"), False, "firewall"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), False, "No route"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True, "mqtt://"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), True, "TLS handshake"),
        (OSError(errno.EACCES, "Permission denied"), False, "denied"),
        (UnicodeError("label too long"), False, "label too long"),
    ],
)
def test_connect_failure_has_a_reason_and_a_remedy(
    error: OSError | ValueError, tls: bool, expected: str
) -> None:
    text = str(diagnostics.connect_failure(error, tls=tls))
    assert expected in text
    assert ":" in text
    assert "\n" not in text


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
    text = str(diagnostics.connect_failure(verification(reason), tls=True))
    assert reason.rstrip(".") in text
    assert remedy in text


def refused(code: int, username: str | None = "pose", *, password: bool = True) -> Failure:
    return diagnostics.refused(
        ReasonCode(PacketTypes.CONNACK, identifier=code), username, password=password
    )


def test_refused_names_the_remedy() -> None:
    assert "asks for a username and password" in str(refused(0x87, None, password=False))
    assert "without a password" in str(refused(0x87, password=False))
    assert "check the username 'pose'" in str(refused(0x87))
    assert "check the username 'pose'" in str(refused(0x86))
    assert "client id" in str(refused(0x85))
    assert "broker's log" in str(refused(0x80))


def test_refused_kinds() -> None:
    assert refused(0x86).kind == refused(0x87).kind
    assert len({refused(code).kind for code in (0x84, 0x85, 0x87, 0x88, 0x89)}) == 5
