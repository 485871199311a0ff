"""`edgepose demo`: the daemon without configuration, and a subscriber that prints its messages."""

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click

from edgepose.cli._options import debug_of, model_option, set_up_logging
from edgepose.config import Config, load_config
from edgepose.daemon.app import launch
from edgepose.errors import SourceError

LOCAL_BROKER: Final = ("127.0.0.1", 1883)
POSES_EVERY_S: Final = 0.5
"""There is a pose message for every frame; printing all of them would be unreadable."""


@click.command()
@click.option("--source", metavar="URI", help="Use this source instead of searching for a camera.")
@model_option
@click.option("--seconds", type=click.FloatRange(min=0.1), help="Stop after this time.")
@click.pass_context
def command(
    context: click.Context, *, source: str | None, model: str | None, seconds: float | None
) -> None:
    """Run the daemon without configuration and print the messages that a subscriber receives.

    The source is the first camera found, else the bundled photograph in motion; the broker is the
    one on this machine, else an embedded one. Ctrl-C stops it.
    """
    set_up_logging("warning", debug=debug_of(context))
    with ExitStack() as stack:
        url, protocol = stack.enter_context(_broker())
        chosen = source or _find_camera()
        config = load_config(
            None,
            {
                "cameras.0.source": chosen,
                "model.name": model,
                "mqtt.url": url,
                "mqtt.protocol": protocol,
            },
        )
        _print(f"source: {chosen}")
        stack.enter_context(_subscriber(config, url))
        if seconds is not None:
            stack.enter_context(_end_after(seconds))
        launch(lambda: config, config_file=None)
    _print("stopped")


def _print(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


@contextmanager
def _broker() -> Iterator[tuple[str, str]]:
    """Yield URL and protocol of the broker on this machine, or of an embedded one."""
    host, port = LOCAL_BROKER
    try:
        socket.create_connection(LOCAL_BROKER, timeout=1.0).close()
    except OSError:
        # Imported on demand: the embedded broker is an extra.
        from edgepose.mqtt.embedded_broker import EmbeddedBroker

        with EmbeddedBroker() as broker:
            _print(f"broker: embedded, {broker.url} (no broker on port {port})")
            # The embedded broker does not support MQTT 5.
            yield broker.url, "3.1.1"
        return
    _print(f"broker: mqtt://{host}:{port}, found on this machine")
    yield f"mqtt://{host}:{port}", "5"


def _find_camera() -> str:
    """Return the URI of the first camera that delivers a frame, else the synthetic source."""
    for candidate in _candidates():
        # Imported on demand: not needed if there is no camera device.
        from edgepose.build import source_opener
        from edgepose.config import CameraConfig

        try:
            with source_opener(CameraConfig(source=candidate))() as opened:
                next(opened.frames())
        except (SourceError, StopIteration) as error:
            _print(f"{candidate} is unavailable: {error}")
            continue
        return candidate
    _print("no camera found; using the bundled photograph in motion")
    return "synthetic:"


def _candidates() -> Iterator[str]:
    if find_spec("picamera2") is not None:
        yield "picamera:0"
    for device in sorted(Path("/dev").glob("video[0-9]*")):
        if os.access(device, os.R_OK | os.W_OK):
            yield str(device)


@contextmanager
def _subscriber(config: Config, url: str) -> Iterator[None]:
    """Print the messages that a subscriber of this node receives, one a line."""
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    printer = _Printer()
    client = paho.Client(CallbackAPIVersion.VERSION2)

    def on_connect(connected: paho.Client, *_: Any) -> None:
        connected.subscribe(f"{config.mqtt.base_topic}/{config.node_name}/#", qos=1)

    def on_message(_client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        printer.show(message.topic, bytes(message.payload))

    client.on_connect = on_connect
    client.on_message = on_message
    address = config.mqtt.address
    client.connect(address.host, address.port)
    client.loop_start()
    _print(f"subscribed to {config.mqtt.base_topic}/{config.node_name}/# on {url}; Ctrl-C stops")
    try:
        yield
    finally:
        # The last messages of the daemon are still in transit.
        time.sleep(0.3)
        client.disconnect()
        client.loop_stop()


class _Printer:
    """Prints messages to stdout, pose messages at a readable rate."""

    def __init__(self) -> None:
        self._next_poses_s = 0.0

    def show(self, topic: str, payload: bytes) -> None:
        """Print one message on a line, cut to the terminal's width."""
        if topic.endswith("/poses"):
            now_s = time.monotonic()
            if now_s < self._next_poses_s:
                return
            self._next_poses_s = now_s + POSES_EVERY_S
        line = f"{topic} {payload.decode(errors='replace')}"
        width = shutil.get_terminal_size((400, 24)).columns
        print(line if len(line) <= width else f"{line[: width - 1]}…", flush=True)


@contextmanager
def _end_after(seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
