"""Presence, enter and leave on a real clip, compared with annotations."""

import json
from pathlib import Path

import pytest

from edgepose.datatypes import Event
from edgepose.events.presence import PresenceDetector
from edgepose.sources.video_file import VideoFileSource
from tests.builders import load_model, pipeline_of

TOLERANCE_S = 1.0


@pytest.mark.parametrize("name", ["movenet-lightning-int8", "movenet-multipose-fp16"])
def test_presence_on_real_clip(shared_data: Path, name: str) -> None:
    """Presence is right outside a second of each change, with one enter and one leave a visit."""
    truth = json.loads((shared_data / "video" / "one_by_one_A.presence.json").read_text())
    stretches = truth["person_visible_seconds"]
    pipeline, presence = pipeline_of(load_model(name)), PresenceDetector()
    frames, wrong = 0, []
    events: list[Event] = []
    start_ns = None
    for frame in VideoFileSource(shared_data / "video" / truth["video"]).frames():
        start_ns = frame.timestamp_ns if start_ns is None else start_ns
        at_s = (frame.timestamp_ns - start_ns) / 1e9
        events += presence.update(pipeline.process(frame).tracked_frame)
        if any(abs(at_s - edge) <= TOLERANCE_S for stretch in stretches for edge in stretch):
            continue
        frames += 1
        person = any(start <= at_s < end for start, end in stretches)
        if (presence.states["presence"] == "ON") != person:
            wrong.append(round(at_s, 1))
    assert frames > 350
    assert len(wrong) <= 0.01 * frames, wrong
    assert [event.type for event in events] == ["enter", "leave"] * len(stretches)
