"""A subscriber in a process of its own, which notes when each pose message reached it.

`Subscriber` is this process's end of it; run as a module, this file is the other one. They speak in
lines of JSON over a pipe: the settings, then orders; nothing is said while messages arrive.
"""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from edgepose.clock import boottime_ns
from edgepose.errors import BrokerError
from edgepose.mqtt.url import BrokerAddress, Secret, TlsFiles
from edgepose.util.resource import Resource

PATIENCE_S: Final = 2.0
"""How long after the last message the missing ones may still come."""
_CONNECT_S: Final = 10.0
_CLEAR_S: Final = 2.0
_LOOK_AFTER_MS: Final = 1000
_QUIET_EXIT_S: Final = 5.0
_SUBSCRIBED: Final = "subscribed"


class _Told(msgspec.Struct):
    sequence: int


class Subscriber(Resource):
    """Subscribes to everything under `root`; `with` returns when it is subscribed.

    Raises BrokerError where it cannot be.
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
        user = address.username if username is None else username
        self._address = address
        # Through the pipe: a password among the arguments would stand in every process list.
        self._settings = {
            "host": address.host,
            "port": address.port,
            "root": root,
            "username": user,
            "password": None if password is None else password.reveal(),
            "tls": None
            if not address.tls
            else {
                name: None if value is None else str(value) if name != "insecure" else value
                for name, value in msgspec.to_builtins(tls or TlsFiles(), enc_hook=str).items()
            },
        }
        self._process: subprocess.Popen[str] | None = None

    def open(self) -> None:
        """Start the process, and wait until it is subscribed; raises BrokerError."""
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # Ctrl-C is ours to answer: it must hear of the end by its pipe, and clear up.
            start_new_session=True,
        )
        try:
            answer = self._ask(self._settings)
            if answer != _SUBSCRIBED:
                raise BrokerError(
                    f"the benchmark's subscriber cannot listen at {self._address.netloc} "
                    f"({answer}): check the broker, the user and its rights"
                )
        except BaseException:
            self.close()
            raise

    def collect(self, count: int) -> dict[int, int]:
        """Return CLOCK_BOOTTIME of arrival by sequence number, of all since the last call.

        Waits until `count` have arrived, or none any more.
        """
        pairs: list[list[int]] = self._ask({"collect": count})
        arrivals: dict[int, int] = {}
        for sequence, arrived_ns in pairs:
            # A broker may deliver twice.
            arrivals.setdefault(sequence, arrived_ns)
        return arrivals

    def clear(self) -> None:
        """Take the retained messages of what was measured off the broker."""
        self._ask({"clear": True})

    def close(self) -> None:
        """End the process; closing twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        # It may have died with orders unread.
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_QUIET_EXIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _ask(self, order: Mapping[str, Any]) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            raise BrokerError(
                "the benchmark's subscriber ended unasked; is there enough memory for another "
                "process?"
            )
        return json.loads(answer)


class _Listener:
    """The other end: a client that keeps what arrives, and answers when asked."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        self._arrived: list[tuple[int, str, bytes]] = []
        self._retained: set[str] = set()
        self._answered = threading.Event()
        self._answer = "no answer in time"
        self._root: str = settings["root"]
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        client.connect_timeout = _CONNECT_S
        if settings["username"] is not None:
            client.username_pw_set(settings["username"], settings["password"])
        if settings["tls"] is not None:
            client.tls_set_context(_context(settings["tls"]))
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_socket_open = _without_delay
        client.connect(settings["host"], settings["port"])
        self._readable_ns = 0
        threading.Thread(target=self._listen, name="listening", daemon=True).start()

    def subscribed(self) -> str:
        """Return `subscribed`, or why it is not."""
        self._answered.wait(_CONNECT_S)
        return self._answer

    def collect(self, count: int) -> list[tuple[int, int]]:
        """Return sequence number and arrival of each message since the last call."""
        pause = threading.Event()
        last_ns = boottime_ns()
        while self._count() < count:
            newest_ns = self._arrived[-1][0] if self._arrived else 0
            last_ns = max(last_ns, newest_ns)
            if boottime_ns() - last_ns > PATIENCE_S * 1e9:
                break
            pause.wait(0.01)
        arrived, self._arrived = self._arrived, []
        decoder = msgspec.json.Decoder(_Told)
        return [
            (decoder.decode(payload).sequence, arrived_ns)
            for arrived_ns, topic, payload in arrived
            if topic.endswith("/poses")
        ]

    def clear(self) -> bool:
        """Retain nothing of what was seen here."""
        sent = [
            self._client.publish(topic, b"", qos=1, retain=True) for topic in sorted(self._retained)
        ]
        for info in sent:
            info.wait_for_publish(_CLEAR_S)
        return True

    def _listen(self) -> None:
        """Read as long as the connection stands, with a look at the clock before each packet.

        When a message reached this process is what is measured; what the client library does with
        it then, 0.1 ms and more, another subscriber's would not.
        """
        client = self._client
        poller = select.poll()
        sock: Any = client.socket()
        poller.register(sock, select.POLLIN)
        pending = getattr(sock, "pending", None)
        while client.socket() is not None:
            # Bytes that TLS has already decrypted are invisible to poll.
            if (pending is not None and pending()) or poller.poll(_LOOK_AFTER_MS):
                self._readable_ns = boottime_ns()
                client.loop_read()
            if client.want_write():
                client.loop_write()
            client.loop_misc()

    def _count(self) -> int:
        return sum(topic.endswith("/poses") for _, topic, _ in self._arrived)

    def _on_connect(
        self, client: Any, _userdata: object, _flags: object, code: Any, _properties: object
    ) -> None:
        if code.is_failure:
            self._settle(str(code))
        else:
            client.subscribe(f"{self._root}/#", 0)

    def _on_subscribe(
        self,
        _client: object,
        _userdata: object,
        _number: int,
        codes: list[Any],
        _properties: object,
    ) -> None:
        refused = any(code.is_failure for code in codes)
        self._settle("the subscription is refused" if refused else _SUBSCRIBED)

    def _settle(self, answer: str) -> None:
        self._answer = answer
        self._answered.set()

    def _on_message(self, _client: object, _userdata: object, message: Any) -> None:
        topic: str = message.topic
        self._arrived.append((self._readable_ns, topic, message.payload))
        if not topic.endswith(("/poses", "/event")):
            self._retained.add(topic)


def _without_delay(_client: object, _userdata: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _context(files: Mapping[str, Any]) -> Any:
    from edgepose.mqtt.tls import tls_context

    return tls_context(msgspec.convert(files, TlsFiles))


def main() -> None:
    """Serve one parent: settings first, then orders, until its pipe closes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")

    def say(answer: object) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        listener = _Listener(json.loads(sys.stdin.readline()))
    except (OSError, ValueError) as error:
        say(getattr(error, "strerror", None) or str(error))
        return
    say(listener.subscribed())
    for line in sys.stdin:
        order = json.loads(line)
        say(listener.collect(order["collect"]) if "collect" in order else listener.clear())


if __name__ == "__main__":
    main()
