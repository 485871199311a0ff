"""The live page in a real Chromium, beside a real broker."""

import json
import re
import socket
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from edgepose.mqtt.local_broker import free_port
from tests.bodies import Body, standing
from tests.browser import Browser
from tests.daemon import running
from tests.dashboard_load import MAX_GROWTH_MB, MAX_NODES, MAX_TRANSFERRED, measure
from tests.mosquitto import Mosquitto, wait_for
from tests.page import SIZE_WH, Page, pose

TOKEN = "0123456789abcdef"


@pytest.fixture
def page(broker: Mosquitto) -> Iterator[Page]:
    """Return the page of `broker`."""
    with Page(broker) as page:
        yield page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Return one browser for all tests; it takes a second to start."""
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser, page: Page) -> Iterator[Browser]:
    """Return the browser, with an empty console after the test; it leaves `page` first."""
    chromium.set_colours("light")
    chromium.set_size(1280, 1000)
    chromium.errors()
    yield chromium
    chromium.driver.get("about:blank")
    assert chromium.errors() == []


def announce(broker: Mosquitto, camera: str = "main", node: str = "gym") -> None:
    """Publish the retained states of a node with one camera."""
    root = f"edgepose/{node}"
    zones = {camera: [{"name": "door", "polygon": [[0.7, 0.5], [0.9, 0.5], [0.9, 0.9]]}]}
    states = {
        f"{root}/info": json.dumps({"version": "1.2.3", "device": "Pi", "zones": zones}),
        f"{root}/stats": json.dumps({"cameras": {camera: {"fps": 12.4}}}),
        f"{root}/accelerator": json.dumps({"device": "cpu", "degraded": False, "model": "m"}),
        f"{root}/{camera}/status": "online",
        f"{root}/{camera}/enabled": "ON",
        f"{root}/{camera}/presence": "ON",
        f"{root}/{camera}/count": "1",
        f"{root}/availability": "online",
    }
    for topic, payload in states.items():
        broker.publish(topic, payload.encode(), retain=True)


def publish_pose(broker: Mosquitto, camera: str = "main") -> None:
    """Publish a pose whose nose is at a quarter of the width and half the height of the frame."""
    others = [[0.3, 0.6 + index / 100, 0.9] for index in range(16)]
    pose = {"id": 1, "score": 0.7, "box": [0.2, 0.4, 0.4, 0.8]}
    message = {
        "captured_at": "2026-01-31T12:00:00.100Z",
        "published_at": "2026-01-31T12:00:00.120Z",
        "frame": {"width": 640, "height": 480},
        "poses": [{**pose, "keypoints": [[0.25, 0.5, 0.9], *others]}],
    }
    broker.publish(f"edgepose/gym/{camera}/poses", json.dumps(message).encode())


def colour_at(browser: Browser, x: float, y: float) -> tuple[int, ...]:
    """Return red, green, blue and opacity of the canvas at a fraction of the frame."""
    script = """
        const canvas = document.querySelector(".camera canvas");
        const [x, y] = [canvas.width * arguments[0], canvas.height * arguments[1]];
        return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
    """
    return tuple(browser.run(script, x, y))


def test_page_draws_the_skeleton_where_the_message_says(
    browser: Browser, page: Page, broker: Mosquitto
) -> None:
    """The nose has the colour of the person, and a place beside the skeleton nothing."""
    announce(broker)
    browser.driver.get(page.address)
    browser.find("body[data-connection=connected]")
    camera = browser.find(".camera[data-node=gym][data-camera=main][data-status=online]")
    assert camera.get_attribute("data-poses") == "0"
    # Until the page is laid out, the canvas has one pixel, which the name of the zone covers.
    wait_for(lambda: colour_at(browser, 0.25, 0.5)[3] == 0, "an empty place")
    publish_pose(broker)
    browser.find(".camera[data-poses='1']")
    red, green, blue, opacity = colour_at(browser, 0.25, 0.5)
    # The first person is green: hue 137.5, of 30 % lightness.
    assert opacity == 255
    assert green > 100 > max(red, blue)
    assert colour_at(browser, 0.6, 0.2)[3] == 0
    # The zone of the node.
    assert 0 < colour_at(browser, 0.85, 0.6)[3] < 255
    facts = ("People 1", "Presence yes", "Latency 20 ms")
    wait_for(lambda: all(fact in " ".join(camera.text.split()) for fact in facts), "the facts")
    assert "edgepose 1.2.3" in browser.find(".machine").text


EVERYTHING = """
posture: {enabled: true}
falls: {enabled: true}
repetitions: {exercise: auto}
publish: {raw: true, angles: true}
"""


def test_page_of_a_daemon_with_everything_on(
    browser: Browser, broker: Mosquitto, tmp_path: Path
) -> None:
    """The process beside the daemon shows what that publishes, and the console is empty."""
    port = free_port()
    config = f"{EVERYTHING}dashboard: {{listen: '127.0.0.1:{port}'}}\n"
    with running(tmp_path, broker, config=config):
        wait_for(lambda: is_served(port), "the page")
        browser.driver.get(f"http://127.0.0.1:{port}/")
        camera = browser.find(".camera[data-node=testnode][data-camera=main][data-poses='1']")
        facts = ("People 1", "Presence yes", "Posture", "Fall none", "Repetitions 0", "Latency")
        wait_for(lambda: all(fact in " ".join(camera.text.split()) for fact in facts), "the facts")
        assert browser.errors() == []
        browser.driver.get("about:blank")


def is_served(port: int) -> bool:
    """Return whether something listens on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_page_cameras_that_come_and_go(browser: Browser, page: Page, broker: Mosquitto) -> None:
    """A second camera appears, a stalled one and a node that died say so."""
    announce(broker)
    browser.driver.get(page.address)
    browser.find(".camera[data-camera=main][data-status=online]")
    broker.publish("edgepose/gym/yard/status", b"stalled", retain=True)
    yard = browser.find(".camera[data-camera=yard][data-status=stalled]")
    assert "stalled: no frames" in yard.text
    degraded = {"device": "cpu", "degraded": True, "reason": "the Edge TPU is unplugged"}
    broker.publish("edgepose/gym/accelerator", json.dumps(degraded).encode(), retain=True)
    wait_for(
        lambda: browser.find(".problem").text == "degraded: the Edge TPU is unplugged", "degraded"
    )
    publish_pose(broker)
    browser.find(".camera[data-camera=main][data-poses='1']")
    broker.publish("edgepose/gym/availability", b"offline", retain=True)
    camera = browser.find(".camera[data-camera=main][data-status=offline][data-poses='0']")
    assert "People" not in camera.text
    assert (
        browser.run("return getComputedStyle(document.querySelector('.camera canvas')).filter")
        == "grayscale(1)"
    )


