"""Ghosts of models that find several persons, and what verification costs the persons.

Clips without a person and the empty parts of an annotated one, clips and images with persons, and
the sequences by which `tracking` checks its constants; ten minutes.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

from msgspec import structs

from edgepose.build import build_tracker
from edgepose.config.schema import Config
from edgepose.datatypes import CropRegion, Frame, Poses
from edgepose.detection.crop_state import CropState
from edgepose.detection.verification import FOLLOWED, Verification
from edgepose.events.presence import PresenceDetector
from edgepose.imaging.preprocess import preprocess
from edgepose.pipeline import Detection
from edgepose.protocols import LoadedModel
from edgepose.sources.images import list_images, read_image
from edgepose.sources.video_file import VideoFileSource
from tests.builders import load_model, pipeline_of
from tests.conftest import HAS_SHARED, SHARED
from tests.quality.detections import DetectedFrame, detected, detected_frame
from tests.quality.metrics import Score
from tests.quality.photographs import photographs
from tests.quality.sequences import FPS, sequences
from tests.quality.tracking import MODEL, RATES, SEQUENCES, TUNING

DATA: Final = SHARED / "data"
MODELS: Final = (MODEL, "posenet-mobilenet-int8")
ANNOTATED: Final = "video/one_by_one_A.mp4"
CLIPS: Final = (
    "negatives/bottle-detection.mp4",
    "negatives/bigbuckbunny.mp4",
    ANNOTATED,
    "video/store-aisle-detection.mp4",
    "video/worker-zone-detection.mp4",
)
NEAR_EDGE_S: Final = 0.5
"""How near to the first and last sight of a person a frame counts neither way."""


@dataclass
class Part:
    """The frames of a clip without persons, or those with."""

    frames: int = 0
    found: int = 0
    present: int = 0


class Run:
    """What is reported of the detections of a clip; `fps` is its own frame rate."""

    def __init__(self, model: LoadedModel) -> None:
        self.empty, self.occupied = Part(), Part()
        self.frames = self.verifications = 0
        self.fps = 0.0
        self._pipeline, self._presence = pipeline_of(model), PresenceDetector()

    def add(self, detection: Detection, part: Part | None) -> None:
        """Publish a detection, and count it in a part."""
        result = self._pipeline.publish(detection)
        self._presence.update(result.tracked_frame)
        self.frames += 1
        if part is not None:
            part.frames += 1
            part.found += len(result.tracked) > 0
            part.present += self._presence.states["presence"] == "ON"


def table() -> str:
    """Return what is found without and with verification, as Markdown."""
    if not HAS_SHARED:
        raise SystemExit("the clips and images are not beside this checkout")
    models = [load_model(name) for name in MODELS]
    return "\n".join("".join(part) for part in (_clips(models), _images(models), _tracks()))


def _clips(models: Sequence[LoadedModel]) -> Iterator[str]:
    yield (
        "| clip | model | ghost frames a minute | presence ON in frames | persons found in frames "
        "| verifications a frame |\n|---|---|---:|---:|---:|---:|\n"
    )
    for name in CLIPS:
        for model in models:
            sys.stderr.write(f"{name}, {model.name}\n")
            plain, verified = _runs(model, name)
            share = verified.verifications / verified.frames
            cells = (Path(name).name, model.name, _ghosts(plain, verified))
            yield f"| {' | '.join(cells)} | {_persons(plain, verified)} | {share:.2f} |\n"


def _ghosts(plain: Run, verified: Run) -> str:
    if not plain.empty.frames:
        return " | "
    rates = (60 * clip.fps * clip.empty.found / clip.empty.frames for clip in (plain, verified))
    present = f"{plain.empty.present} to {verified.empty.present}"
    return " to ".join(f"{rate:.0f}" for rate in rates) + " | " + present


def _persons(plain: Run, verified: Run) -> str:
    if not plain.occupied.frames:
        return ""
    return f"{plain.occupied.found} to {verified.occupied.found} of {plain.occupied.frames}"


def run_clip(model: LoadedModel, name: str, *, step: int = 1) -> Run:
    """Return what is reported of each `step`th frame of a clip."""
    return _runs(model, name, step=step)[1]


def _runs(model: LoadedModel, name: str, *, step: int = 1) -> tuple[Run, Run]:
    """Detect the poses of a clip once; report them plain, and verified if the model needs it."""
    detector, crop = pipeline_of(_unverified(model)), CropState()
    plain, verified, verification = Run(model), Run(model), Verification()
    spans = _spans(name)
    start_ns = None
    for frame in islice(VideoFileSource(DATA / name).frames(), 0, None, step):
        start_ns = frame.timestamp_ns if start_ns is None else start_ns
        seconds = (frame.timestamp_ns - start_ns) / 1e9
        detection = detector.detect(frame, crop)
        without = poses = detection.poses.above_threshold(model.pose_threshold)
        if model.verifier is not None:
            verifier = Verifier(model.verifier, frame)
            poses = verification.update(detection.poses, model.pose_threshold, frame, verifier)
            verified.verifications += verifier.count
        for run, found in ((plain, without), (verified, poses)):
            part: Part | None = run.empty
            if any(abs(seconds - edge) <= NEAR_EDGE_S for span in spans for edge in span):
                part = None
            elif any(start <= seconds <= end for start, end in spans):
                part = run.occupied
            run.add(structs.replace(detection, poses=found), part)
    plain.fps = verified.fps = (plain.frames - 1) / seconds
    return plain, verified


def _unverified(model: LoadedModel) -> LoadedModel:
    """Return a model that finds what is to be verified."""
    if model.verifier is None:
        return model
    return replace(model, verifier=None, pose_threshold=FOLLOWED * model.pose_threshold)


def _spans(name: str) -> list[tuple[float, float]]:
    """Return when persons are visible, in seconds."""
    if name.startswith("negatives"):
        return []
    if name != ANNOTATED:
        return [(-1.0, 3600.0)]
    path = (DATA / name).with_suffix(".presence.json")
    return [(start, end) for start, end in json.loads(path.read_text())["person_visible_seconds"]]


def _images(models: Sequence[LoadedModel]) -> Iterator[str]:
    yield "| COCO images | model | images | with a pose | verified |\n|---|---|---:|---:|---:|\n"
    for folder, name in (("images", "with people"), ("negatives", "without people")):
        paths = list_images(DATA / "coco" / folder)
        frames = [Frame(read_image(path), 1, 0, still=True) for path in paths]
        for model in models:
            assert model.verifier is not None
            detector = pipeline_of(replace(model, verifier=None))
            with_pose = verified = 0
            for frame in frames:
                poses = detector.detect(frame, CropState()).poses
                with_pose += len(poses) > 0
                verifier = Verifier(model.verifier, frame)
                left = Verification().update(poses, model.pose_threshold, frame, verifier)
                verified += len(left) > 0
            yield f"| {name} | {model.name} | {len(frames)} | {with_pose} | {verified} |\n"


def _tracks() -> Iterator[str]:
    """Yield IDF1 of the tracker on the sequences that check it."""
    yield (
        "| frames a second of made sequences | IDF1 | verified | verifications a frame |\n"
        "|---:|---:|---:|---:|\n"
    )
    model = load_model(MODEL)
    assert model.verifier is not None
    plain = {rate: Score() for rate in RATES}
    verified = {rate: Score() for rate in RATES}
    counts, frames = dict.fromkeys(RATES, 0), dict.fromkeys(RATES, 0)
    for sequence in islice(sequences(photographs(), SEQUENCES), TUNING, None):
        sys.stderr.write(f"{sequence.name}\n")
        found, unverified = detected(sequence, model), detected(sequence, _unverified(model))
        verifications = {rate: Verification() for rate in RATES}
        kept: dict[int, list[DetectedFrame]] = {rate: [] for rate in RATES}
        frames_of = enumerate(zip(sequence.frames(), unverified, strict=True))
        for index, ((image, truth), before) in frames_of:
            verifier = Verifier(model.verifier, Frame(image, before.timestamp_ns, index))
            for rate in RATES:
                if index % (FPS // rate) == 0:
                    verifier.count = 0
                    poses = verifications[rate].update(
                        before.poses, model.pose_threshold, verifier.frame, verifier
                    )
                    counts[rate] += verifier.count
                    frames[rate] += 1
                    kept[rate].append(detected_frame(index, poses, truth))
        for rate in RATES:
            plain[rate].add(build_tracker(Config()), found[:: FPS // rate])
            verified[rate].add(build_tracker(Config()), kept[rate])
    for rate in RATES:
        yield (
            f"| {rate} | {plain[rate].idf1:.3f} | {verified[rate].idf1:.3f} "
            f"| {counts[rate] / frames[rate]:.2f} |\n"
        )


@dataclass
class Verifier:
    """Runs the verifier on regions of a frame, and counts."""

    model: LoadedModel
    frame: Frame
    count: int = 0

    def __call__(self, region: CropRegion) -> Poses:
        """Return the pose in a region."""
        self.count += 1
        model = self.model
        tensor, to_frame = preprocess(self.frame.image, region, model.pose_model.input_spec)
        outputs = model.interpreter.invoke(tensor)
        return model.pose_model.decode(outputs, to_frame)
