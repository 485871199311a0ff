"""The verifier of real models: which one is loaded, and what it confirms in real images."""

import json
import logging
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgepose.build import build_model, verifier_adder
from edgepose.config.loader import load_config
from edgepose.daemon.app import build_models, info_message
from edgepose.datatypes import Frame
from edgepose.errors import ModelHashError
from edgepose.inference.cpu import default_threads
from edgepose.protocols import LoadedModel
from tests.builders import load_model, pipeline_of
from tests.conftest import MODELS
from tests.images import EMPTY, THREE_PEOPLE, frame, image

MULTIPOSE = "movenet-multipose-int8"
POSENET = "posenet-mobilenet-int8"
VERIFIER = "movenet-lightning-int8"


def verifier_of(name: str, **keys: object) -> LoadedModel | None:
    config = load_config(None, {"model.name": name, "accelerator": "cpu", **keys})
    return verifier_adder(config)(build_model(config)).verifier


@pytest.mark.parametrize("name", [MULTIPOSE, POSENET])
def test_verifier_of_a_model_that_finds_several_persons(name: str) -> None:
    verifier = verifier_of(name)
    assert verifier is not None
    assert (verifier.name, verifier.device) == (VERIFIER, "cpu")


def test_verifier_of_a_single_pose_model_is_none() -> None:
    """Its poses are confirmed by its own crop."""
    assert verifier_of("movenet-lightning-fp16") is None


def test_verifier_is_none_if_switched_off() -> None:
    assert verifier_of(MULTIPOSE, **{"model.verify": "off"}) is None


def test_verifier_is_shared_by_all_models() -> None:
    config = load_config(None, {"model.name": MULTIPOSE, "accelerator": "cpu"})
    add_verifier, model = verifier_adder(config), build_model(config)
    assert add_verifier(model).verifier is add_verifier(model).verifier


def test_verifier_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is logged once, poses count at once."""
    monkeypatch.setattr("edgepose.build.VERIFIER", "movenet-thunder-int8-edgetpu")
    config = load_config(None, {"model.name": MULTIPOSE, "accelerator": "cpu"})
    add_verifier, model = verifier_adder(config), build_model(config)
    with caplog.at_level(logging.INFO):
        assert [add_verifier(model).verifier for _ in range(2)] == [None, None]
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert record.message.startswith("new poses are not verified: ")
    assert "edgepose models pull movenet-thunder-int8-edgetpu" in record.message


def test_verifier_that_is_damaged_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As every other model: without a word it would be missing."""
    for name in (VERIFIER, MULTIPOSE):
        data = bytearray((MODELS / f"{name}.tflite").read_bytes())
        if name == VERIFIER:
            data[-1000] ^= 1
        (tmp_path / f"{name}.tflite").write_bytes(data)
    (tmp_path / "manifest.json").write_bytes((MODELS / "manifest.json").read_bytes())
    monkeypatch.setenv("EDGEPOSE_MODELS", str(tmp_path))
    with pytest.raises(ModelHashError, match=VERIFIER):
        verifier_of(MULTIPOSE)


def test_info_names_the_verifier() -> None:
    for name, expected in ((MULTIPOSE, VERIFIER), (VERIFIER, None)):
        config = load_config(None, {"model.name": name, "accelerator": "cpu"})
        models = build_models(config)
        assert json.loads(info_message(config, models))["verifier"] == expected
        models.close()


def test_info_has_the_threads_of_each_model() -> None:
    """With the verifier, which has one thread, it is the model that runs on every frame."""
    config = load_config(None, {"model.name": MULTIPOSE, "accelerator": "cpu"})
    for threads, expected in (
        ("auto", {"count": default_threads(), "reason": "default", "invoke_ms": {}}),
        (3, {"count": 3, "reason": "configured", "invoke_ms": {}}),
    ):
        inference = msgspec.structs.replace(config.inference, threads=threads)
        models = build_models(msgspec.structs.replace(config, inference=inference))
        assert json.loads(info_message(config, models))["threads"] == {MULTIPOSE: expected}
        models.close()


@pytest.mark.parametrize("name", [MULTIPOSE, POSENET])
def test_verification_of_real_images(name: str) -> None:
    """Three persons side by side stay, images without one stay empty."""
    pipeline = pipeline_of(load_model(name))
    counts = [len(pipeline.process(frame(path)).tracked) for path in (THREE_PEOPLE, *EMPTY)]
    assert counts == [3, 0, 0, 0]


@pytest.mark.parametrize("mirrored", [False, True])
def test_verification_finds_the_same_keypoints(*, mirrored: bool) -> None:
    """So that one inference confirms the pose, in a mirror image too."""
    pixels = image("astronaut")
    if mirrored:
        pixels = np.ascontiguousarray(pixels[:, ::-1])
    pipeline = pipeline_of(load_model(MULTIPOSE))
    result = pipeline.process(Frame(pixels, 1, 0, mirrored=mirrored))
    assert (len(result.tracked), pipeline.verifications) == (1, 1)