def test_page_broker_lost_and_back(browser: Browser, page: Page, broker: Mosquitto) -> None:
    """The page says why it shows nothing new, and goes on by itself."""
    announce(broker)
    browser.driver.get(page.address)
    browser.find("body[data-connection=connected]")
    broker.kill()
    browser.find("body[data-connection=lost]")
    wait_for(lambda: "the MQTT broker" in browser.find("#connection").text, "the reason")
    browser.find(".camera[data-status=online] .privacy:disabled")
    broker.start()
    browser.find("body[data-connection=connected]")
    # The broker has forgotten the node, which has not returned yet.
    browser.find(".camera[data-status=offline]")
    announce(broker)
    publish_pose(broker)
    browser.find(".camera[data-poses='1']")


def test_page_privacy_switch_asks(browser: Browser, page: Page, broker: Mosquitto) -> None:
    """Cancel changes nothing; the confirmed switch reaches the node's topic."""
    announce(broker)
    browser.driver.get(page.address)
    switch = browser.find(".camera[data-status=online] .privacy")
    with broker.listener("edgepose/+/+/enabled/set") as listener:
        switch.click()
        browser.find("dialog[open] button[value=no]").click()
        assert browser.count("dialog[open]") == 0
        switch.click()
        assert "It is closed" in browser.find("dialog[open] p").text
        browser.find("dialog[open] button[value=yes]").click()
        listener.wait_for("edgepose/gym/main/enabled/set", b"OFF")
        assert [message.payload for message in listener.received] == [b"OFF"]
    broker.publish("edgepose/gym/main/enabled", b"OFF", retain=True)
    browser.find(".privacy[aria-checked=false]")


