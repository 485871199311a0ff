"""Every command and every configuration of the README, run as it stands."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import pytest

from edgepose import messages
from edgepose.config import load_config
from edgepose.messages import AcceleratorMessage, EventMessage
from edgepose.sources.synthetic import read_photograph
from tests.coco import person_at, write_coco
from tests.integration.test_daemon import make_clip
from tests.mosquitto import Mosquitto, require, wait_for

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line for language, text in BLOCKS if language == "sh" for line in text.splitlines() if line
]
# Run by tests of their own: test_packaging.py, tests/systemd, test_benchmark_latency.py (it takes
# minutes), and CI itself.
ELSEWHERE = {
    *("make demo", "make test", "make install", "make uninstall"),
    *("pip install .", "edgepose benchmark"),
}
# What goes on until it is ended, and what it must have said by then.
ENDLESS = {"edgepose run": "connected to the MQTT broker", "mosquitto_sub": "availability"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Mosquitto]]:
    """Make the files that the README speaks of, and a broker with a node on it."""
    folder = tmp_path_factory.mktemp("readme")
    picture = cv2.cvtColor(read_photograph(), cv2.COLOR_RGB2BGR)
    (folder / "folder").mkdir()
    for path in (folder / "picture.jpg", folder / "folder/1.jpg"):
        cv2.imwrite(str(path), picture)
    make_clip(folder / "clip.mp4", frames=10)
    (folder / "mqtt-password").write_text("secret\n")
    (yaml,) = (text for language, text in BLOCKS if language == "yaml")
    (folder / "my-config.yaml").write_text(yaml)
    result = next((ROOT / "docs/results").glob("*.json"))
    for name in ("pi-4.json", "pi-5.json"):
        shutil.copy(result, folder / name)
    (folder / "pictures").mkdir()
    cv2.imwrite(str(folder / "pictures/1.jpg"), picture)
    astronaut = person_at(100, 60, 300)
    write_coco(folder / "annotations.json", [("1.jpg", (512, 512))], [(1, astronaut)])
    with (folder / "recording.ndjson").open("wb") as file:
        subprocess.run(
            [sys.executable, "-m", "edgepose", "estimate", str(folder / "clip.mp4")],
            stdout=file,
            check=True,
        )
    broker_folder = tmp_path_factory.mktemp("broker")
    broker_folder.parent.chmod(0o755)
    with Mosquitto(broker_folder) as broker:
        broker.say("edgepose/gym/availability", b"online", retain=True)
        yield folder, broker


def test_the_readme_has_what_a_reader_needs_first() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).is_file()


@pytest.mark.parametrize("command", [line for line in COMMANDS if line not in ELSEWHERE])
def test_a_command_does_what_it_should(command: str, place: tuple[Path, Mosquitto]) -> None:
    folder, broker = place
    # The only things changed: the port of the broker, and which python's edgepose.
    words = shlex.split(command.replace("127.0.0.1:1883", f"127.0.0.1:{broker.port}"))
    if words[0] == "edgepose":
        words[:1] = [sys.executable, "-m", "edgepose"]
    else:
        words[:1] = [require(words[0]), "-p", str(broker.port)]
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        said = next((text for start, text in ENDLESS.items() if command.startswith(start)), None)
        if said is not None:
            wait_for(lambda: said in (folder / "output").read_text(), f"{said!r}")
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
        process.wait(60)
    text = (folder / "output").read_text()
    assert process.returncode == 0 or words[0].endswith("mosquitto_sub"), text
    assert "Traceback" not in text


def test_the_annotated_clip_is_there(place: tuple[Path, Mosquitto]) -> None:
    folder, _ = place
    shutil.rmtree(folder / "annotated", ignore_errors=True)
    command = next(line for line in COMMANDS if "--annotate" in line)
    words = [sys.executable, "-m", *shlex.split(command)]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    assert len(list((folder / "annotated").glob("clip-*.jpg"))) == 10


def test_the_configuration_means_what_it_says(place: tuple[Path, Mosquitto]) -> None:
    config = load_config(place[0] / "my-config.yaml")
    assert config.node_name == "gym"
    assert config.cameras[0].rotation == 180
    password = config.mqtt.read_password({})
    assert password is not None
    assert password.reveal() == "secret"


def test_the_messages_are_some() -> None:
    pose, event, accelerator = (text for language, text in BLOCKS if language == "json")
    assert messages.decode(pose).poses[0].keypoints[3] is None
    for text, kind in ((event, EventMessage), (accelerator, AcceleratorMessage)):
        # Every field is there, and none that is not.
        assert set(json.loads(text)) == set(kind.__struct_fields__)
        msgspec.json.decode(text, type=kind)


def test_every_code_block_is_of_a_kind_that_is_tested() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "yaml", "json"}
