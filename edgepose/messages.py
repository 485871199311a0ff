"""The messages that leave the device, and the functions that build them.

Schema 1. Unknown fields may be added; a changed meaning raises the number.
"""

import math
import secrets
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, cast

import msgspec

from edgepose import __version__, skeleton
from edgepose.clock import isoformat_utc, utc_of_boottime
from edgepose.datatypes import (
    Event,
    EventType,
    Frame,
    Poses,
    Posture,
    PostureName,
    StageTimings,
    TrackedPoses,
)

SCHEMA = 1

_PLACES = 1e4
_SCORES = 1e3
_ANY_SCORE = -math.inf
_WHOLE = 1.5 * 2**52
"""Added to a float and subtracted again, it leaves a whole number, sooner than `int`."""

Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Keypoint = tuple[Fraction, Fraction, Fraction]
Box = tuple[Fraction, Fraction, Fraction, Fraction]


Boot = Annotated[
    str,
    msgspec.Meta(
        description="random for each start of edgepose, after which sequence and ids begin again"
    ),
]


@cache
def boot_id() -> str:
    """Return the `boot` of this process, 8 hexadecimal digits."""
    return secrets.token_hex(4)


class FrameSize(msgspec.Struct, frozen=True):
    """The size of the upright frame in pixels."""

    width: int
    height: int


class Timings(msgspec.Struct, frozen=True):
    """What each stage took, in milliseconds; `total` is their sum."""

    preprocess: float
    invoke: float
    decode: float
    track: float
    smooth: float
    total: float


class PostureEntry(msgspec.Struct, frozen=True):
    """The posture of a pose and its probability; bending includes crouching and crawling."""

    name: PostureName
    score: Fraction


