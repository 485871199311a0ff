"""`edgepose demo`: the daemon without configuration, and a subscriber that prints its messages."""

import os
import secrets
import socket
import threading
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click
from msgspec.structs import replace

from edgepose.build import source_opener
from edgepose.cli._demo_subscriber import Subscriber, stop
from edgepose.cli._options import model_option, set_up_logging, source_option
from edgepose.cli._terminal import print_on_stderr
from edgepose.config.loader import load_config
from edgepose.config.schema import CameraConfig
from edgepose.daemon.app import launch
from edgepose.errors import SourceError
from edgepose.mqtt.local_broker import free_port, local_broker
from edgepose.util.redact import masked_url

LOCAL_BROKER: Final = ("127.0.0.1", 1883)
PAGE: Final = ("127.0.0.1", 8080)


@click.command()
@source_option("Use this source instead of searching for a camera.")
@model_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print every message as a subscriber gets it."
)
@click.option("--seconds", type=click.FloatRange(min=0.1), help="Stop after this time.")
def command(*, source: str | None, model: str | None, as_json: bool, seconds: float | None) -> None:
    """Run the daemon without configuration, with the live page and a line of text a second.

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
                "stats_interval_s": 1.0,
                "posture.enabled": True,
                # A real Home Assistant would keep the entities of a node that is gone.
                "homeassistant.enabled": False,
                "dashboard.listen": _page_address(),
            },
        )
        if config.dashboard.listen is not None:
            _print(f"live page: http://{config.dashboard.listen}/")
        # The broker keeps nothing for a client without an id.
        config = replace(config, mqtt=replace(config.mqtt, client_id=""))
        _print(f"source: {masked_url(source)}")
        _print("Ctrl-C stops")
        subscriber = stack.enter_context(Subscriber(config, as_json=as_json))
        if seconds is not None:
            timer = threading.Timer(seconds, stop)
            timer.start()
            stack.callback(timer.cancel)
        launch(lambda: config, config_file=None)
    if subscriber.failure is not None:
        raise subscriber.failure
    _print("stopped")


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


def _page_address() -> str | None:
    """Return where the page is served, None if its extra is not installed."""
    if find_spec("aiohttp") is None:
        _print("no live page: `pip install 'edgepose[dashboard]'` installs it")
        return None
    host, port = PAGE
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(PAGE)
        except OSError:
            port = free_port()
    return f"{host}:{port}"


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
