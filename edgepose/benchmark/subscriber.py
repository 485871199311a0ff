"""A subscriber in another process that records when each pose message arrived."""

import os
import selectors
import signal
import socket
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final

import msgspec

from edgepose.clock import boottime_ns
from edgepose.errors import BrokerError, EdgeposeError
from edgepose.mqtt.tls import tls_context
from edgepose.mqtt.url import BrokerAddress, Secret, TlsFiles
from edgepose.util.resource import Resource

PATIENCE_S: Final = 2.0
"""How long to wait for missing messages after the last one that arrived."""
_POLL_S: Final = 0.01
_CONNECT_S: Final = 10.0
_CLOSE_S: Final = 5.0
_SUBSCRIBED: Final = "subscribed"


class _Sequence(msgspec.Struct):
    sequence: int


class Subscriber(Resource):
    """Subscribes to all topics under `root`; `open` returns when it is subscribed.

    Raises BrokerError if it cannot be.
    """

    def __init__(
        self,
        address: BrokerAddress,
        root: str,
        *,
        username: str | None = None,
        password: Secret | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self._address = address
        self._arguments = (address, root, username or address.username, tls)
        self._password = password
        self._process: SpawnProcess | None = None
        self._pipe: Connection

    def open(self) -> None:
        """Start the process, and wait until it is subscribed; raises BrokerError."""
        context = get_context("spawn")
        self._pipe, child = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(child, *self._arguments), name="subscriber", daemon=True
        )
        self._process.start()
        child.close()
        try:
            # A secret is not pickled, and what is sent here is in no list of processes.
            password = None if self._password is None else self._password.reveal()
            answer = self._request(password)
            if answer != _SUBSCRIBED:
                raise BrokerError(
                    f"the benchmark cannot subscribe at {self._address.netloc} ({answer}): check "
                    "the broker, the user and its rights"
                )
        except BaseException:
            self.close()
            raise

    def collect(self, count: int) -> dict[int, int]:
        """Return the CLOCK_BOOTTIME of arrival by sequence number, of all since the last call.

        Waits until `count` have arrived, or no more arrive.
        """
        arrivals: dict[int, int] = {}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            new: list[tuple[int, int]] = self._request("collect")
            for sequence, arrived_ns in new:
                # A broker may deliver a message twice.
                arrivals.setdefault(sequence, arrived_ns)
            if new:
                deadline = time.monotonic() + PATIENCE_S
            if len(arrivals) >= count or time.monotonic() > deadline:
                return arrivals
            time.sleep(_POLL_S)

    def clear(self) -> None:
        """Delete the retained messages under `root` from the broker."""
        self._request("clear")

    def close(self) -> None:
        """End the process; closing twice is fine."""
        process, self._process = self._process, None
        if process is not None:
            self._pipe.close()
            process.join(_CLOSE_S)
            process.kill()
            process.join()

    def _request(self, request: str | None) -> Any:
        try:
            self._pipe.send(request)
            return self._pipe.recv()
        except (EOFError, OSError):
            raise BrokerError("the benchmark's subscriber process ended unexpectedly") from None


def _serve(
    pipe: Connection, address: BrokerAddress, root: str, username: str | None, tls: TlsFiles | None
) -> None:
    """Record messages and answer requests until the other end of the pipe is closed."""
    # Ctrl-C ends the parent, which then clears the broker with this process's help.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        recorder = _Recorder(root)
        pipe.send(recorder.connect(address, username, pipe.recv(), tls))
        recorder.run(pipe)
    except EOFError:
        return
    except (EdgeposeError, OSError, ValueError) as error:
        pipe.send(getattr(error, "strerror", None) or str(error))


class _Recorder:
    """An MQTT client that keeps what arrives."""

    def __init__(self, root: str) -> None:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        self._root = root
        self._answer: str | None = None
        self._arrived_ns = 0
        self._poses: list[tuple[int, bytes]] = []
        self._retained: set[str] = set()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        self._client.connect_timeout = _CONNECT_S
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def connect(
        self,
        address: BrokerAddress,
        username: str | None,
        password: str | None,
        tls: TlsFiles | None,
    ) -> str:
        """Connect and subscribe; return `subscribed`, or why it failed."""
        if username is not None:
            self._client.username_pw_set(username, password)
        if address.tls:
            self._client.tls_set_context(tls_context(tls or TlsFiles()))
        self._client.connect(address.host, address.port)
        sock: Any = self._client.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        deadline = time.monotonic() + _CONNECT_S
        while self._answer is None and time.monotonic() < deadline:
            self._client.loop(_POLL_S)
        return self._answer or "no answer in time"

    def run(self, pipe: Connection) -> None:
        """Read messages and answer requests; raises EOFError when the pipe is closed.

        The clock is read before each packet: the arrival at this process is measured, without the
        0.1 ms and more that the client library takes to handle a packet.
        """
        client = self._client
        sock: Any = client.socket()
        pending = getattr(sock, "pending", lambda: 0)
        selector = selectors.DefaultSelector()
        selector.register(sock, selectors.EVENT_READ)
        selector.register(pipe, selectors.EVENT_READ)
        while client.socket() is not None:
            # Bytes that TLS has decrypted already do not make the socket readable.
            ready = {key.fileobj for key, _ in selector.select(0 if pending() else 1.0)}
            if sock in ready or pending():
                self._arrived_ns = boottime_ns()
                client.loop_read()
            if client.want_write():
                client.loop_write()
            client.loop_misc()
            if pipe in ready:
                request = pipe.recv()
                if request == "clear":
                    self._clear()
                pipe.send(self._collect())

    def _collect(self) -> list[tuple[int, int]]:
        poses, self._poses = self._poses, []
        decode = msgspec.json.Decoder(_Sequence).decode
        return [(decode(payload).sequence, arrived_ns) for arrived_ns, payload in poses]

    def _clear(self) -> None:
        sent = [self._client.publish(topic, b"", 1, retain=True) for topic in self._retained]
        deadline = time.monotonic() + PATIENCE_S
        while not all(info.is_published() for info in sent) and time.monotonic() < deadline:
            self._client.loop(_POLL_S)

    def _on_connect(self, *arguments: Any) -> None:
        client, _, _, code, _ = arguments
        if code.is_failure:
            self._answer = str(code)
        else:
            client.subscribe(f"{self._root}/#", 0)

    def _on_subscribe(self, *arguments: Any) -> None:
        _, _, _, codes, _ = arguments
        refused = any(code.is_failure for code in codes)
        self._answer = "the subscription is refused" if refused else _SUBSCRIBED

    def _on_message(self, _client: object, _userdata: object, message: Any) -> None:
        topic: str = message.topic
        if topic.endswith("/poses"):
            self._poses.append((self._arrived_ns, message.payload))
        elif not topic.endswith("/event"):
            self._retained.add(topic)
