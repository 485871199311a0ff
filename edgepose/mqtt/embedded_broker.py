"""A small MQTT broker inside this process, for trying things out: amqtt, in a thread of its own.

Good for a demonstration, no more: amqtt speaks MQTT 3.1.1 only (connect to it with that), hands
QoS 0 on as QoS 1 and may deliver a retained message twice.
"""

import asyncio
import logging
import threading
from typing import Any, Final

from edgepose.errors import BrokerError
from edgepose.util.net import free_port
from edgepose.util.resource import Resource

_HOST: Final = "127.0.0.1"
_START_S: Final = 10.0
_STOP_S: Final = 5.0


class EmbeddedBroker(Resource):
    """A broker on a port of the loopback interface; `with` starts and stops it.

    Port 0 is a free one; `port` says which from the start on. No login, no other machine.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._error: Exception | None = None

    @property
    def url(self) -> str:
        """The broker's address."""
        return f"mqtt://{_HOST}:{self.port}"

    def open(self) -> None:
        """Start; raises BrokerError where amqtt is missing or the port is taken."""
        _quieten()
        try:
            # Late: an extra that only a demonstration needs, and slow to import.
            from amqtt.broker import Broker
        except ImportError as error:
            raise BrokerError(
                "the embedded broker needs amqtt, which is not installed: "
                'pip install "edgepose[demo]", or start mosquitto on this machine'
            ) from error
        if self.port == 0:
            self.port = free_port()
        self._thread = threading.Thread(
            target=self._run, args=(Broker,), name="embedded-broker", daemon=True
        )
        self._thread.start()
        self._started.wait(_START_S)
        if self._error is not None or not self._started.is_set():
            self.close()
            reason = self._error if self._error is not None else f"not ready after {_START_S:g} s"
            raise BrokerError(
                f"the embedded broker cannot listen on {_HOST}:{self.port} ({_root(reason)}): "
                "choose another port, or stop what listens there"
            )

    def close(self) -> None:
        """Stop; closing twice is fine."""
        thread, self._thread = self._thread, None
        loop, stop = self._loop, self._stop
        if thread is None:
            return
        if loop is not None and stop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(_STOP_S)

    def _run(self, broker_class: Any) -> None:
        try:
            asyncio.run(self._serve(broker_class))
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for the start
            self._error = error
        finally:
            self._started.set()

    async def _serve(self, broker_class: Any) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        # Connections that break off while the broker stops are no news.
        loop.set_exception_handler(lambda _loop, _context: None)
        broker = broker_class(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{_HOST}:{self.port}"}},
                "plugins": {
                    "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}
                },
            }
        )
        await broker.start()
        self._started.set()
        await self._stop.wait()
        await asyncio.wait_for(broker.shutdown(), _STOP_S)


def _quieten() -> None:
    # Both tell of every step they take; where it matters, edgepose says so itself.
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _root(reason: object) -> object:
    """Return the first cause of an error, which names what the system said."""
    while isinstance(reason, Exception) and reason.__cause__ is not None:
        reason = reason.__cause__
    return getattr(reason, "strerror", None) or reason
