"""Why a connection to a broker failed: each kind of failure with a message and a remedy."""

import socket
import ssl
from collections.abc import Iterable
from typing import Final

from paho.mqtt.reasoncodes import ReasonCode

NO_MQTT: Final = "no MQTT"
SILENT: Final = "silent"
VERSION: Final = "version"
LOST: Final = "lost"
TAKEN_OVER: Final = "taken over"
OVERSIZED: Final = "oversized"
"""Kinds that decide what is done next; the others only decide whether a failure is logged again."""

# MQTT 5 reason codes; paho translates the return codes of MQTT 3.1.1 to these.
_UNSUPPORTED_VERSION: Final = 0x84
_SESSION_TAKEN_OVER: Final = 0x8E
_BAD_CREDENTIALS: Final = (0x86, 0x87)
_REMEDIES: Final = {
    0x85: "choose another client id",
    0x9A: "allow retained messages in the broker; availability and states need them",
    0x9B: "allow QoS 1 in the broker; states and events need it",
}
_SAME_ID: Final = "two nodes have the same id, or edgepose runs twice; give each its own node id"


class Failure(Exception):
    """The reason why there is no connection, or a message was not delivered.

    The text continues "the MQTT broker host:port ...". `suspects` are the topics of the messages at
    which a broker may have ended the connection.
    """

    def __init__(self, kind: str, text: str, suspects: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.kind = kind
        self.suspects = tuple(dict.fromkeys(suspects))


class Unacknowledged(Failure):
    """The broker did not acknowledge a message or a subscription in time."""


def connect_failure(error: OSError | ValueError, *, tls: bool) -> Failure:
    """Explain why a connection could not be opened, before any MQTT packet."""
    text = reason_of(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_failure(error.verify_message or text)
    if isinstance(error, ConnectionRefusedError):
        return Failure(
            "refused",
            "refuses connections: nothing listens there; check that the broker runs, that it "
            "listens on the network and not only on its own machine, and host and port",
        )
    if tls and isinstance(error, ssl.SSLError | ConnectionResetError | EOFError):
        return Failure(
            "no TLS",
            f"does not complete a TLS handshake ({text}): if that port is a plain one, use mqtt:// "
            "or the broker's TLS port, usually 8883; otherwise the two have no TLS version or "
            "certificate in common",
        )
    spelling = "the spelling of the host" if isinstance(error, socket.gaierror) else "host, port"
    return Failure(
        f"connect {type(error).__name__} {text}",
        f"cannot be reached ({text}): check {spelling}, network and firewall",
    )


def _certificate_failure(reason: str) -> Failure:
    lower = reason.lower()
    if "mismatch" in lower or "not valid for" in lower:
        remedy = "connect by a name that is in the certificate"
    elif "not yet valid" in lower or "expired" in lower:
        remedy = "check the time of day on this machine and the certificate's dates"
    else:
        remedy = "set the CA file to the certificate of the authority that signed the broker's"
    return Failure(
        f"certificate {lower}",
        f"has a certificate that is not accepted ({reason.rstrip('.')}): {remedy}",
    )


def refused(code: ReasonCode, username: str | None, *, password: bool) -> Failure:
    """Explain a CONNACK that refuses the connection."""
    name = str(code).lower()
    if code.value in _BAD_CREDENTIALS:
        if username is None:
            remedy = "it asks for a username and password; set both"
        elif not password:
            remedy = f"user {username!r} was sent without a password; set one"
        else:
            remedy = f"check the username {username!r}, its password and its rights there"
        return Failure("credentials", f"refuses the login ({name}): {remedy}")
    if code.value == _UNSUPPORTED_VERSION:
        return Failure(VERSION, f"supports neither MQTT 5 nor 3.1.1 ({name}): update it")
    remedy = _REMEDIES.get(code.value, "see the broker's log")
    return Failure(f"connack {code.value}", f"refuses the connection ({name}): {remedy}")


def no_answer(error: Exception | None, *, tls: bool) -> Failure:
    """Explain a connection that the peer ended before any valid MQTT packet."""
    because = "" if error is None else f" ({reason_of(error)})"
    if tls:
        remedy = "it may ask for a client certificate, or not be an MQTT broker"
    else:
        remedy = (
            "is it a TLS port? Then use mqtts://; otherwise another program than an MQTT broker "
            "may listen there"
        )
    return Failure(NO_MQTT, f"ends the connection without an answer{because}: {remedy}")


def silent(timeout_s: float) -> Failure:
    """Explain a connection on which no CONNACK arrives."""
    return Failure(
        SILENT,
        f"accepts connections but sends nothing within {timeout_s:g} s: it hangs, or another "
        "program than an MQTT broker listens there",
    )


def unacknowledged(what: str, timeout_s: float, suspects: Iterable[str] = ()) -> Unacknowledged:
    """Explain a connection that is given up because a PUBACK or SUBACK does not arrive."""
    text = f"does not acknowledge {what} within {timeout_s:g} s: see the broker's log"
    return Unacknowledged(f"unacknowledged {what}", text, suspects)


def oversized(size: int, max_bytes: int) -> Failure:
    """Explain a connection that is given up because of a packet that would fill the memory."""
    return Failure(
        OVERSIZED,
        f"sends a packet of {size:,} bytes, expected at most {max_bytes:,}: restrict in the access "
        "rights who may publish on the topics of this node, and clear what is retained there",
    )


def ended_by_broker(code: ReasonCode, client_id: str, suspects: Iterable[str]) -> Failure:
    """Explain the DISCONNECT of a broker."""
    if code.value == _SESSION_TAKEN_OVER:
        return Failure(
            TAKEN_OVER,
            f"disconnected this client, since another client logged in as {client_id!r}: "
            f"{_SAME_ID}",
        )
    return Failure(f"ended {code.value}", f"ended the connection ({str(code).lower()})", suspects)


def lost(error: Exception | None, suspects: Iterable[str]) -> Failure:
    """Explain the end of a connection without a reason from the broker."""
    reason = "no reason" if error is None else reason_of(error)
    return Failure(LOST, f"ended the connection ({reason})", suspects)


def put_aside(topic: str, memory_s: float) -> Failure:
    """Explain that a message is not sent any more, since connections end at it."""
    return Failure(
        f"put aside {topic}",
        f"ended three connections at a message on {topic}: nothing is sent on it for "
        f"{memory_s / 60:g} minutes; give this client write access to it, raise the broker's limit "
        "of packets, or see its log",
    )


def too_large(topic: str, size: int, max_bytes: int) -> Failure:
    """Explain a message that the broker does not take."""
    return Failure(
        f"too large {topic}",
        f"takes packets of at most {max_bytes:,} bytes: the message on {topic} needs {size:,} and "
        "is left out; raise the limit (max_packet_size in mosquitto)",
    )


def denied(subject: str, code: ReasonCode, username: str | None) -> Failure:
    """Explain a message or subscription that the broker does not allow."""
    user = "anonymous clients" if username is None else f"user {username!r}"
    return Failure(
        f"denied {subject}",
        f"refuses {subject} ({str(code).lower()}): check the access rights of {user} there",
    )


def malformed() -> Failure:
    """Explain a connection on which the peer sent what is no valid packet."""
    return Failure(
        "malformed",
        "sent an invalid MQTT packet: another program may listen there, or a proxy in between "
        "damages the data",
    )


def half_open(keepalive_s: int) -> Failure:
    """Explain a connection on which the broker has stopped answering."""
    return Failure(
        "half-open",
        f"stopped answering (nothing received for over {keepalive_s} s): it hangs, or the network "
        "in between is down",
    )


def repeated_disconnects(client_id: str) -> Failure:
    """Explain connections that a broker ends soon, often and without a reason while it runs."""
    return Failure(
        TAKEN_OVER,
        "ends one connection after the other: most likely a second client uses the id "
        f"{client_id!r}, because {_SAME_ID}; if not, see the broker's log for missing access "
        "rights",
    )


def internal_error(error: Exception) -> Failure:
    """Explain an unexpected exception."""
    return Failure(
        f"internal error {type(error).__name__}",
        f"lost its connection by an internal error in edgepose ({type(error).__name__}: {error}): "
        "please report it, with the log of --debug",
    )


def reason_of(error: Exception) -> str:
    """Return the text of an error, without its number and library."""
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    if reason:
        return str(reason).lower().replace("_", " ")
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error) or type(error).__name__
