"""`edgepose setup`: the first configuration, asked for on a terminal."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgepose.cli._options import set_up_logging
from edgepose.config.loader import SYSTEM_FILE, load_config
from edgepose.config.schema import CameraConfig, Config, MqttConfig
from edgepose.config.source_uri import parse_source_uri
from edgepose.diagnostics.broker import check_broker
from edgepose.errors import EdgeposeError
from edgepose.first_setup import brokers, cameras, service, writing
from edgepose.mqtt.topics import check_id
from edgepose.mqtt.url import parse_broker_url
from edgepose.util.secrets import Secret

T = TypeVar("T")
SYNTHETIC = "synthetic:"


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Configuration to write; default: the service's for root, else this user's.",
)
def command(*, output: Path | None) -> None:
    """Ask for camera, broker and name, try them, and write a configuration.

    An existing configuration is replaced only after a question. The password of the broker goes
    into another file, which only its owner can read.
    """
    set_up_logging("error")
    path = (output or writing.default_path()).absolute()
    if path.exists() and not click.confirm(*_replace_question(path)):
        click.echo("Nothing was changed.")
    elif path == SYSTEM_FILE:
        with service.stopped() as ran:
            if ran:
                click.echo("The service is stopped until the end, because it has the camera.")
            _ask_and_write(path)
        if service.start():
            click.echo("The service runs with it. Check everything: sudo edgepose doctor")
        else:
            click.echo("The service does not run. See why: sudo edgepose doctor")
    else:
        _ask_and_write(path)
        click.echo(f"Now: edgepose run -c {path}")


def _replace_question(path: Path) -> tuple[str, bool]:
    """Return what to ask about an existing file, and the default answer."""
    try:
        has_settings = load_config(path) != Config()
    except EdgeposeError:
        has_settings = True
    if has_settings:
        return f"{path} exists. Replace it?", False
    return f"{path} exists, with the defaults only. Replace it?", True


def _ask_and_write(path: Path) -> None:
    node = _ask("Name of this device, in topics and in Home Assistant", _node, Config().node_name)
    values: dict[str, Any] = {"node": node, "cameras": [_ask_camera()]}
    values["mqtt"], password = _ask_broker(node)
    values["homeassistant"] = {
        "enabled": click.confirm("Announce this device to Home Assistant?", default=True)
    }
    for written in writing.write_config(path, values, password):
        click.echo(f"written: {written}")


def _ask(text: str, check: Callable[[str], T], default: str) -> T:
    """Ask until an answer is valid."""
    while True:
        try:
            return check(click.prompt(text, default=default))
        except (EdgeposeError, ValueError) as error:
            click.echo(f"  {error}")


def _node(text: str) -> str:
    return check_id(text, "the name")


def _ask_camera() -> dict[str, Any]:
    """Ask for a camera until one delivers frames, or the user takes it all the same."""
    found = [*cameras.candidates(), SYNTHETIC]
    click.echo("Cameras:")
    for number, source in enumerate(found, 1):
        note = " (a photograph in motion, to try things out)" if source == SYNTHETIC else ""
        click.echo(f"  {number}: {source}{note}")
    while True:
        answer = click.prompt("Number, or another source such as rtsp://host/path", default="1")
        source = found[int(answer) - 1] if _is_number(answer, len(found)) else answer
        try:
            parse_source_uri(source)
            camera = CameraConfig(source=source)
            click.echo(f"  trying {source} ...")
            click.echo(f"  it shows: {cameras.describe(Config(cameras=(camera,)), camera)}")
        except (EdgeposeError, StopIteration) as error:
            click.echo(f"  {error}")
            if not click.confirm("Take this source all the same?", default=False):
                continue
        return {"name": "main", "source": source}


def _is_number(answer: str, count: int) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,3}", answer)) and 1 <= int(answer) <= count


def _ask_broker(node: str) -> tuple[dict[str, Any], str | None]:
    """Ask for a broker until one accepts the login, or the user takes it all the same."""
    click.echo("Searching for MQTT brokers ...")
    found = list(brokers.find_brokers())
    for broker in found:
        click.echo(f"  found: {broker}")
    default = f"mqtt://{found[0]}" if found else "mqtt://localhost:1883"
    while True:
        url = _ask("Broker, mqtt://host:port or mqtts://host:port with TLS", _url, default)
        username = click.prompt("User of the broker (empty: none)", default="", show_default=False)
        password = None
        if username:
            password = click.prompt("Password", hide_input=True, default="", show_default=False)
        secret = Secret(password) if password else None
        mqtt = MqttConfig(url=url, username=username or None, password=secret)
        for check in check_broker(Config(node=node, mqtt=mqtt)):
            click.echo(f"  {check.message}")
            if check.status == "error":
                click.echo(f"  -> {check.remedy}")
                break
        else:
            break
        if click.confirm("Take this broker all the same?", default=False):
            break
        default = url
    values = {"url": url}
    return (values | {"username": username} if username else values), password or None


def _url(text: str) -> str:
    url = text if "://" in text else f"mqtt://{text}"
    parse_broker_url(url)
    return url
