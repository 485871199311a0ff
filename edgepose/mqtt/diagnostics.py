"""Why a connection to a broker failed: each kind of failure with its message."""

import errno
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from edgepose.mqtt.url import BrokerAddress


@dataclass(frozen=True, slots=True)
class Failure:
    """One kind of failure, with the message for the user."""

    kind: str
    message: str


def connect_failure(error: OSError | ValueError, address: BrokerAddress) -> Failure:
    """Explain why a connection could not be opened, before any MQTT packet."""
    broker = f"the MQTT broker {address.netloc}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_failure(error, broker)
    if isinstance(error, socket.gaierror):
        return Failure(
            "unknown host",
            f"the host name of {broker} cannot be resolved ({error.strerror}): check its spelling "
            "and the network",
        )
    if isinstance(error, ConnectionRefusedError):
        return Failure(
            "refused",
            f"{broker} refuses connections: nothing listens there; check that the broker runs, "
            "that it listens on the network and not only on its own machine, and host and port",
        )
    if address.tls and isinstance(error, ssl.SSLError | ConnectionResetError | EOFError):
        return Failure(
            "no TLS",
            f"{broker} does not complete a TLS handshake ({_tls_reason(error)}): if that port is "
            "a plain one, use mqtt:// or the broker's TLS port, usually 8883; otherwise the two "
            "have no TLS version or certificate in common",
        )
    if isinstance(error, TimeoutError):
        return Failure(
            "no answer",
            f"{broker} does not answer: check host, port, network and firewall",
        )
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return Failure(
            "unreachable", f"{broker} cannot be reached ({error.strerror}): check the network"
        )
    return Failure(
        f"connect {type(error).__name__}",
        f"{broker} cannot be connected to ({_text(error)}): check host, port and network",
    )


def _certificate_failure(error: ssl.SSLCertVerificationError, broker: str) -> Failure:
    reason = error.verify_message or _text(error)
    lower = reason.lower()
    if "mismatch" in lower or "not valid for" in lower:
        remedy = "connect by a name that is in the certificate"
    elif "not yet valid" in lower or "expired" in lower:
        remedy = "check the time of day on this machine and the certificate's dates"
    else:
        remedy = "set the CA file to the certificate of the authority that signed the broker's"
    return Failure(
        f"certificate {lower}",
        f"the certificate of {broker} is not accepted ({reason.rstrip('.')}): {remedy}",
    )


VERSION: Final = "version"
"""The kind of a broker that does not know the requested MQTT version."""

TAKEN_OVER: Final = "taken over"
"""The kind of a connection that another client with the same id ended."""

NO_ANSWER: Final = ("no MQTT", "silent")
"""The kinds of a peer that accepted the connection and answered nothing valid."""

# MQTT 5 reason codes; paho translates the return codes of MQTT 3.1.1 to these.
_UNSUPPORTED_VERSION = 0x84
_SESSION_TAKEN_OVER = 0x8E
_BAD_CREDENTIALS = (0x86, 0x87)
_CONNACK_REMEDIES = {
    0x85: "choose another client id",
    0x88: "see the broker's log",
    0x89: "the broker is overloaded",
    0x8A: "this client or address is banned there; ask the administrator of the broker",
    0x97: "the broker's quota is used up",
    0x9A: "allow retained messages in the broker; availability and states need them",
    0x9B: "allow QoS 1 in the broker; states and events need it",
    0x9F: "the broker limits the rate of connections",
}


def refused_by_broker(code: int, name: str, address: BrokerAddress, *, password: bool) -> Failure:
    """Explain a CONNACK that refuses the connection, by its MQTT 5 reason code and its name."""
    broker = f"the MQTT broker {address.netloc}"
    if code in _BAD_CREDENTIALS:
        if address.username is None:
            remedy = "it asks for a username and password; set both"
        elif not password:
            remedy = f"user {address.username!r} was sent without a password; set one"
        else:
            remedy = f"check the username {address.username!r}, its password and its rights there"
        return Failure("credentials", f"{broker} refuses the login ({name}): {remedy}")
    if code == _UNSUPPORTED_VERSION:
        return Failure(VERSION, f"{broker} supports neither MQTT 5 nor 3.1.1 ({name}): update it")
    remedy = _CONNACK_REMEDIES.get(code, "see the broker's log")
    return Failure(f"connack {code}", f"{broker} refuses the connection ({name}): {remedy}")


