"""The picture of the live page in the documents: `python -m tests.screenshot docs/dashboard.png`.

It is made in a real Chromium, of a real broker and messages as a daemon publishes them.
"""

import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from tests.bodies import Body, lying, standing, turned
from tests.browser import Browser
from tests.mosquitto import Mosquitto

SIZE_WH = (900, 760)
COLOURS = 64
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


def pose(number: int, body: Body, posture: str) -> dict[str, Any]:
    """Return a pose of a message, of a body in a frame of 640 x 480 px."""
    points = body / (640, 480)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    keypoints = [[round(x, 4), round(y, 4), 0.9] for x, y in points.tolist()]
    box = [round(float(side), 4) for side in (left, top, right, bottom)]
    return {
        "id": number,
        "score": 0.8,
        "box": box,
        "keypoints": keypoints,
        "posture": {"name": posture, "score": 0.95},
    }


def publish(broker: Mosquitto) -> None:
    """Publish the states, and two seconds of a person who walks beside one who lies."""
    for topic, payload in STATES.items():
        broker.publish(f"{ROOT}/{topic}", payload.encode(), retain=True)
    with broker.listener("nothing") as listener:
        for step in range(30):
            walker = turned(standing(360 + 5 * step, 430), 4 * np.sin(step / 2))
            poses = [pose(1, lying(60, 350), "lying"), pose(2, walker, "standing")]
            now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
            message = {
                "captured_at": f"{now}.100Z",
                "published_at": f"{now}.131Z",
                "frame": {"width": 640, "height": 480},
                "poses": poses,
            }
            listener.client.publish(f"{ROOT}/hall/poses", json.dumps(message))
            time.sleep(1 / 15)
        event = {"type": "zone_enter", "zone": "mat", "track_id": 1, "time": f"{now}Z"}
        listener.client.publish(f"{ROOT}/hall/event", json.dumps(event), 1).wait_for_publish(10)


def main(path: Path) -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder, Mosquitto(Path(folder)) as broker:
        command = ["dashboard", "--mqtt", broker.url, "--listen", "127.0.0.1:0"]
        page = subprocess.Popen(
            [sys.executable, "-m", "edgepose", *command], stderr=subprocess.PIPE, text=True
        )
        assert page.stderr is not None
        address = page.stderr.readline().split()[-1]
        try:
            with Browser() as browser:
                browser.set_size(*SIZE_WH)
                browser.driver.get(address)
                browser.find("body[data-connection=connected]")
                publish(broker)
                browser.find(".camera[data-poses='2']")
                browser.run("document.querySelector('.camera .events').open = true")
                time.sleep(0.5)
                image = PIL.Image.open(io.BytesIO(browser.driver.get_screenshot_as_png()))
        finally:
            page.terminate()
            page.wait()
    image.convert("RGB").quantize(COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