class PoseEntry(msgspec.Struct, frozen=True):
    """One pose: x before y, all 0..1 of the upright frame; a weak keypoint is null."""

    id: Annotated[int, msgspec.Meta(ge=1)]
    score: Fraction
    box: Box
    keypoints: Annotated[
        list[Keypoint | None],
        msgspec.Meta(
            min_length=17,
            max_length=17,
            description="COCO order, [x, y, score] each; null below the keypoint threshold",
        ),
    ]
    raw_keypoints: (
        Annotated[
            list[Keypoint],
            msgspec.Meta(
                min_length=17,
                max_length=17,
                description="with publish.raw: before smoothing, with any score, never null",
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    posture: PostureEntry | msgspec.UnsetType = msgspec.UNSET
    angles: (
        Annotated[
            dict[str, float | None],
            msgspec.Meta(
                description="with publish.angles: degrees by joint, such as left_knee, in the "
                "image plane; 180 is straight, null if a keypoint is weak"
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET


class PoseMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The poses of one frame."""

    schema: int = SCHEMA
    node: str
    camera: str
    # Empty in recordings of earlier versions.
    boot: Boot = ""
    sequence: Annotated[int, msgspec.Meta(description="grows; unique for a camera within one boot")]
    captured_at: str
    published_at: str
    frame: FrameSize
    model: str
    accelerator: str
    degraded: bool
    timings_ms: Timings
    poses: list[PoseEntry]


class EstimateLine(PoseMessage, frozen=True, kw_only=True):
    """A pose message with the file it came from, as `edgepose estimate` prints it."""

    source: str


class EventMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Something happened to a person, at `time`.

    For `enter` and `leave` that is when the track was seen first, or last. `zone` is that of a zone
    event, `exercise` and `count` those of a repetition; other events lack them.
    """

    schema: int = SCHEMA
    id: Annotated[str, msgspec.Meta(description="the same if an event arrives twice")] = ""
    boot: Boot = ""
    type: EventType
    node: str
    camera: str
    track_id: Annotated[int, msgspec.Meta(ge=1)]
    time: str
    zone: str | msgspec.UnsetType = msgspec.UNSET
    exercise: str | msgspec.UnsetType = msgspec.UNSET
    count: int | msgspec.UnsetType = msgspec.UNSET


class AcceleratorMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The accelerator that runs the model now.

    `degraded` with a `reason` if it is not the one asked for, or if no model runs (`model` is null
    then). `restarts` counts how often it was lost since the start.
    """

    device: str
    degraded: bool
    reason: str | None
    since: str
    model: str | None
    pose_threshold: float | None
    keypoint_threshold: float | None
    restarts: int


encode = msgspec.json.Encoder().encode
"""Returns a message as JSON bytes without a line end."""

decode = msgspec.json.Decoder(PoseMessage).decode
"""Reads a pose message; raises msgspec.ValidationError or msgspec.DecodeError."""


def pose_message(
    frame: Frame,
    tracked: TrackedPoses,
    timings: StageTimings,
    *,
    sequence: int,
    keypoint_threshold: float,
    node: str,
    camera: str,
    model: str,
    accelerator: str,
    degraded: bool,
    raw: Poses | None = None,
    postures: Sequence[Posture] = (),
    angles: Sequence[dict[str, float | None]] = (),
) -> PoseMessage:
    """Build the message of one frame; keypoints below the threshold are null.

    `raw` are the poses before smoothing, in the same order, if they are to be published too, as are
    `postures` and `angles` by joint.
    Keypoints that left the frame are moved to its edge, since every number is 0..1; four decimals
    are a quarter of a pixel at 2500 px and keep the message under 1 kB.
    """
    width, height = frame.size_wh
    to_x, to_y = _PLACES / width, _PLACES / height
    poses = tracked.poses
    raw_places = [None] * len(poses) if raw is None else raw.keypoint_list
    unset = [msgspec.UNSET] * len(poses)
    # Plain floats: for the one or two poses of a frame, NumPy's clip and round take longer.
    entries = [
        PoseEntry(
            track_id,
            _fraction(score * _SCORES, _SCORES),
            (
                _fraction(box[0] * to_x, _PLACES),
                _fraction(box[1] * to_y, _PLACES),
                _fraction(box[2] * to_x, _PLACES),
                _fraction(box[3] * to_y, _PLACES),
            ),
            _keypoints(places, keypoint_scores, width, height, keypoint_threshold),
            msgspec.UNSET
            if measured is None
            else cast(
                "list[Keypoint]", _keypoints(measured, keypoint_scores, width, height, _ANY_SCORE)
            ),
            posture,
            angles_of_pose,
        )
        for (
            track_id,
            score,
            box,
            places,
            keypoint_scores,
            measured,
            posture,
            angles_of_pose,
        ) in zip(
            tracked.track_ids.tolist(),
            poses.score_list,
            poses.box_list,
            poses.keypoint_list,
            poses.keypoint_score_list,
            raw_places,
            [PostureEntry(p.name, _fraction(p.score * _SCORES, _SCORES)) for p in postures]
            or unset,
            angles or unset,
            strict=True,
        )
    ]
    return PoseMessage(
        node=node,
        camera=camera,
        boot=boot_id(),
        sequence=sequence,
        captured_at=utc_of_boottime(frame.timestamp_ns),
        published_at=isoformat_utc(time.time_ns()),
        frame=FrameSize(width, height),
        model=model,
        accelerator=accelerator,
        degraded=degraded,
        timings_ms=Timings(
            _milliseconds(timings.preprocess_ns),
            _milliseconds(timings.invoke_ns),
            _milliseconds(timings.decode_ns),
            _milliseconds(timings.track_ns),
            _milliseconds(timings.smooth_ns),
            _milliseconds(timings.total_ns),
        ),
        poses=entries,
    )


def _keypoints(
    places: list[list[float]], scores: list[float], width: int, height: int, threshold: float
) -> list[Keypoint | None]:
    # As `_fraction`, whose calls would take half of the time.
    to_x, to_y, steps, whole = _PLACES / width, _PLACES / height, _PLACES, _WHOLE
    return [
        (
            (x * to_x + whole - whole) / steps if 0.0 <= x <= width else _end(x),
            (y * to_y + whole - whole) / steps if 0.0 <= y <= height else _end(y),
            (score * _SCORES + whole - whole) / _SCORES if 0.0 <= score <= 1.0 else _end(score),
        )
        if score >= threshold
        else None
        for (x, y), score in zip(places, scores, strict=True)
    ]


def _fraction(value: float, steps: float) -> float:
    """Return a value of so many steps, rounded to a whole one, as a part of them, 0..1."""
    return (value + _WHOLE - _WHOLE) / steps if 0.0 <= value <= steps else _end(value)


def _end(value: float) -> float:
    """Return the end of 0..1 that is next to a value outside; NaN becomes 0."""
    return 1.0 if value > 0.0 else 0.0


def event_message(event: Event, number: int, *, node: str, camera: str) -> EventMessage:
    """Build the message of an event; `number` counts those of the camera since the start."""
    return EventMessage(
        id=f"{boot_id()}-{camera}-{number}",
        boot=boot_id(),
        type=event.type,
        node=node,
        camera=camera,
        track_id=event.track_id,
        time=utc_of_boottime(event.time_ns),
        zone=msgspec.UNSET if event.zone is None else event.zone,
        exercise=msgspec.UNSET if event.exercise is None else event.exercise,
        count=msgspec.UNSET if event.count is None else event.count,
    )


def info_message(
    *,
    node: str,
    device: str,
    cameras: Sequence[str],
    zones: Mapping[str, object],
    models: Sequence[str],
    verifier: str | None,
    keypoint_threshold: float,
    threads: Mapping[str, object] | None = None,
) -> bytes:
    """Return the `info` payload: what a node is and how to read its messages.

    `zones` has those of each camera as configured, `models` the names of all that are loaded,
    `threads` the number of CPU threads of each that has some, and its reason.
    """
    return encode(
        {
            "version": __version__,
            "boot": boot_id(),
            "node": node,
            "device": device,
            "cameras": cameras,
            "zones": zones,
            "models": models,
            "verifier": verifier,
            "threads": threads or {},
            "keypoint_names": skeleton.KEYPOINT_NAMES,
            "skeleton": skeleton.EDGES,
            "keypoint_threshold": keypoint_threshold,
            "message_schema": msgspec.json.schema(PoseMessage),
        }
    )


def without_poses(message: PoseMessage, sequence: int) -> PoseMessage:
    """Return an empty message that follows another, with the next number and the present time."""
    now = isoformat_utc(time.time_ns())
    return msgspec.structs.replace(
        message, sequence=sequence, captured_at=now, published_at=now, poses=[]
    )


def _milliseconds(duration_ns: int) -> float:
    # Not `round` of a float, which goes by way of its decimal digits.
    return (duration_ns + 500) // 1000 / 1000
