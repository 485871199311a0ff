"""`edgepose demo`: the daemon without configuration, and a subscriber that prints its messages."""

import logging
import os
import secrets
import shutil
import signal
import socket
import threading
import time
from contextlib import ExitStack, closing, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Self

import click
from msgspec.structs import replace

from edgepose.build import source_opener
from edgepose.cli._options import model_option, set_up_logging, source_option
from edgepose.cli._terminal import print_on_stderr
from edgepose.config.loader import load_config
from edgepose.config.schema import CameraConfig, Config
from edgepose.daemon.app import launch
from edgepose.errors import SourceError
from edgepose.mqtt.local_broker import local_broker
from edgepose.mqtt.topics import OFFLINE, Topics
from edgepose.util.redact import masked_url

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage

LOCAL_BROKER: Final = ("127.0.0.1", 1883)
LAST_MESSAGE_S: Final = 2.0
POSES_EVERY_S: Final = 0.5
"""There is a pose message for every frame; printing all of them would be unreadable."""


@click.command()
@source_option("Use this source instead of searching for a camera.")
@model_option
@click.option("--seconds", type=click.FloatRange(min=0.1), help="Stop after this time.")
def command(*, source: str | None, model: str | None, seconds: float | None) -> None:
    """Run the daemon without configuration and print the messages that a subscriber receives.

    The source is the first camera found, else the bundled photograph in motion; the broker is the
    one on this machine, else an embedded one. Ctrl-C stops it.
    """
    set_up_logging("warning")
    with ExitStack() as stack:
        url, protocol = _broker(stack)
        source = source or _find_camera()
        config = load_config(
            None,
            {
                # Neither the topics and client id of a service here nor its switches.
                "node": f"demo-{secrets.token_hex(4)}",
                "state_directory": stack.enter_context(TemporaryDirectory(prefix="edgepose-demo-")),
                "cameras.0.source": source,
                "model.name": model,
                "mqtt.url": url,
                "mqtt.protocol": protocol,
            },
        )
        # The broker keeps nothing for a client without an id.
        config = replace(config, mqtt=replace(config.mqtt, client_id=""))
        _print(f"source: {masked_url(source)}")
        subscriber = stack.enter_context(_Subscriber(config))
        if seconds is not None:
            timer = threading.Timer(seconds, _stop)
            timer.start()
            stack.callback(timer.cancel)
        launch(lambda: config, config_file=None)
    if subscriber.failure is not None:
        raise subscriber.failure
    _print("stopped")


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _print(text: str) -> None:
    print_on_stderr(f"demo: {text}")


def _broker(stack: ExitStack) -> tuple[str, str]:
    """Return URL and protocol of the broker on this machine, or of an embedded one."""
    host, port = LOCAL_BROKER
    try:
        socket.create_connection(LOCAL_BROKER, timeout=1.0).close()
    except OSError:
        broker = stack.enter_context(local_broker())
        _print(f"broker: embedded, {broker.name}, {broker.url} (no broker on port {port})")
        return broker.url, broker.protocol
    _print(f"broker: mqtt://{host}:{port}, found on this machine")
    return f"mqtt://{host}:{port}", "5"


def _find_camera() -> str:
    """Return the URI of the first camera that delivers a frame, else the synthetic source."""
    devices = map(str, sorted(Path("/dev").glob("video[0-9]*")))
    candidates = [device for device in devices if os.access(device, os.R_OK | os.W_OK)]
    if find_spec("picamera2") is not None:
        candidates.insert(0, "picamera:0")
    for candidate in candidates:
        try:
            with closing(source_opener(CameraConfig(source=candidate))().frames()) as frames:
                next(frames)
        except (SourceError, StopIteration) as error:
            _print(f"{candidate} is unavailable: {error}")
        else:
            return candidate
    _print("no camera found; using the bundled photograph in motion")
    return "synthetic:"


class _Subscriber:
    """Prints the messages of the node, one a line, in a thread, and clears the retained ones last.

    `failure` is why a message could not be printed, which ends the demonstration.
    """

    def __init__(self, config: Config) -> None:
        self.failure: OSError | None = None
        topics = Topics(node=config.node_name, base=config.mqtt.base_topic)
        self._all = f"{topics.root}/#"
        self._availability = topics.availability
        address = config.mqtt.address
        self._broker: dict[str, Any] = {"hostname": address.host, "port": address.port}
        self._retained: set[str] = set()
        self._offline = threading.Event()
        self._next_poses_s = 0.0

    def __enter__(self) -> Self:
        """Subscribe, in the background."""
        from paho.mqtt.subscribe import callback

        threading.Thread(
            target=callback,
            args=(self._on_message, self._all),
            kwargs={"qos": 1, **self._broker},
            name="subscriber",
            daemon=True,
        ).start()
        _print(f"subscribed to {self._all}; Ctrl-C stops")
        return self

    def __exit__(self, *_error: object) -> None:
        """Wait for the last message of the daemon, briefly, and clear what the broker retains."""
        from paho.mqtt.publish import multiple

        self._offline.wait(LAST_MESSAGE_S)
        # `multiple` logs it as an error when its connection ends.
        logging.getLogger("paho").setLevel(logging.CRITICAL)
        empty: list[Any] = [(topic, None, 1, True) for topic in sorted(self._retained)]
        if empty:
            # Without a broker, nothing can be cleared.
            with suppress(OSError):
                multiple(empty, **self._broker)

    def _on_message(self, _client: object, _userdata: object, message: "MQTTMessage") -> None:
        if message.topic.endswith("/poses"):
            if time.monotonic() < self._next_poses_s:
                return
            self._next_poses_s = time.monotonic() + POSES_EVERY_S
        elif not message.topic.endswith("/event"):
            if not message.payload:
                return
            self._retained.add(message.topic)
        line = f"{message.topic} {message.payload.decode(errors='replace')}"
        width = shutil.get_terminal_size((400, 24)).columns
        try:
            print(line if len(line) <= width else f"{line[: width - 1]}…", flush=True)
        except OSError as error:
            if self.failure is None:
                self.failure = error
                _stop()
        if message.topic == self._availability and message.payload == OFFLINE:
            self._offline.set()