def test_page_draws_zones_by_keyboard(browser: Browser, page: Page, broker: Mosquitto) -> None:
    """The corners come out as the lines of the configuration."""
    announce(broker)
    browser.driver.get(page.address)
    browser.find(".camera[data-status=online] .zoning summary").click()
    canvas = browser.find(".camera canvas[tabindex='0']")
    canvas.send_keys(Keys.ENTER, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ENTER)
    canvas.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ENTER, Keys.ENTER, Keys.BACKSPACE)
    name = browser.find(".camera .zoning .name")
    name.clear()
    name.send_keys("sofa")
    text = browser.find(".camera .zoning pre").text
    assert text == ("zones:\n  - name: sofa\n    polygon: [[0.5, 0.5], [0.52, 0.52], [0.48, 0.52]]")
    width, height = canvas.size["width"], canvas.size["height"]
    ActionChains(browser.driver).move_to_element_with_offset(
        canvas, round(-width / 4), round(height / 4)
    ).click().perform()
    corner = browser.find(".camera .zoning pre").text.rpartition("], [")[2].removesuffix("]]")
    assert [float(number) for number in corner.split(", ")] == pytest.approx([0.25, 0.75], abs=0.01)
    # The lines are scrolled on a phone, not the page.
    browser.set_size(360, 900)
    assert browser.run("return document.documentElement.scrollWidth") == 360


def test_page_walk_test(browser: Browser, page: Page, broker: Mosquitto) -> None:
    """Where nobody was found is said in words."""
    announce(broker)
    browser.driver.get(page.address)
    browser.find(".camera[data-status=online] .aiming summary").click()
    browser.find(".camera .walk").click()
    assert browser.find(".advice li").text == "No pose yet."
    for _ in range(61):
        publish_pose(broker)
    wait_for(lambda: browser.count(".advice li") >= 2, "advice")
    advice = browser.find(".advice").text
    assert "Nobody was found in the right third." in advice
    assert "left third" not in advice


ADVICE = """
    const [poses, done] = arguments;
    import("/aiming.js").then(({ Coverage }) => {
      const coverage = new Coverage();
      for (let turn = 0; turn < 60; turn += 1) poses.forEach((pose) => coverage.add(pose));
      done([coverage.advice[0], ...new Set(coverage.cells.filter(Boolean))]);
    });
"""
ARMS, KNEES, FEET, HEAD = range(7, 11), range(13, 15), range(15, 17), range(5)


@pytest.mark.parametrize(
    ("body", "missing", "kind", "advice"),
    [
        (standing(320, 430), [], "well", "Nobody was found in the left third."),
        # Hidden by a table: the frame goes on below it.
        (standing(320, 400), FEET, "well", "Nobody was found in the left third."),
        (standing(320, 500), FEET, "cut", "The feet are cut off in 100 % of the poses"),
        (standing(320, 570), [*KNEES, *FEET], "cut", "The feet are cut off in 100 % of the poses"),
        (standing(320, 160), HEAD, "cut", "The head is cut off in 100 % of the poses"),
        (standing(320, 430), [*ARMS, *HEAD], "badly", "Many bodies are found badly"),
    ],
)
def test_page_advice(
    browser: Browser, page: Page, body: Body, missing: list[int], kind: str, advice: str
) -> None:
    """What is cut off is not in a message: it follows from the rest of the body."""
    browser.driver.get(page.address)
    seen = pose(1, np.delete(body, list(missing), axis=0), "standing")
    seen["keypoints"] = [
        None if index in missing else [x, y, 0.9] for index, (x, y) in enumerate(body / SIZE_WH)
    ]
    found = browser.driver.execute_async_script(ADVICE, [seen])
    assert found[0].startswith(advice)
    assert found[1:] == [kind]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_accessibility(browser: Browser, page: Page, broker: Mosquitto, scheme: str) -> None:
    """axe-core finds no violation, with everything unfolded, on a desktop and a phone."""
    announce(broker)
    publish_event = {"type": "enter", "track_id": 1, "time": "2026-01-31T12:00:00Z"}
    browser.set_colours(scheme)
    browser.driver.get(page.address)
    browser.find(".camera[data-status=online]")
    publish_pose(broker)
    broker.publish("edgepose/gym/main/event", json.dumps(publish_event).encode())
    browser.find(".events li")
    browser.run("for (const part of document.querySelectorAll('details')) part.open = true;")
    for width in (1280, 360):
        browser.set_size(width, 900)
        found: dict[str, Any] = Axe().run(browser.driver)
        assert [
            (violation["id"], [node["target"] for node in violation["nodes"]])
            for violation in found["violations"]
        ] == []
        assert browser.run("return document.documentElement.scrollWidth") <= width


