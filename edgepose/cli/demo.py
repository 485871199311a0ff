"""`edgepose demo`: the daemon without configuration, and a subscriber that prints its messages."""

import os
import shutil
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from edgepose.build import source_opener
from edgepose.cli._options import model_option, set_up_logging
from edgepose.config.loader import load_config
from edgepose.config.schema import CameraConfig, Config
from edgepose.daemon.app import launch
from edgepose.errors import SourceError
from edgepose.mqtt.local_broker import local_broker

LOCAL_BROKER: Final = ("127.0.0.1", 1883)
POSES_EVERY_S: Final = 0.5
"""There is a pose message for every frame; printing all of them would be unreadable."""


@click.command()
@click.option("--source", metavar="URI", help="Use this source instead of searching for a camera.")
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
                "cameras.0.source": source,
                "model.name": model,
                "mqtt.url": url,
                "mqtt.protocol": protocol,
            },
        )
        _print(f"source: {source}")
        _print_messages(config)
        if seconds is not None:
            timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
            timer.start()
            stack.callback(timer.cancel)
        launch(lambda: config, config_file=None)
        # The last messages of the daemon are still in transit.
        time.sleep(0.3)
    _print("stopped")


def _print(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


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


def _print_messages(config: Config) -> None:
    """Print the messages that a subscriber of this node receives, one a line, in a thread."""
    from paho.mqtt.client import MQTTMessage
    from paho.mqtt.subscribe import callback

    topics = f"{config.mqtt.base_topic}/{config.node_name}/#"
    next_poses_s = 0.0

    def on_message(_client: object, _userdata: object, message: MQTTMessage) -> None:
        nonlocal next_poses_s
        if message.topic.endswith("/poses"):
            if time.monotonic() < next_poses_s:
                return
            next_poses_s = time.monotonic() + POSES_EVERY_S
        line = f"{message.topic} {message.payload.decode(errors='replace')}"
        width = shutil.get_terminal_size((400, 24)).columns
        print(line if len(line) <= width else f"{line[: width - 1]}…", flush=True)

    address = config.mqtt.address
    threading.Thread(
        target=callback,
        args=(on_message, topics),
        kwargs={"qos": 1, "hostname": address.host, "port": address.port},
        name="subscriber",
        daemon=True,
    ).start()
    _print(f"subscribed to {topics}; Ctrl-C stops")
