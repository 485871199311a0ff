"""The exercise in the configuration, and what is built of it."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from edgepose.build_events import apply_detectors, build_detectors
from edgepose.config.loader import load_config
from edgepose.config.people import BUILT_IN_EXERCISES, RepetitionsConfig
from edgepose.config.schema import CameraConfig, Config
from edgepose.datatypes import Event, TrackedFrame
from edgepose.errors import ConfigError
from edgepose.events.detectors import Detectors
from tests.builders import SECOND_NS, tracked_of
from tests.exercises import NEAR, Motion, curl, push_up, repeated, squat

DIP = "repetitions: {exercise: dip, joint: knee, start_angle: 165, turn_angle: 140, body: upright}"


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_config(path)


def state(detectors: Detectors) -> object:
    return json.loads(detectors.states["repetitions"])


def add(detectors: Detectors, motion: Motion, angles: Iterable[float]) -> list[str | None]:
    """Let a person exercise; return the exercises that were counted."""
    found: list[Event] = []
    for frame, angle in enumerate(angles):
        tracked = tracked_of(NEAR.project(motion((angle, angle), 90)))
        frame_ns = SECOND_NS + frame * SECOND_NS // 10
        found += detectors.update(TrackedFrame(frame_ns, (640, 480), tracked, tracked))
    return [event.exercise for event in found if event.type == "repetition"]


def test_repetitions_are_off_by_default() -> None:
    assert "repetitions" not in build_detectors(Config(), CameraConfig()).states


@pytest.mark.parametrize("name", BUILT_IN_EXERCISES)
@pytest.mark.parametrize("auto", [True, False])
def test_repetitions_built_in_exercises(name: str, auto: bool) -> None:
    chosen = RepetitionsConfig(exercise="auto" if auto else name)
    detectors = build_detectors(Config(repetitions=chosen), CameraConfig())
    motion = {"squat": squat, "push_up": push_up, "curl": curl}[name]
    angles = repeated(2, seconds=2, top=170, bottom=60, fps=10)
    assert add(detectors, motion, angles) == [name, name]


def test_repetitions_of_an_exercise_of_the_user(tmp_path: Path) -> None:
    """A shallow squat, which the built-in one does not count, and which must be seen upright."""
    config = load(tmp_path, DIP)
    detectors = build_detectors(config, CameraConfig())
    assert state(detectors) == {"exercise": "dip", "count": 0}
    dips = list(repeated(2, seconds=2, top=175, bottom=130, fps=10))
    assert add(detectors, squat, dips) == ["dip", "dip"]
    horizontal = load(tmp_path, DIP.replace("upright", "horizontal"))
    assert add(build_detectors(horizontal, CameraConfig()), squat, dips) == []
    built_in = Config(repetitions=RepetitionsConfig(exercise="squat"))
    assert add(build_detectors(built_in, CameraConfig()), squat, dips) == []


def test_repetitions_count_goes_on_after_a_reload(tmp_path: Path) -> None:
    """Another exercise begins at 0, and null has no state."""
    config = load(tmp_path, DIP)
    detectors = build_detectors(config, CameraConfig())
    add(detectors, squat, repeated(2, seconds=2, top=175, bottom=130, fps=10))
    apply_detectors(detectors, load(tmp_path, DIP), CameraConfig())
    assert state(detectors) == {"exercise": "dip", "count": 2}
    other = Config(repetitions=RepetitionsConfig(exercise="curl"))
    apply_detectors(detectors, other, CameraConfig())
    assert state(detectors) == {"exercise": "curl", "count": 0}
    apply_detectors(detectors, Config(), CameraConfig())
    assert "repetitions" not in detectors.states


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("exercise: sqat", "sqat is not built in (squat, push_up, curl, or auto for these)"),
        ("exercise: raise, joint: shoulder, start_angle: 40", "define it with joint, start_angle"),
        ("exercise: squat, turn_angle: 100", "define an exercise, which exercise: squat does not"),
        ("joint: knee", "define an exercise, which exercise: null does not use"),
        (
            "exercise: raise, joint: knee, start_angle: 150, turn_angle: 135",
            "start_angle 150 and turn_angle 135 are closer than 20 degrees",
        ),
        ("exercise: raise, joint: ankle", "expected elbow, shoulder, hip or knee"),
        ("exercise: raise, start_angle: 200", "expected a number, at least 0 and at most 180"),
    ],
)
def test_repetitions_invalid_configuration(tmp_path: Path, keys: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"repetitions: {{{keys}}}")
    assert expected in str(caught.value)
    assert "repetitions" in str(caught.value)