def ended_before_answer(address: BrokerAddress, error: OSError | None) -> Failure:
    """Explain a connection that the peer ended before it sent any MQTT packet."""
    because = f" ({_tls_reason(error)})" if error is not None else ""
    if address.tls:
        remedy = "it may ask for a client certificate, or not be an MQTT broker"
    else:
        remedy = (
            "is it a TLS port? Then use mqtts://; otherwise another program than an MQTT broker "
            "may listen there"
        )
    return Failure(
        "no MQTT",
        f"the MQTT broker {address.netloc} ends the connection without an answer{because}: "
        f"{remedy}",
    )


def unreadable(address: BrokerAddress, detail: str) -> Failure:
    """Explain bytes that are not MQTT, after a valid CONNACK."""
    return Failure(
        "unreadable",
        f"the MQTT broker {address.netloc} sent a packet that cannot be read "
        f"({detail}): check for a proxy between it and this machine that changes "
        "the data",
    )


def silent(address: BrokerAddress, timeout_s: float) -> Failure:
    """Explain a connection on which no CONNACK arrives."""
    return Failure(
        "silent",
        f"the MQTT broker {address.netloc} accepts connections but sends nothing within "
        f"{timeout_s:g} s: it hangs, or another program than an MQTT broker listens there",
    )


def ended_by_broker(code: int, name: str, address: BrokerAddress, client_id: str) -> Failure:
    """Explain the DISCONNECT of a broker, by its MQTT 5 reason code and its name."""
    if code == _SESSION_TAKEN_OVER:
        return _taken_over(address, client_id)
    return Failure(
        f"ended {code}", f"the MQTT broker {address.netloc} ended the connection ({name})"
    )


def lost(address: BrokerAddress) -> Failure:
    """Explain the end of a connection without any reason."""
    return Failure("lost", f"the connection to the MQTT broker {address.netloc} broke off")


def internal_error(address: BrokerAddress, error: Exception) -> Failure:
    """Explain an unexpected exception."""
    return Failure(
        f"internal error {type(error).__name__}",
        f"the connection to the MQTT broker {address.netloc} ended by an internal error in "
        f"edgepose ({type(error).__name__}: {error}): please report it, with the log of --debug",
    )


def denied(address: BrokerAddress, topic: str) -> Failure:
    """Explain a connection that the broker ended after a message that it does not allow."""
    return Failure(
        "denied",
        f"the MQTT broker {address.netloc} ended the connection after a message on {topic}, which "
        "it does not allow: give this client write access to it",
    )


def half_open(address: BrokerAddress, keepalive_s: int) -> Failure:
    """Explain a connection on which the broker has stopped answering."""
    return Failure(
        "half-open",
        f"the MQTT broker {address.netloc} stopped answering (nothing received for over "
        f"{keepalive_s} s): it hangs, or the network in between is down",
    )


def _taken_over(address: BrokerAddress, client_id: str) -> Failure:
    """Explain being disconnected by another client with the same id."""
    return Failure(
        TAKEN_OVER,
        f"another client logged in to the MQTT broker {address.netloc} as {client_id!r}, which "
        "disconnected this one: two nodes have the same id, or edgepose runs twice; give each its "
        "own node id",
    )


def repeated_disconnects(address: BrokerAddress, client_id: str) -> Failure:
    """Explain connections that an MQTT 3.1.1 broker, which gives no reason, ends soon and often."""
    return Failure(
        TAKEN_OVER,
        f"the MQTT broker {address.netloc} ends one connection after the other: most likely a "
        f"second client uses the id {client_id!r}, because two nodes have the same id or edgepose "
        "runs twice; give each its own node id; if not, see the broker's log for missing "
        "access rights",
    )


def _tls_reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return _text(error) if reason is None else str(reason).lower().replace("_", " ")


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
