"""The page's process: by `edgepose dashboard`, or beside a daemon, which starts it."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from edgepose.config.schema import Config, DashboardConfig, MqttConfig
from edgepose.errors import EdgeposeError
from edgepose.util.address import parse_listen
from edgepose.util.extras import require_extra
from edgepose.util.secrets import Secret

DEFAULT_LISTEN: Final = "127.0.0.1:8080"


def serve(config: Config, ready: Callable[[str], None]) -> None:
    """Serve the page until SIGINT or SIGTERM; `ready` is called with its address.

    Raises ConfigError for an address that cannot be used, and SecretFileError.
    """
    _serve(config.mqtt, config.dashboard, ready)


def _serve(mqtt: MqttConfig, settings: DashboardConfig, ready: Callable[[str], None]) -> None:
    require_extra("aiohttp", "dashboard", "the dashboard")
    from edgepose.dashboard.server import Dashboard

    host, port = parse_listen(settings.listen or DEFAULT_LISTEN)
    # The broker keeps nothing for a client without an id.
    options = replace(mqtt.connect_options(""), availability=None)
    dashboard = Dashboard(
        options, mqtt.base_topic, host=host, port=port, token=settings.read_token()
    )
    asyncio.run(_until_stopped(dashboard.run(ready)))


async def _until_stopped(running: Coroutine[None, None, None]) -> None:
    task = asyncio.ensure_future(running)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


def main() -> None:
    """Serve with the settings that a daemon writes to stdin, and log to stderr, its own."""
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    settings: dict[str, Any] = msgspec.json.decode(sys.stdin.buffer.read())
    mqtt = msgspec.convert(settings["mqtt"], MqttConfig, dec_hook=_decode)
    dashboard = msgspec.convert(settings["dashboard"], DashboardConfig, dec_hook=_decode)
    try:
        _serve(mqtt, dashboard, lambda _address: None)
    except EdgeposeError as error:
        sys.exit(f"ERROR dashboard: {error}")


def _decode(kind: type, value: str) -> object:
    if kind in (Path, Secret):
        return kind(value)
    # As msgspec demands of a hook that does not know a type.
    raise NotImplementedError(kind)
