"""`edgepose estimate` as scripts use it."""

import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgepose.cli.main import run_command
from edgepose.sources.synthetic import SyntheticSource, read_photograph
from tests.images import DATA
from tests.media import make_clip, save


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "astronaut.png"
    cv2.imwrite(str(path), cv2.cvtColor(read_photograph(), cv2.COLOR_RGB2BGR))
    return path


@pytest.fixture
def empty_room(tmp_path: Path) -> Path:
    path = tmp_path / "room.jpg"
    cv2.imwrite(str(path), np.full((240, 320, 3), 90, np.uint8))
    return path


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_estimate_images(image: Path, empty_room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each image, with and without a person."""
    assert run_command(["estimate", str(image), str(empty_room)]) == 0
    astronaut, room = lines(capsys)
    assert astronaut["source"] == str(image)
    assert astronaut["frame"] == {"width": 512, "height": 512}
    (pose,) = astronaut["poses"]
    assert pose["id"] == 1
    assert len(pose["keypoints"]) == 17
    # Her nose and both eyes, measured in the photograph.
    for index, (x, y) in enumerate([(222, 120), (243, 101), (203, 99)]):
        keypoint = pose["keypoints"][index]
        assert np.hypot(keypoint[0] * 512 - x, keypoint[1] * 512 - y) < 12
    assert (room["source"], room["sequence"], room["poses"]) == (str(empty_room), 0, [])


def test_estimate_folder_natural_order(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers in file names are sorted as numbers."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("10.png", "9.png"):
        (folder / name).write_bytes(image.read_bytes())
    assert run_command(["estimate", str(folder)]) == 0
    assert [Path(line["source"]).name for line in lines(capsys)] == ["9.png", "10.png"]


def test_estimate_names_what_a_folder_skips(image: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One line on stderr names the other files; the exit code is 0."""
    (image.parent / "notes.txt").write_text("notes")
    (image.parent / ".hidden").write_text("notes")
    assert run_command(["estimate", str(image.parent)]) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith("skipping files that are not images: 1 (notes.txt)")


def test_estimate_still_images_of_any_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The content decides: a second inference finds the same pose whatever the suffix is."""
    for name in ("p.jpg", "p.jfif", "p.jpe", "p.mp4", "p"):
        shutil.copy(DATA / "camera.jpg", tmp_path / name)
    assert run_command(["estimate", str(tmp_path)]) == 0
    found = lines(capsys)
    assert [Path(line["source"]).name for line in found] == [
        "p",
        "p.jfif",
        "p.jpe",
        "p.jpg",
        "p.mp4",
    ]
    poses = [line["poses"] for line in found]
    assert len(poses[0]) == 1
    assert poses == [poses[0]] * 5


def test_estimate_folder_as_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The images of a folder, or a list of images, are one sequence with one track."""
    for number, frame in enumerate(islice(SyntheticSource(live=False).frames(), 12)):
        save(tmp_path / f"{number}.png", frame.image)
    paths = [str(tmp_path / f"{k}.png") for k in range(12)]
    for inputs in ([str(tmp_path)], paths):
        assert run_command(["estimate", *inputs, "--mode", "video"]) == 0
        found = lines(capsys)
        assert [(line["source"], line["sequence"]) for line in found] == [
            (path, number) for number, path in enumerate(paths)
        ]
        # Two crops confirm the pose of the first frame.
        ids = [[pose["id"] for pose in line["poses"]] for line in found]
        assert ids == [[], [], *[[1]] * 10]


def test_estimate_video_as_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each frame of a video is estimated on its own, as an image is."""
    clip = make_clip(tmp_path / "clip.mp4", frames=4)
    assert run_command(["estimate", str(clip), "--mode", "image"]) == 0
    found = lines(capsys)
    assert [(line["sequence"], len(line["poses"])) for line in found] == [(k, 1) for k in range(4)]


def test_estimate_video_is_tracked_and_smoothed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames of a video have one track; smoothing reduces jitter."""
    clip = make_clip(tmp_path / "clip.mp4", frames=20)
    assert run_command(["estimate", str(clip)]) == 0
    found = lines(capsys)
    assert [line["sequence"] for line in found] == list(range(20))
    assert {pose["id"] for line in found for pose in line["poses"]} == {1}
    assert run_command(["estimate", str(clip), "--no-smooth"]) == 0
    raw = lines(capsys)
    # The jitter of the nose: its second difference.
    smooth, shaky = (
        np.abs(
            np.diff([line["poses"][0]["keypoints"][0][:2] for line in some[2:]], n=2, axis=0)
        ).mean()
        for some in (found, raw)
    )
    assert smooth < shaky


def test_estimate_thresholds_and_flags(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Flags change thresholds, crop, tracking and mode."""
    assert run_command(["estimate", str(image), "--pose-threshold", "0.99"]) == 0
    assert lines(capsys)[0]["poses"] == []
    assert run_command(["estimate", str(image), "--keypoint-threshold", "0"]) == 0
    assert None not in lines(capsys)[0]["poses"][0]["keypoints"]
    assert run_command(["estimate", str(image), "--keypoint-threshold", "1"]) == 0
    assert lines(capsys)[0]["poses"][0]["keypoints"] == [None] * 17
    assert run_command(["estimate", str(image), "--no-crop", "--no-track"]) == 0
    assert len(lines(capsys)[0]["poses"]) == 1
    assert run_command(["estimate", str(image), "--mode", "video"]) == 0
    assert len(lines(capsys)) == 1


@pytest.mark.parametrize(
    "model",
    [
        "movenet-lightning-fp16",
        "movenet-thunder-int8",
        "movenet-thunder-fp16",
        "movenet-multipose-fp16",
        "movenet-multipose-int8",
        "posenet-mobilenet-fp32",
        "posenet-mobilenet-int8",
    ],
)
def test_estimate_every_model(image: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every model finds the nose in the photograph."""
    # Half a body has at most half of PoseNet's score, which is a mean over all keypoints.
    arguments = ["--model", model, "--pose-threshold", "0.3"]
    assert run_command(["estimate", str(image), *arguments]) == 0
    (line,) = lines(capsys)
    assert line["model"] == model
    best = line["poses"][0]
    nose = best["keypoints"][0]
    assert np.hypot(nose[0] * 512 - 222, nose[1] * 512 - 120) < 20


def test_estimate_formats(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is one list, a table has a row for each pose."""
    assert run_command(["estimate", str(image), str(image), "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert run_command(["estimate", str(image), "--format", "table"]) == 0
    table = capsys.readouterr().out
    assert str(image) in table
    assert "17" in table


def test_estimate_annotate(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Skeletons are drawn on the copies."""
    folder = tmp_path / "drawn" / "here"
    assert run_command(["estimate", str(image), "--annotate", str(folder)]) == 0
    (line,) = lines(capsys)
    drawn = cv2.imread(str(folder / "astronaut.jpg"))
    assert drawn is not None
    x, y, _ = line["poses"][0]["keypoints"][5]
    blue, _, red = drawn[round(y * 512), round(x * 512)].astype(int)
    assert blue > 200 > red + 50


def test_estimate_annotate_keeps_the_inputs(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of an input may be that of the copies; each of several folders has its own."""
    before = image.read_bytes()
    assert run_command(["estimate", str(image), "--annotate", str(image.parent)]) == 0
    assert image.read_bytes() == before
    assert (image.parent / "astronaut.jpg").exists()
    folders = [tmp_path / "in" / name for name in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
        shutil.copy(image, folder / "1.png")
    out = tmp_path / "out"
    assert run_command(["estimate", *map(str, folders), "--annotate", str(out)]) == 0
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.jpg")) == ["a/1.jpg", "b/1.jpg"]
    assert run_command(["estimate", str(folders[0]), "--annotate", str(out)]) == 0
    assert (out / "1.jpg").exists()


def bad_inputs(folder: Path) -> dict[str, Path]:
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("this is no image")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video" * 100)
    (folder / "nothing").mkdir()
    clip = make_clip(folder / "whole.mp4", frames=10).read_bytes()
    (folder / "cut.mp4").write_bytes(clip[: len(clip) // 2])
    return {
        "no such file": folder / "missing.jpg",
        "the file is empty": folder / "empty.jpg",
        "text.jpg: expected an image or a video": folder / "text.jpg",
        "expected an image or a video, the file is empty": folder / "empty.mp4",
        "damaged": folder / "text.mp4",
        "the folder has none": folder / "nothing",
        "or cut short": folder / "cut.mp4",
    }


def test_estimate_invalid_inputs(
    image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each has an error of one line; the valid input is processed."""
    wrong = bad_inputs(tmp_path)
    paths = [str(path) for path in wrong.values()]
    assert run_command(["estimate", *paths, str(image)]) == 1
    captured = capfd.readouterr()
    assert len(captured.out.splitlines()) == 1
    errors = [line for line in captured.err.splitlines() if line.startswith("edgepose: ")]
    assert len(errors) == len(wrong)
    for (expected, path), error in zip(wrong.items(), errors, strict=True):
        assert expected in error
        assert str(path) in error
    assert "Traceback" not in captured.err


def test_estimate_debug_without_messages_of_pillow(
    image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are about every chunk of a file."""
    assert run_command(["--debug", "estimate", str(image)]) == 0
    assert "STREAM" not in capfd.readouterr().err


def test_estimate_wrong_usage(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2, without a traceback."""
    assert run_command(["estimate"]) == 2
    assert run_command(["estimate", str(image), "--format", "xml"]) == 2
    assert run_command(["estimate", str(image), "--model", "movenet-thunder"]) == 2
    assert run_command(["estimat", str(image)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_estimate_closed_stdout(image: Path) -> None:
    """A reader that closes stdout, as `head` does, is not an error."""
    command = [sys.executable, "-m", "edgepose", "estimate", *[str(image)] * 40]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    error = process.stderr.read().decode()
    assert process.wait(60) == 0
    assert error == ""


def test_import_edgepose_is_light() -> None:
    """`import edgepose` imports no large library."""
    code = (
        "import sys, edgepose; heavy = {'cv2', 'picamera2', 'matplotlib', 'paho', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert run.stdout.strip() == "[]"
