"""MQTT client: one network thread, automatic reconnect, rate-limited logging."""

import logging
import math
import select
import socket
import threading
import time

from edgepose.errors import BrokerError, EdgeposeError
from edgepose.mqtt import diagnostics
from edgepose.mqtt.commands import CommandReceiver
from edgepose.mqtt.connection import MqttConnection
from edgepose.mqtt.diagnostics import Failure, Unacknowledged
from edgepose.mqtt.failure_log import FailureLog
from edgepose.mqtt.options import ConnectOptions, Protocol
from edgepose.mqtt.outbox import Outbox
from edgepose.mqtt.retained import RetainedTopics

_log = logging.getLogger("edgepose.mqtt")


class MqttClient:
    """Sends what is in an outbox on a connection that is restored whenever it is lost.

    Each kind of failure is logged once, until the connection has been stable for a while; attempts
    go on with backoff, also while the password or the files for TLS cannot be read.
    """

    def __init__(
        self,
        options: ConnectOptions,
        outbox: Outbox,
        receiver: CommandReceiver | None = None,
        retained: RetainedTopics | None = None,
    ) -> None:
        self._options = options
        self._outbox = outbox
        self._receiver = receiver
        self._retained = retained
        if options.address.tls and options.tls.insecure:
            _log.warning(
                "the certificate of the MQTT broker is not verified (TLS is set to insecure): "
                "anyone in between can read and change all messages"
            )
        self._closing = threading.Event()
        self._close_by = 0.0
        self._required = False
        self._turn_by_s = math.inf
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

        # The network thread's own.
        self._protocol: Protocol = options.protocol
        self._protocol_accepted = options.protocol != "5"
        self._failure_log = FailureLog(options)
        self._oversized = False

    # -- called by other threads -------------------------------------------------------------

    def open(self, *, require_connection_within_s: float | None = None) -> None:
        """Start connecting; return at once, or once connected if required.

        Raises BrokerError with the first reason why it cannot connect, only if required.
        """
        if self._thread.ident is not None or self._closing.is_set():
            return
        outbox = self._outbox
        self._required = require_connection_within_s is not None
        self._thread.start()
        if require_connection_within_s is None:
            return
        with outbox.changed:
            outbox.changed.wait_for(
                lambda: outbox.online or outbox.failure, require_connection_within_s
            )
            online, failure = outbox.online, outbox.failure
        if not online:
            self.close()
            silent = diagnostics.silent(require_connection_within_s)
            raise BrokerError(failure or self._message(silent))

    @property
    def alive(self) -> bool:
        """Whether the network thread makes progress, connected or not."""
        if self._thread.ident is None:
            return True
        return self._thread.is_alive() and time.monotonic() < self._turn_by_s

    def close(self) -> None:
        """Send what waits and the offline payload, for `close_s` at most; twice is fine."""
        close_s = self._options.timeouts.close_s
        if not self._closing.is_set():
            self._close_by = time.monotonic() + close_s
            self._closing.set()
        self._outbox.close()
        if self._thread.ident is not None:
            # A name lookup cannot be interrupted; the thread then ends later.
            self._thread.join(close_s + 0.5)
        self._outbox.close_store()

    # -- the network thread ------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._connect_and_serve()
            except Failure as failure:
                pause_s = self._on_failure(failure)
            except EdgeposeError as error:
                pause_s = self._on_failure(Failure(str(error), f"is not tried: {error}"))
            except Exception as error:  # noqa: BLE001 - a bug must not end the thread
                _log.debug("internal error", exc_info=True)
                pause_s = self._on_failure(diagnostics.internal_error(error))
            else:
                break
            self._expect_turn(pause_s + self._options.timeouts.turn_s)
            self._closing.wait(pause_s)
        self._outbox.detach(None)

    def _connect_and_serve(self) -> None:
        """Connect, and serve the connection until `close`; raises Failure."""
        self._expect_turn(self._options.timeouts.connect_turn_s)
        # The broker would otherwise send what was too large again.
        clean, changed = self._oversized, self._outbox.changed
        connection = MqttConnection(
            self._options, self._protocol, self._receiver, changed, clean=clean
        )
        try:
            connection.connect(self._closing)
            if self._closing.is_set():
                return
            self._protocol_accepted = True
            if self._retained is not None:
                # Before the states are sent, which replace what the broker retains.
                connection.watch(self._retained)
            self._outbox.attach(connection)
            self._serve(connection)
            self._shut_down(connection)
        finally:
            connection.close()

    def _serve(self, connection: MqttConnection) -> None:
        outbox, log, timeouts = self._outbox, self._failure_log, self._options.timeouts
        connected = False
        check_at = 0.0
        probe_at = time.monotonic() + timeouts.probe_s
        while not self._closing.is_set():
            self._expect_turn(timeouts.turn_s)
            try:
                connection.serve()
            finally:
                while connection.refused:
                    log.refused(connection.refused.pop())
            if outbox.online and not connected:
                connected = True
                log.connected(self._protocol, outbox.dropped_transient)
            now = time.monotonic()
            if now >= check_at:
                check_at = now + timeouts.unacknowledged_s
                outbox.save_overdue_events()
                if self._retained is not None:
                    self._retained.check()
                outbox.try_suspects(again=log.check_stable())
            if now >= probe_at:
                probe_at = now + timeouts.probe_s
                connection.probe()

    def _expect_turn(self, within_s: float) -> None:
        self._turn_by_s = time.monotonic() + within_s

    def _shut_down(self, connection: MqttConnection) -> None:
        """Send what waits, and last the offline payload.

        If the broker does not acknowledge it all in time, it publishes the last will.
        """
        if self._finish(connection):
            self._outbox.send_offline()
            if self._finish(connection):
                connection.disconnect()

    def _finish(self, connection: MqttConnection) -> bool:
        """Return whether the broker has acknowledged everything in time."""
        while not connection.idle:
            if time.monotonic() >= self._close_by:
                return False
            connection.serve(0.05)
        return True

    def _on_failure(self, failure: Failure) -> float:
        """Log a failure and end the connection; return how long to wait, in s."""
        if self._closing.is_set():
            return 0.0
        if self._fall_back_to_311(failure):
            self._outbox.detach(None)
            return 0.0
        self._oversized = failure.kind == diagnostics.OVERSIZED
        if self._oversized:
            # It may be retained, and would end every connection.
            self._retained = None
        failure = self._explained(failure)
        message = self._message(failure)
        dropped = self._outbox.dropped_transient
        self._outbox.detach(message)
        if self._required and not self._outbox.connections:
            # `open` raises it.
            self._closing.set()
            return 0.0
        return self._failure_log.failed(failure, message, dropped)

    def _fall_back_to_311(self, failure: Failure) -> bool:
        """Change the version if the broker may not know this one; return whether to try at once.

        An old broker should answer that it does not know MQTT 5; some hang or end the connection.
        """
        if self._protocol_accepted:
            return False
        if failure.kind == diagnostics.VERSION and self._protocol == "5":
            self._protocol = "3.1.1"
            return True
        if failure.kind in (diagnostics.NO_MQTT, diagnostics.SILENT):
            self._protocol = "3.1.1" if self._protocol == "5" else "5"
        return False

    def _explained(self, failure: Failure) -> Failure:
        """Return a failure, or the likely reason of several in succession."""
        topic = self._outbox.suspect(
            failure.suspects, unacknowledged=isinstance(failure, Unacknowledged)
        )
        if topic is not None:
            failure = diagnostics.put_aside(topic, self._options.timeouts.memory_s)
        if self._failure_log.is_repeated(failure) and self._broker_accepts():
            return diagnostics.repeated_disconnects(self._options.client_id)
        return failure

    def _broker_accepts(self) -> bool:
        """Whether the broker still runs, right after it ended a connection."""
        address, timeouts = self._options.address, self._options.timeouts
        self._expect_turn(timeouts.connect_turn_s)
        try:
            with socket.create_connection((address.host, address.port), timeouts.connect_s) as sock:
                # One that is just ending closes this connection too.
                return not select.select([sock], [], [], timeouts.blame_s)[0]
        except OSError:
            return False

    def _message(self, failure: Failure) -> str:
        return f"the MQTT broker {self._options.address.netloc} {failure}"
