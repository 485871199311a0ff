"""`edgepose benchmark --coco` as users run it, on images made of the bundled photograph."""

import contextlib
import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from msgspec.structs import replace

from edgepose.benchmark.coco import Person
from edgepose.benchmark.oks import TO_COCO_PX
from edgepose.build import build_model
from edgepose.cli.main import run_command
from edgepose.config.loader import load_config
from edgepose.datatypes import Frame
from edgepose.imaging.preprocess import preprocess
from edgepose.sources.images import read_image
from edgepose.sources.synthetic import read_photograph
from tests.coco import write_coco

pytestmark = pytest.mark.usefixtures("no_user_files")

pytest.importorskip("pycocotools")

LIGHTNING, MULTIPOSE = "movenet-lightning-int8", "movenet-multipose-int8"

# The astronaut's nose, left and right eye and shoulders, read off the photograph by eye.
_BY_EYE = {0: (222, 120), 1: (243, 101), 2: (203, 99), 5: (318, 213), 6: (124, 214)}
ASTRONAUT = Person(
    (60.0, 10.0, 350.0, 500.0),
    110_000.0,
    tuple(
        value
        for index in range(17)
        for value in ((*_BY_EYE[index], 2.0) if index in _BY_EYE else (0.0, 0.0, 0.0))
    ),
)


class Set(NamedTuple):
    annotations: Path
    images: Path


