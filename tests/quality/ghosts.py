"""Ghosts of models that find several persons, and what verification costs the persons.

Clips without a person and the empty parts of an annotated one, clips and images with persons, and
the sequences that `tracking` uses; a quarter of an hour.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from edgepose.build import build_tracker
from edgepose.config.schema import Config
from edgepose.datatypes import CropRegion, Frame, Poses
from edgepose.detection.crop_state import CropState
from edgepose.detection.verification import Verification
from edgepose.events.presence import PresenceDetector
from edgepose.imaging.preprocess import preprocess
from edgepose.protocols import LoadedModel
from edgepose.sources.images import list_images, read_image
from edgepose.sources.video_file import VideoFileSource
from tests.builders import load_model, pipeline_of
from tests.conftest import HAS_SHARED, SHARED
from tests.quality.detections import DetectedFrame, detected
from tests.quality.metrics import Score
from tests.quality.photographs import photographs
from tests.quality.sequences import FPS, sequences
from tests.quality.tracking import MODEL, RATES, SEQUENCES

DATA: Final = SHARED / "data"
MODELS: Final = (MODEL, "movenet-multipose-fp16", "posenet-mobilenet-int8")
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


@dataclass
class Clip:
    """What was found in a clip; `fps` is its own frame rate."""

    empty: Part = field(default_factory=Part)
    occupied: Part = field(default_factory=Part)
    frames: int = 0
    fps: float = 0.0
    verifications: int = 0


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
            plain, verified = (run_clip(m, name) for m in (replace(model, verifier=None), model))
            share = verified.verifications / verified.frames
            cells = (Path(name).name, model.name, _ghosts(plain, verified))
            yield f"| {' | '.join(cells)} | {_persons(plain, verified)} | {share:.2f} |\n"


def _ghosts(plain: Clip, verified: Clip) -> str:
    if not plain.empty.frames:
        return " | "
    rates = (60 * clip.fps * clip.empty.found / clip.empty.frames for clip in (plain, verified))
    present = f"{plain.empty.present} to {verified.empty.present}"
    return " to ".join(f"{rate:.0f}" for rate in rates) + " | " + present


def _persons(plain: Clip, verified: Clip) -> str:
    if not plain.occupied.frames:
        return ""
    return f"{plain.occupied.found} to {verified.occupied.found} of {plain.occupied.frames}"


def run_clip(model: LoadedModel, name: str, *, step: int = 1) -> Clip:
    """Run the whole pipeline and the presence detector over each `step`th frame of a clip."""
    pipeline, presence, clip = pipeline_of(model), PresenceDetector(), Clip()
    spans = _spans(name)
    start_ns = None
    for frame in islice(VideoFileSource(DATA / name).frames(), 0, None, step):
        start_ns = frame.timestamp_ns if start_ns is None else start_ns
        seconds = (frame.timestamp_ns - start_ns) / 1e9
        result = pipeline.process(frame)
        presence.update(result.tracked_frame)
        clip.frames += 1
        if any(abs(seconds - edge) <= NEAR_EDGE_S for span in spans for edge in span):
            continue
        part = clip.occupied if any(a <= seconds <= b for a, b in spans) else clip.empty
        part.frames += 1
        part.found += len(result.tracked) > 0
        part.present += presence.states["presence"] == "ON"
    clip.fps = (clip.frames - 1) / seconds
    clip.verifications = pipeline.verifications
    return clip


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
            counts = []
            for each in (replace(model, verifier=None), model):
                pipeline = pipeline_of(each)
                poses = [pipeline.detect(frame, CropState()).poses for frame in frames]
                counts.append(sum(len(found) > 0 for found in poses))
            yield f"| {name} | {model.name} | {len(frames)} | {counts[0]} | {counts[1]} |\n"


def _tracks() -> Iterator[str]:
    """Yield IDF1 of the tracker on all sequences, whose persons are cut out."""
    yield "| frames a second | IDF1 | verified | verifications a frame |\n|---:|---:|---:|---:|\n"
    model = load_model(MODEL)
    assert model.verifier is not None
    plain = {rate: Score() for rate in RATES}
    verified = {rate: Score() for rate in RATES}
    counts, frames = dict.fromkeys(RATES, 0), dict.fromkeys(RATES, 0)
    for sequence in sequences(photographs(), SEQUENCES):
        sys.stderr.write(f"{sequence.name}\n")
        found = detected(sequence, model)
        verifications = {rate: Verification() for rate in RATES}
        kept: dict[int, list[DetectedFrame]] = {rate: [] for rate in RATES}
        for index, ((image, _), before) in enumerate(zip(sequence.frames(), found, strict=True)):
            scorer = Scorer(model.verifier, Frame(image, before.timestamp_ns, index))
            for rate in RATES:
                if index % (FPS // rate) == 0:
                    scorer.count = 0
                    poses = verifications[rate].update(before.poses, scorer.frame, scorer)
                    counts[rate] += scorer.count
                    frames[rate] += 1
                    kept[rate].append(_reduced(before, poses))
        for rate in RATES:
            plain[rate].add(build_tracker(Config()), found[:: FPS // rate])
            verified[rate].add(build_tracker(Config()), kept[rate])
    for rate in RATES:
        yield (
            f"| {rate} | {plain[rate].idf1:.3f} | {verified[rate].idf1:.3f} "
            f"| {counts[rate] / frames[rate]:.2f} |\n"
        )


@dataclass
class Scorer:
    """Runs the verifier on regions of a frame, and counts."""

    verifier: LoadedModel
    frame: Frame
    count: int = 0

    def __call__(self, region: CropRegion) -> Poses:
        """Return the pose in a region."""
        self.count += 1
        model = self.verifier
        tensor, to_frame = preprocess(self.frame.image, region, model.pose_model.input_spec)
        outputs = model.interpreter.invoke(tensor)
        return model.pose_model.decode(outputs, to_frame)


def _reduced(frame: DetectedFrame, poses: Poses) -> DetectedFrame:
    """Return a frame with some of its poses only."""
    persons = {
        keypoints.tobytes(): person
        for keypoints, person in zip(frame.poses.keypoints, frame.persons, strict=True)
    }
    left = tuple(persons[keypoints.tobytes()] for keypoints in poses.keypoints)
    return DetectedFrame(frame.timestamp_ns, poses, left, frame.expected)