def test_page_loads_nothing_from_elsewhere(browser: Browser, page: Page, broker: Mosquitto) -> None:
    """All requests go to the page's address, and are small."""
    announce(broker)
    browser.driver.get(page.address)
    browser.find(".camera[data-status=online]")
    requests = browser.requests()
    assert {name for name in requests if not name.startswith((page.address, "data:"))} == set()
    assert sum(requests.values()) <= MAX_TRANSFERRED
    # The browser itself enforces it.
    policy = page.get().headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")


@pytest.mark.timeout(240)
def test_page_under_load_keeps_its_memory() -> None:
    """A minute of five cameras of three persons; `make test-dashboard` runs ten, and measures."""
    found = measure(60)
    assert found.foreign == ()
    assert found.transferred <= MAX_TRANSFERRED
    # Of 3600; a busy machine leaves some out, and their memory with them.
    assert len(found.delays_ms) > 1000
    before, after = found.before, found.after
    assert after.server_mb - before.server_mb <= MAX_GROWTH_MB
    assert after.heap_mb - before.heap_mb <= MAX_GROWTH_MB
    assert after.nodes - before.nodes <= MAX_NODES
    assert after.listeners == before.listeners


def test_page_refuses_other_names_and_origins(page: Page) -> None:
    """Neither a page of another site nor one whose name points here may read the messages."""
    assert page.get("healthz").read() == b"ok"
    handshake = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    for path, headers in (
        ("", {"Host": "evil.example"}),
        ("messages", {**handshake, "Origin": "http://evil.example"}),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            page.get(path, **headers)
        assert refused.value.code == 403
    with pytest.raises(urllib.error.HTTPError) as unknown:
        page.get("../config.yaml")
    assert unknown.value.code in (400, 404)


def test_page_with_a_token(browser: Browser, broker: Mosquitto, tmp_path: Path) -> None:
    """The token opens the page once, and is in no URL."""
    announce(broker)
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    with Page(broker, "--token-file", str(token)) as page:
        with pytest.raises(urllib.error.HTTPError) as refused:
            page.get("messages")
        assert refused.value.code == 403
        browser.driver.get(page.address)
        browser.find("input[name=token]").send_keys("wrong", Keys.ENTER)
        wait_for(lambda: browser.driver.current_url.endswith("/login"), "the answer")
        assert browser.find("[role=alert]").text == "That is not the token."
        browser.find("input[name=token]").send_keys(TOKEN, Keys.ENTER)
        browser.find(".camera[data-status=online]")
        assert browser.driver.current_url == page.address
        (cookie,) = browser.driver.get_cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert TOKEN not in cookie["value"]
        # The refused login is in the console.
        assert [error for error in browser.errors() if "403" not in error] == []
        browser.driver.get("about:blank")


def test_page_for_others_needs_a_token(broker: Mosquitto) -> None:
    """An address that others can reach is refused without a token."""
    done = subprocess.run(
        [sys.executable, "-m", "edgepose", "dashboard", "--listen", "0.0.0.0:0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"edgepose: the page would be open to everyone .*\n", done.stderr)