def moved(person: Person, right_px: float) -> Person:
    points = np.array(person.keypoints).reshape(17, 3)
    points[points[:, 2] > 0, 0] += right_px
    x, *others = person.box_xywh
    return replace(
        person,
        box_xywh=(x + right_px, others[0], others[1], others[2]),
        keypoints=tuple(points.ravel().tolist()),
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Set:
    """An image of one person, a darker copy, one of two persons, and one without a person."""
    folder = tmp_path / "images"
    folder.mkdir()
    one = cv2.cvtColor(read_photograph(), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(folder / "one.png"), one)
    cv2.imwrite(str(folder / "dark.png"), one // 2)
    cv2.imwrite(str(folder / "two.png"), np.hstack((one, one)))
    cv2.imwrite(str(folder / "room.png"), np.full((240, 320, 3), 90, np.uint8))
    annotations = write_coco(
        tmp_path / "person_keypoints.json",
        [
            ("one.png", (512, 512)),
            ("dark.png", (512, 512)),
            ("two.png", (1024, 512)),
            ("room.png", (320, 240)),
        ],
        [(1, ASTRONAUT), (2, ASTRONAUT), (3, ASTRONAUT), (3, moved(ASTRONAUT, 512.0))],
    )
    return Set(annotations, folder)


def benchmark(dataset: Set, *words: str) -> int:
    return run_command(
        [
            *("benchmark", "--coco", str(dataset.annotations)),
            *("--images", str(dataset.images), "--no-latency", *words),
        ]
    )


def rows(capsys: pytest.CaptureFixture[str]) -> dict[tuple[str, str], dict[str, Any]]:
    data = json.loads(capsys.readouterr().out)
    return {(row["protocol"], row["model"]): row for row in data["accuracy"]}


def test_benchmark_accuracy_every_protocol(
    dataset: Set, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--models", f"{LIGHTNING},{MULTIPOSE}", "--format", "json")
    assert benchmark(dataset, *words) == 0
    found = rows(capsys)
    assert {key: (row["pictures"], row["persons"]) for key, row in found.items()} == {
        (protocol, model): counts
        for model in (LIGHTNING, MULTIPOSE)
        for protocol, counts in {
            "single": (2, 2),
            "whole": (2, 2),
            "multi": (4, 4),
            "crops": (3, 4),
        }.items()
    }
    for model in (LIGHTNING, MULTIPOSE):
        assert found["single", model]["ap50"] == 100.0
        assert found["crops", model]["ap"] >= 60.0
        low, high = found["single", model]["ap_interval_95"]
        assert low <= found["single", model]["ap"] <= high
        assert found["single", model]["left_out"] == 0
        assert "images with one person" in found["single", model]["about"]
    # One pose cannot be two people.
    assert found["multi", LIGHTNING]["ar"] <= 75.0 < found["multi", MULTIPOSE]["ap50"]


def test_benchmark_accuracy_figures_equal_pycocotools(
    dataset: Set, capsys: pytest.CaptureFixture[str]
) -> None:
    """The `multi` protocol against pycocotools as its own demo runs it, from the file itself."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    assert benchmark(dataset, "--models", MULTIPOSE, "--protocol", "multi", "--format", "json") == 0
    row = rows(capsys)["multi", MULTIPOSE]
    model = build_model(load_config(None, {"model.name": MULTIPOSE}))
    answers = []
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(dataset.annotations))
        for image in truth.dataset["images"]:
            frame = Frame(read_image(dataset.images / image["file_name"]), 0, 0)
            spec = model.pose_model.input_spec
            tensor, to_frame = preprocess(frame.image, None, spec)
            poses = model.pose_model.decode(model.interpreter.invoke(tensor), to_frame)
            for points, score in zip(poses.keypoints, poses.scores, strict=True):
                flat = np.column_stack((points + TO_COCO_PX, np.ones(17))).ravel().tolist()
                answers.append(
                    {
                        "image_id": image["id"],
                        "category_id": 1,
                        "keypoints": flat,
                        "score": float(score),
                    }
                )
        evaluation = COCOeval(truth, truth.loadRes(answers), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    expected = evaluation.stats[[0, 1, 2, 5]] * 100
    assert [row["ap"], row["ap50"], row["ap75"], row["ar"]] == pytest.approx(
        expected.tolist(), abs=1e-3
    )


def test_benchmark_accuracy_default_model_and_table(
    dataset: Set, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark(dataset, "--protocol", "single", "--protocol", "crops") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert LIGHTNING in text
    assert "images with one person" in text
    assert "2 images, 2 persons" in text
    assert "3 images, 4 persons" in text
    assert "multi:" not in text
    assert "bootstrap over images (1000 resamples, seed 0)" in text


def test_benchmark_accuracy_against_another_model(
    dataset: Set, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--models", LIGHTNING, "--against", MULTIPOSE, "--protocol", "whole")
    assert benchmark(dataset, *words, "--format", "csv") == 0
    other, own = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (other["model"], other["ap_difference"]) == (MULTIPOSE, "")
    assert (own["model"], own["against"]) == (LIGHTNING, MULTIPOSE)
    assert float(own["ap_difference"]) == pytest.approx(
        float(own["ap"]) - float(other["ap"]), abs=0.01
    )
    low, high = (float(own[f"ap_difference_interval_95_{end}"]) for end in ("low", "high"))
    assert low <= float(own["ap_difference"]) <= high


def test_benchmark_accuracy_all_models(dataset: Set, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark(dataset, "--models", "all", "--protocol", "single", "--format", "json") == 0
    models = {model for _, model in rows(capsys)}
    assert {LIGHTNING, MULTIPOSE, "movenet-thunder-fp16", "posenet-mobilenet-int8"} <= models


def test_benchmark_accuracy_unreadable_images_are_left_out(
    dataset: Set, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (dataset.images / "dark.png").read_bytes()
    (dataset.images / "dark.png").write_bytes(whole[: len(whole) // 2])
    cv2.imwrite(str(dataset.images / "room.png"), np.zeros((200, 200, 3), np.uint8))
    assert benchmark(dataset, "--format", "json") == 1
    captured = capsys.readouterr()
    first, second = captured.err.splitlines()
    assert "dark.png: the image is damaged or cut short" in first
    assert "room.png: the image is 200x200, its annotations are of 320x240" in second
    data = json.loads(captured.out)
    assert "2 images could not be used" in data["notes"][-1]
    assert {row["protocol"]: (row["pictures"], row["left_out"]) for row in data["accuracy"]} == {
        "single": (1, 2),
        "whole": (1, 2),
        "multi": (2, 2),
        "crops": (2, 2),
    }
    # A single image has no interval.
    assert data["accuracy"][0]["ap_interval_95"] is None


def test_benchmark_accuracy_no_readable_image(
    dataset: Set, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in dataset.images.iterdir():
        path.write_bytes(b"no image")
    assert benchmark(dataset, "--protocol", "single") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no person to find (2 images could not be read)" in captured.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--images", "x", "--coco", "nowhere.json"], 1, "nowhere.json: no such file"),
        (["--models", "movenet-lightnin-int8"], 2, "did you mean 'movenet-lightning-int8'?"),
        (["--models", ","], 2, "'--models': empty"),
        (["--against", "thunder.tflite"], 1, "no such model file"),
        (["--output", "no/such/file.txt"], 2, "the folder no/such does not exist"),
        (["--output", "."], 2, "'--output': File '.' is a directory"),
        (["--protocol", "double"], 2, "double"),
        (["--threads", "four"], 2, "--threads"),
        (["--accelerator", "edgetpu"], 1, "edgetpu"),
    ],
)
def test_benchmark_accuracy_usage_errors(
    dataset: Set,
    words: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert benchmark(dataset, *words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_benchmark_accuracy_missing_images_are_counted(
    dataset: Set, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset.images / "dark.png").unlink()
    # It has no person, so that this protocol does not need it.
    (dataset.images / "room.png").unlink()
    assert benchmark(dataset, "--protocol", "crops") == 1
    error = capsys.readouterr().err
    assert "1 of the 3 annotated images are missing, such as dark.png;" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--no-latency"], "add --coco ANNOTATIONS.json --images DIR for accuracy"),
        (["--coco", "a.json"], "--coco is given without --images"),
        (["--images", "images"], "--images is given without --coco"),
    ],
)
def test_benchmark_accuracy_without_annotations(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["benchmark", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_benchmark_accuracy_without_pycocotools(
    dataset: Set, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pycocotools", "pycocotools.coco", "pycocotools.cocoeval"):
        monkeypatch.setitem(sys.modules, name, None)
    assert benchmark(dataset) == 1
    error = capsys.readouterr().err
    assert "pip install 'edgepose[coco]'" in error


def test_benchmark_accuracy_stdout_has_report_only(dataset: Set, tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    command = [
        *(sys.executable, "-m", "edgepose", "benchmark", "--no-latency", "--protocol", "single"),
        *("--coco", str(dataset.annotations), "--images", str(dataset.images)),
    ]
    done = subprocess.run([*command, "--format", "csv"], capture_output=True, text=True, check=True)
    assert len(list(csv.DictReader(done.stdout.splitlines()))) == 1
    assert done.stderr == ""
    words = ("--format", "markdown", "--output", str(output))
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert "\n### single\n" in output.read_text()


def test_benchmark_accuracy_and_latency_in_one_table(
    dataset: Set, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        *("benchmark", "--coco", str(dataset.annotations), "--images", str(dataset.images)),
        *("--models", f"{LIGHTNING},{MULTIPOSE}", "--protocol", "single", "--threads", "1"),
        *("--accelerator", "litert", "--min-runs", "5", "--min-seconds", "0.02"),
    ]
    assert run_command([*words, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    accuracy = {row["model"]: row["ap"] for row in data["accuracy"]}
    for row in data["latency"]:
        assert (row["map"], row["map_protocol"]) == (accuracy[row["model"]], "single")
        assert row["latency_ms"]["p50"] > 0
    assert run_command(words) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = next(line.split() for line in lines if line.startswith(f"{MULTIPOSE} "))
    assert f"{accuracy[MULTIPOSE]:.1f}" in cells
    assert "mAP single" in " ".join(lines)


def test_benchmark_accuracy_bundled_models_on_coco(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """INT8 is as good as float, and Thunder better than Lightning, by paired intervals."""
    coco = shared_data / "coco"
    assert (
        benchmark(
            Set(coco / "person_keypoints_official.json", coco / "images"),
            *("--models", f"{LIGHTNING},movenet-thunder-int8"),
            *("--against", "movenet-lightning-fp16", "--protocol", "crops", "--format", "json"),
        )
        == 0
    )
    found = rows(capsys)
    row = found["crops", LIGHTNING]
    assert (row["pictures"], row["persons"]) == (70, 216)
    assert 30.0 <= row["ap"] <= 36.0
    low, high = row["ap_difference_interval_95"]
    assert -2.5 <= low <= high <= 2.5
    assert found["crops", "movenet-thunder-int8"]["ap_difference_interval_95"][0] > 4.0
