"""The live page as a process, and messages as a daemon publishes them, for several test modules."""

import subprocess
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from http.client import HTTPResponse
from typing import Any

from tests.bodies import Body
from tests.mosquitto import Mosquitto
from tests.resource import Resource

SIZE_WH = (640, 480)


class Page(Resource):
    """`edgepose dashboard` on a free port."""

    def __init__(self, broker: Mosquitto, *arguments: str) -> None:
        command = ["dashboard", "--mqtt", broker.url, "--listen", "127.0.0.1:0", *arguments]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgepose", *command], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        self.pid = self._process.pid
        self.address = self._process.stderr.readline().split()[-1]

    def close(self) -> None:
        self._process.terminate()
        assert self._process.wait(60) == 0

    def get(self, path: str = "", **headers: str) -> HTTPResponse:
        """Return the answer to a request."""
        request = urllib.request.Request(f"{self.address}{path}", headers=headers)
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=60)
        return answer


def pose(number: int, body: Body, posture: str) -> dict[str, Any]:
    """Return a pose of a message, of a body in a frame of 640 x 480 px."""
    points = body / SIZE_WH
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


def pose_message(camera: str, sequence: int, poses: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the message of a frame that was captured 31 ms ago."""
    now = datetime.now(UTC)
    captured, published = (
        f"{at:%Y-%m-%dT%H:%M:%S.%f}Z" for at in (now - timedelta(milliseconds=31), now)
    )
    return {
        "schema": 1,
        "node": "gym",
        "camera": camera,
        "sequence": sequence,
        "captured_at": captured,
        "published_at": published,
        "frame": {"width": SIZE_WH[0], "height": SIZE_WH[1]},
        "model": "movenet-multipose-int8",
        "accelerator": "cpu",
        "degraded": False,
        "timings_ms": {"preprocess": 0.4, "invoke": 29.1, "decode": 0.1, "total": 30.9},
        "poses": poses,
    }
