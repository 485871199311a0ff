"""What leaves the device, field by field."""

import json
import re

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose import messages
from edgepose.clock import boottime_ns, isoformat_utc
from edgepose.datatypes import Event, Poses, StageTimings, TrackedPoses
from edgepose.messages import PoseMessage, pose_message
from tests.builders import frame_of, tracked_of

TIMINGS = StageTimings(100_000, 5_000_000, 30_000, 20_000, 10_000)


def message(tracked: TrackedPoses, raw: Poses | None = None) -> PoseMessage:
    return pose_message(
        frame_of((640, 480), boottime_ns(), 7),
        tracked,
        TIMINGS,
        sequence=7,
        keypoint_threshold=0.3,
        node="gym",
        camera="main",
        model="movenet-lightning-int8",
        accelerator="cpu",
        degraded=False,
        raw=raw,
    )


def test_messages_fields_of_the_contract() -> None:
    points = np.linspace((64, 48), (320, 240), 17)
    tracked = tracked_of(points, first_id=3)
    decoded = json.loads(messages.encode(message(tracked)))
    assert list(decoded) == [
        *("schema", "node", "camera", "boot", "sequence", "captured_at", "published_at", "frame"),
        *("model", "accelerator", "degraded", "timings_ms", "poses"),
    ]
    assert decoded["schema"] == 1
    assert decoded["sequence"] == 7
    assert decoded["frame"] == {"width": 640, "height": 480}
    assert decoded["timings_ms"]["total"] == 5.16
    (pose,) = decoded["poses"]
    assert pose["id"] == 3
    assert pose["score"] == 0.9
    assert pose["box"] == [0.1, 0.1, 0.5, 0.5]
    assert pose["keypoints"][0] == [0.1, 0.1, 0.9]
    assert pose["keypoints"][16] == [0.5, 0.5, 0.9]


def test_pose_message_low_score_keypoints_are_null() -> None:
    """No keypoint is outside the frame."""
    points = np.full((17, 2), 100.0)
    points[3] = (-50, 1000)
    poses = tracked_of(points).poses
    poses.keypoint_scores[0, 5] = 0.29
    entry = message(TrackedPoses(poses, np.array([1]))).poses[0]
    assert entry.keypoints[5] is None
    assert entry.keypoints[3] == (0.0, 1.0, 0.9)
    assert all(0 <= side <= 1 for side in entry.box)


def test_pose_message_raw_keypoints() -> None:
    """All 17 with their scores, also those that are null among the smoothed ones."""
    smoothed = tracked_of(np.full((17, 2), 96.0), np.full((17, 2), 192.0))
    smoothed.poses.keypoint_scores[0, 5] = 0.29
    raw = tracked_of(np.full((17, 2), 48.0), np.full((17, 2), 144.0)).poses
    decoded = json.loads(messages.encode(message(smoothed, raw)))
    first, second = (pose["raw_keypoints"] for pose in decoded["poses"])
    assert first == [[0.075, 0.1, 0.29 if index == 5 else 0.9] for index in range(17)]
    assert second == [[0.225, 0.3, 0.9]] * 17
    assert decoded["poses"][0]["keypoints"][4:6] == [[0.15, 0.2, 0.9], None]
    (_, without) = json.loads(messages.encode(message(smoothed)))["poses"]
    assert "raw_keypoints" not in without


def test_pose_message_without_poses() -> None:
    empty = TrackedPoses(Poses.empty(), np.empty(0, np.int64))
    assert json.loads(messages.encode(message(empty)))["poses"] == []


@given(
    st.lists(st.floats(-2000, 3000, width=32), min_size=34, max_size=34),
    st.lists(st.floats(-0.125, 1.125, width=32), min_size=17, max_size=17),
)
def test_pose_message_any_poses_fit_schema(points: list[float], scores: list[float]) -> None:
    poses = tracked_of(np.array(points).reshape(17, 2)).poses
    poses.keypoint_scores[0] = scores
    decoded = messages.decode(messages.encode(message(TrackedPoses(poses, np.array([1])))))
    for keypoint in decoded.poses[0].keypoints:
        assert keypoint is None or all(0 <= value <= 1 for value in keypoint)


def test_pose_message_size() -> None:
    points = np.random.default_rng(0).uniform(0, 480, (17, 2))
    assert len(messages.encode(message(tracked_of(points)))) < 1024


@pytest.mark.parametrize(
    ("event", "own"),
    [
        (Event("enter", 3, 0), {}),
        (Event("zone_leave", 3, 0, zone="door"), {"zone": "door"}),
        (Event("repetition", 3, 0, exercise="squat", count=12), {"exercise": "squat", "count": 12}),
    ],
)
def test_event_message_has_the_fields_of_its_type_only(
    event: Event, own: dict[str, object]
) -> None:
    encoded = messages.encode(messages.event_message(event, 7, node="gym", camera="main"))
    decoded = json.loads(encoded)
    for name in ("schema", "id", "boot", "node", "camera", "time"):
        del decoded[name]
    assert decoded == {"type": event.type, "track_id": 3, **own}


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b"null", b"\xff", b'{"schema": "x"}'])
def test_messages_invalid_json(payload: bytes) -> None:
    with pytest.raises((msgspec.ValidationError, msgspec.DecodeError)):
        messages.decode(payload)


def test_messages_schema_has_every_field() -> None:
    definitions = msgspec.json.schema(messages.PoseMessage)["$defs"]
    assert isinstance(definitions, dict)
    assert set(definitions["PoseMessage"]["required"]) >= {"node", "camera", "poses"}


def test_messages_timestamp_format() -> None:
    assert isoformat_utc(1_769_860_800_123_456_789) == "2026-01-31T12:00:00.123456Z"
    assert isoformat_utc(0) == "1970-01-01T00:00:00.000000Z"
    assert isoformat_utc(1_769_860_799_999_999_999) == "2026-01-31T11:59:59.999999Z"
    empty = TrackedPoses(Poses.empty(), np.empty(0, np.int64))
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}Z", message(empty).captured_at)
