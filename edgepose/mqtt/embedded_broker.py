"""A small MQTT broker in this process, for a demonstration: amqtt, in a thread of its own.

amqtt knows MQTT 3.1.1 only (connect with that), passes QoS 0 on as QoS 1 and may deliver a retained
message twice.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Final

from edgepose.errors import BrokerError
from edgepose.util.net import free_port
from edgepose.util.resource import Resource

_HOST: Final = "127.0.0.1"
_PLUGINS: Final = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
_START_S: Final = 10.0
_STOP_S: Final = 5.0


class EmbeddedBroker(Resource):
    """A broker on a port of the loopback interface, without a login; `with` starts and stops it.

    Port 0 is replaced by a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] | None = None

    @property
    def url(self) -> str:
        """The broker's address."""
        return f"mqtt://{_HOST}:{self.port}"

    def open(self) -> None:
        """Start; raises BrokerError if amqtt is missing or the port is taken."""
        # They log every step; edgepose logs what matters.
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            # Late: an extra that only a demonstration needs, and slow to import.
            from amqtt.broker import Broker
        except ImportError as error:
            raise BrokerError(
                "the embedded broker needs amqtt, which is not installed: "
                'pip install "edgepose[demo]", or start mosquitto on this machine'
            ) from error
        self.port = self.port or free_port()
        started: Future[Callable[[], object]] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(Broker, started)),
            name="embedded-broker",
            daemon=True,
        )
        self._thread.start()
        try:
            self._stop = started.result(_START_S)
        except Exception as error:
            self.close()
            cause = error.__cause__ or error
            reason = getattr(cause, "strerror", None) or cause or "timed out"
            raise BrokerError(
                f"the embedded broker cannot listen on {_HOST}:{self.port} ({reason}): choose "
                "another port, or stop what listens there"
            ) from error

    def close(self) -> None:
        """Stop; closing twice is fine."""
        if self._stop is not None:
            self._stop()
        if self._thread is not None:
            self._thread.join(_STOP_S)
        self._thread = self._stop = None

    async def _serve(self, broker_class: Any, started: Future[Callable[[], object]]) -> None:
        loop = asyncio.get_running_loop()
        # Connections may break off while the broker stops.
        loop.set_exception_handler(lambda _loop, _context: None)
        stop = asyncio.Event()
        try:
            listener = {"type": "tcp", "bind": f"{_HOST}:{self.port}"}
            broker = broker_class({"listeners": {"default": listener}, "plugins": _PLUGINS})
            await broker.start()
        except Exception as error:  # noqa: BLE001 - raised by `open`
            started.set_exception(error)
            return
        started.set_result(partial(loop.call_soon_threadsafe, stop.set))
        await stop.wait()
        # The process ends anyway.
        with suppress(Exception):
            await asyncio.wait_for(broker.shutdown(), _STOP_S)
