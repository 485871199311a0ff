"""OccupancyDetector on a real clip, compared with annotations."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from edgepose import messages
from edgepose.events.occupancy import OccupancyDetector

TOLERANCE_S = 1.5


def test_presence_on_real_clip(shared_data: Path) -> None:
    """Presence agrees with the truth except around its changes, although single frames do not."""
    truth = json.loads((shared_data / "video" / "one_by_one_A.presence.json").read_text())
    stretches = truth["person_visible_seconds"]
    clip = shared_data / "video" / truth["video"]
    done = subprocess.run(
        [sys.executable, "-m", "edgepose", "estimate", str(clip)],
        check=True,
        capture_output=True,
        timeout=100,
    )
    occupancy = OccupancyDetector()
    wrong_frames = []
    first_s = None
    changes = 0
    for line in done.stdout.splitlines():
        message = messages.decode(line)
        captured_s = datetime.fromisoformat(message.captured_at).timestamp()
        first_s = captured_s if first_s is None else first_s
        at_s = captured_s - first_s
        before = occupancy.present
        occupancy.update(len(message.poses), round(at_s * 1e9))
        changes += occupancy.present != before
        near_change = any(
            abs(at_s - edge) <= TOLERANCE_S for stretch in stretches for edge in stretch
        )
        person = any(start <= at_s < end for start, end in stretches)
        if not near_change and occupancy.present != person:
            wrong_frames.append(round(at_s, 1))
    assert first_s is not None
    assert wrong_frames == []
    assert changes == 2 * len(stretches)
