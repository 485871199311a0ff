"""Every command and every configuration of the documents, run as written."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from edgepose.config.loader import load_config
from edgepose.sources.synthetic import read_photograph
from tests.coco import person_at, write_coco
from tests.documents import ELSEWHERE, ROOT, Block, blocks, commands, configurations, pipelines
from tests.media import make_clip
from tests.mosquitto import Mosquitto, require, wait_for

# `mosquitto_sub` ends with the signal, and the doctor finds no camera here.
MAY_FAIL = ("mosquitto_sub", "edgepose doctor")
ENDLESS = {
    "edgepose run": "connected to the MQTT broker",
    "edgepose dashboard": "dashboard: http://",
    "mosquitto_sub": "availability",
}
"""Commands that run until they are stopped, and what they must have printed by then."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the files that the documents mention."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "docs").symlink_to(ROOT / "docs")
    image = cv2.cvtColor(read_photograph(), cv2.COLOR_RGB2BGR)
    (folder / "folder").mkdir()
    (folder / "images").mkdir()
    for name in ("image.jpg", "folder/1.jpg", "images/1.jpg"):
        cv2.imwrite(str(folder / name), image)
    make_clip(folder / "clip.mp4", frames=10)
    (folder / "mqtt-password").write_text("secret\n")
    (block,) = (block for block in blocks("yaml") if block.document.name == "README.md")
    (folder / "my-config.yaml").write_text(block.text)
    result = next((ROOT / "docs/results").glob("*.json"))
    for name in ("pi-4.json", "pi-5.json"):
        shutil.copy(result, folder / name)
    astronaut = person_at(100, 60, 300)
    write_coco(folder / "annotations.json", [("1.jpg", (512, 512))], [(1, astronaut)])
    with (folder / "recording.ndjson").open("wb") as file:
        subprocess.run(
            [sys.executable, "-m", "edgepose", "estimate", str(folder / "clip.mp4")],
            stdout=file,
            check=True,
        )
    return folder


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A broker with a retained message of a node."""
    broker_folder = tmp_path_factory.mktemp("broker")
    broker_folder.parent.chmod(0o755)
    with Mosquitto(broker_folder) as broker:
        broker.publish("edgepose/gym/availability", b"online", retain=True)
        yield broker


@pytest.mark.parametrize(
    "command", [line for line in commands() if line not in (*ELSEWHERE, *pipelines())]
)
def test_document_command_works(command: str, folder: Path, broker: Mosquitto) -> None:
    """Only the broker's port and the interpreter differ from the document."""
    command = command.removeprefix(".venv/bin/")
    words = shlex.split(command.replace("127.0.0.1:1883", f"127.0.0.1:{broker.port}"))
    if words[0] == "edgepose":
        words[:1] = [sys.executable, "-m", "edgepose"]
    else:
        words[:1] = [require(words[0]), "-p", str(broker.port)]
    log = folder / "output"
    with log.open("w+") as output:
        process = subprocess.Popen(
            words,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            # An edgepose of this user on this machine has the same node.
            env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
        )
        printed = next((text for start, text in ENDLESS.items() if command.startswith(start)), None)
        if printed is not None:
            wait_for(lambda: printed in log.read_text(), f"{printed!r}")
            process.send_signal(signal.SIGTERM)
        process.wait(60)
    text = log.read_text()
    assert process.returncode == 0 or command.startswith(MAY_FAIL), text
    assert "Traceback" not in text


def test_document_annotate_command_writes_every_frame(folder: Path) -> None:
    """`--annotate` of the documents draws every frame of the clip."""
    shutil.rmtree(folder / "annotated", ignore_errors=True)
    command = next(line for line in commands() if "clip.mp4 --annotate" in line)
    words = [sys.executable, "-m", *shlex.split(command)]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    assert len(list((folder / "annotated").glob("clip-*.jpg"))) == 10


def test_readme_configuration_is_in_effect(folder: Path) -> None:
    """The keys of the example are in effect, with the password of its file."""
    config = load_config(folder / "my-config.yaml")
    assert config.node_name == "gym"
    assert config.cameras[0].rotation == 180
    password = config.mqtt.read_password()
    assert password is not None
    assert password.reveal() == "secret"


@pytest.mark.parametrize("block", configurations(), ids=lambda block: str(block.document))
def test_document_configuration_is_valid(block: Block, tmp_path: Path) -> None:
    """Every example of a configuration is valid."""
    path = tmp_path / "config.yaml"
    path.write_text(block.text)
    load_config(path)
