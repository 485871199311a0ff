"""The picture of the live page in the documents: `python -m tests.screenshot docs/dashboard.png`.

It is made in a real Chromium, of a real broker and messages as a daemon publishes them.
"""

import io
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image

from tests.bodies import lying, standing, turned
from tests.browser import Browser
from tests.mosquitto import Mosquitto
from tests.page import Page, pose, pose_message

SIZE_WH = (900, 760)
COLOURS = 160
ROOT = "edgepose/gym"
ZONE = {
    "name": "mat",
    "exclude": "none",
    "polygon": [[0.06, 0.72], [0.5, 0.72], [0.44, 0.97], [0.02, 0.97]],
}
INFO = {"version": "0.1.0", "device": "Raspberry Pi 5 Model B", "zones": {"hall": [ZONE]}}
ACCELERATOR = {"device": "cpu", "model": "movenet-multipose-int8", "degraded": False}
STATES = {
    "info": json.dumps(INFO),
    "accelerator": json.dumps(ACCELERATOR),
    "stats": json.dumps({"cameras": {"hall": {"fps": 15}, "yard": {"fps": 0}}}),
    "hall/enabled": "ON",
    "hall/presence": "ON",
    "hall/count": "2",
    "hall/posture": "standing",
    "hall/zones/mat/count": "1",
    "hall/status": "online",
    "yard/enabled": "ON",
    "yard/status": "stalled",
    "availability": "online",
}


def publish(broker: Mosquitto) -> None:
    """Publish the states, and two seconds of a person who walks beside one who lies."""
    for topic, payload in STATES.items():
        broker.publish(f"{ROOT}/{topic}", payload.encode(), retain=True)
    with broker.listener("nothing") as listener:
        for step in range(30):
            walker = turned(standing(360 + 5 * step, 430), 4 * np.sin(step / 2))
            poses = [pose(1, lying(60, 350), "lying"), pose(2, walker, "standing")]
            message = pose_message("hall", step, poses)
            listener.client.publish(f"{ROOT}/hall/poses", json.dumps(message))
            time.sleep(1 / 15)
        event = {
            "type": "zone_enter",
            "zone": "mat",
            "track_id": 1,
            "time": message["published_at"],
        }
        listener.client.publish(f"{ROOT}/hall/event", json.dumps(event), 1).wait_for_publish(10)


def main(path: Path) -> None:
    """Write the picture."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Mosquitto(Path(folder)) as broker,
        Page(broker) as page,
        Browser() as browser,
    ):
        browser.set_size(*SIZE_WH)
        browser.driver.get(page.address)
        browser.find("body[data-connection=connected]")
        publish(broker)
        browser.find(".camera[data-poses='2']")
        browser.run("document.querySelector('.camera .events').open = true")
        time.sleep(0.5)
        image = PIL.Image.open(io.BytesIO(browser.driver.get_screenshot_as_png()))
    image.convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
