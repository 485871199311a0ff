"""The web server: one page, its files, and a websocket with what the broker sends."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from edgepose.dashboard.access import COOKIE, Access
from edgepose.dashboard.hub import Browser, Hub
from edgepose.errors import ConfigError
from edgepose.mqtt.commands import CAMERA_COMMANDS
from edgepose.mqtt.options import ConnectOptions
from edgepose.mqtt.subscriber import MqttSubscriber
from edgepose.mqtt.topics import Topics
from edgepose.util.secrets import Secret

STATIC: Final = Path(__file__).parent / "static"
_FILES: Final = {
    "page.js": "text/javascript",
    "panel.js": "text/javascript",
    "drawing.js": "text/javascript",
    "aiming.js": "text/javascript",
    "style.css": "text/css",
}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_HEARTBEAT_S: Final = 20.0
"""A browser that answers no ping within half of it is gone."""
_LOGIN_PAUSE_S: Final = 1.0
_MAX_COMMAND_BYTES: Final = 1000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Dashboard:
    """Serves the page on `host` and `port`, with what the broker sends below `base`.

    Raises ConfigError for an address that others can reach, if there is no `token`.
    """

    def __init__(
        self, options: ConnectOptions, base: str, *, host: str, port: int, token: Secret | None
    ) -> None:
        self._access = Access(host, token)
        self._base = base
        self._host, self._port = host, port
        self._hub = Hub()
        self._options = options
        self._login = asyncio.Lock()

    async def run(self, ready: Callable[[str], None]) -> None:
        """Serve until cancelled; `ready` is called with the page's address once it is served.

        Raises ConfigError if the address cannot be listened on.
        """
        loop, hub = asyncio.get_running_loop(), self._hub
        prefix = len(self._base) + 1
        self._subscriber = MqttSubscriber(
            self._options,
            f"{self._base}/#",
            lambda topic, payload: _call(loop, hub.receive, topic[prefix:], payload),
            lambda failure: _call(loop, hub.set_connection, failure),
        )
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port)
        try:
            try:
                await site.start()
            except OSError as error:
                reason = error.strerror or error
                raise ConfigError(
                    f"the page cannot be served on {self._host}:{self._port} ({reason}); choose "
                    "another port, as in --listen 127.0.0.1:8081"
                ) from None
            self._subscriber.start()
            host = f"[{self._host}]" if ":" in self._host else self._host
            port = runner.addresses[0][1]
            ready(f"http://{host}:{port}/")
            await asyncio.Event().wait()
        finally:
            self._subscriber.close()
            await runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=4096)
        application.router.add_get("/", self._page)
        application.router.add_get("/healthz", self._health)
        application.router.add_get("/messages", self._messages)
        application.router.add_post("/login", self._log_in)
        application.router.add_get("/{name}", self._file)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what is not meant for this page, and add the headers to every answer."""
        try:
            if not self._access.allows_host(request.host):
                raise web.HTTPForbidden(text="this page has another name; open http://127.0.0.1")
            if request.path == "/messages" and not self._allowed(request):
                raise web.HTTPForbidden(text="log in first")
            response = await handler(request)
        except web.HTTPException as answer:
            answer.headers.update(_HEADERS)
            raise
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    def _allowed(self, request: web.Request) -> bool:
        return self._access.allows_session(request.cookies.get(COOKIE))

    async def _page(self, request: web.Request) -> web.StreamResponse:
        name = "index.html" if self._allowed(request) else "login.html"
        return _static(name, "text/html")

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in _FILES:
            raise web.HTTPNotFound
        return _static(name, _FILES[name])

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        """Exchange the token for a cookie; one attempt a second, of all browsers together."""
        token = str((await request.post()).get("token", ""))
        async with self._login:
            session = self._access.log_in(token)
            if session is None:
                await asyncio.sleep(_LOGIN_PAUSE_S)
                return _wrong_token()
        page = web.HTTPSeeOther("/")
        page.set_cookie(COOKIE, session, httponly=True, samesite="Strict", path="/")
        return page

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        """Send every message to a browser, and take its commands."""
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text="the page of another site may not read this")
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=_MAX_COMMAND_BYTES)
        await socket.prepare(request)
        browser = self._hub.join()
        sender = asyncio.create_task(_send(socket, browser))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._command(message.data)
        finally:
            self._hub.leave(browser)
            sender.cancel()
        return socket

    def _command(self, text: str) -> None:
        """Publish a command of the page; anything else is ignored."""
        try:
            command = json.loads(text)
            name, value = command["name"], str(command["value"]).encode()
            CAMERA_COMMANDS[name](value)
            topics = Topics(node=command["node"], base=self._base)
            topic = topics.command(command["camera"], name)
        except (ValueError, KeyError, TypeError):
            return
        self._subscriber.publish(topic, value)


async def _send(socket: web.WebSocketResponse, browser: Browser) -> None:
    while not socket.closed:
        for message in await browser.take():
            await socket.send_str(message)


def _wrong_token() -> web.Response:
    content = (STATIC / "login.html").read_text().replace('role="alert" hidden', 'role="alert"')
    return web.Response(text=content, content_type="text/html", status=403)


def _static(name: str, content_type: str) -> web.Response:
    content = (STATIC / name).read_bytes()
    return web.Response(body=content, content_type=content_type, charset="utf-8")


def _call(
    loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: object
) -> None:
    """Call a function in the thread of the loop, unless that has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, *arguments)
