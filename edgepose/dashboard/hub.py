"""What is known of every node, and what each browser has still to be sent."""

import asyncio
from collections import deque
from typing import Final

MAX_TOPICS: Final = 5000
"""Of all nodes together; a broker that is used for other things too cannot fill the memory."""
MAX_EVENTS: Final = 50
_TRANSIENT: Final = ("/poses", "/event")


class Browser:
    """The messages that wait for one browser.

    A slow one receives the newest message of each topic, and the newest events: its memory is
    bounded, and it never delays another.
    """

    def __init__(self) -> None:
        self._latest: dict[str, str] = {}
        self._events: deque[tuple[str, str]] = deque(maxlen=MAX_EVENTS)
        self._waiting = asyncio.Event()

    def add(self, topic: str, payload: str) -> None:
        """Add a message."""
        if topic.endswith("/event"):
            self._events.append((topic, payload))
        else:
            # The newest is sent last.
            self._latest.pop(topic, None)
            self._latest[topic] = payload
        self._waiting.set()

    async def take(self) -> list[str]:
        """Wait for messages, and return each as its topic, a line end and its payload."""
        await self._waiting.wait()
        self._waiting.clear()
        messages = [*self._latest.items(), *self._events]
        self._latest.clear()
        self._events.clear()
        return [f"{topic}\n{payload}" for topic, payload in messages]


class Hub:
    """Passes what the broker sends to every browser, and keeps the states for the next one.

    Topics begin with the node; the empty one is the state of the connection to the broker.
    """

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._connection = "connecting"
        self._browsers: set[Browser] = set()

    def join(self) -> Browser:
        """Return the queue of a new browser, with every state in it."""
        browser = Browser()
        browser.add("", self._connection)
        for topic, payload in self._states.items():
            browser.add(topic, payload)
        self._browsers.add(browser)
        return browser

    def leave(self, browser: Browser) -> None:
        """Forget a browser."""
        self._browsers.discard(browser)

    def receive(self, topic: str, payload: bytes) -> None:
        """Take a message of the broker."""
        text = payload.decode("utf-8", "replace")
        if not topic.endswith(_TRANSIENT):
            if not payload:
                self._states.pop(topic, None)
            elif topic in self._states or len(self._states) < MAX_TOPICS:
                self._states[topic] = text
            else:
                return
        for browser in self._browsers:
            browser.add(topic, text)

    def set_connection(self, failure: str | None) -> None:
        """Note that the broker is connected (None), or why it is not."""
        self._connection = "connected" if failure is None else f"lost {failure}"
        if failure is not None:
            # What is retained arrives again.
            self._states.clear()
        for browser in self._browsers:
            browser.add("", self._connection)
