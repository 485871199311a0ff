"""How a client connects: broker, login, TLS and timeouts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgepose.mqtt.url import BrokerAddress
from edgepose.util.secrets import Secret

Protocol = Literal["5", "3.1.1"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files for TLS beyond the certificate authorities of the system.

    `insecure` accepts any certificate, of any issuer and name.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class MqttTimeouts:
    """Timeouts of a client, in seconds.

    With `backoff_max_s`, poses are back within 5 s of the broker's return, an attempt included. Two
    clients with the same id disconnect each other at every attempt, so the longest pause between
    those is `takeover_backoff_factor` times as long. Events that the broker leaves unacknowledged
    for `unacknowledged_s` are saved to the disk; after `acknowledge_s` the connection is made anew.
    Every `probe_s` one message of each topic has QoS 1. A connection that ends within `blame_s`
    after a message may have ended because of it. What a broker did wrong is remembered until a
    connection has lasted `memory_s`. The network thread hangs if it takes longer than `turn_s`,
    or `connect_turn_s` for a name lookup and a connection; three silent name servers take 30 s.
    """

    connect_s: float = 5.0
    answer_s: float = 10.0
    backoff_min_s: float = 1.0
    backoff_max_s: float = 3.0
    takeover_backoff_factor: float = 20.0
    stable_s: float = 30.0
    memory_s: float = 600.0
    unacknowledged_s: float = 1.0
    acknowledge_s: float = 20.0
    probe_s: float = 10.0
    blame_s: float = 0.5
    close_s: float = 3.0
    turn_s: float = 5.0
    connect_turn_s: float = 120.0


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """Which broker, as which client, and how.

    `read_password` is called at every connect, so that a new password needs no restart. `protocol`
    "5" falls back to 3.1.1 if the broker does not know 5. On `availability`, a retained topic, the
    client publishes `online`, and it or its last will `offline`.
    """

    address: BrokerAddress
    client_id: str
    read_password: Callable[[], Secret | None] = lambda: None
    tls: TlsFiles = TlsFiles()
    protocol: Protocol = "5"
    keepalive_s: int = 10
    availability: str | None = None
    timeouts: MqttTimeouts = MqttTimeouts()
