"""The instructions of a frame: the profiles of callgrind are read."""

from tools.instructions import ROOMS, read_rooms, read_total

PROFILE = """\
# callgrind format
events: Ir
summary: 1000

fn=(2) main
10 100
cfn=(4) room_tracking
calls=2 0
12 300
cfn=(6) room_smoothing
calls=2 0
+1 200

fn=(8) tracking_room
3 5
cfn=(4)
calls=1 0
* 50

totals: 1000
"""


def test_instructions_of_a_profile() -> None:
    assert read_total(PROFILE) == 1000


def test_instructions_by_room_have_those_of_called_functions() -> None:
    """A name is written once and a number afterwards; rooms that were not called have none."""
    called = {"tracking": 350, "smoothing": 200}
    assert read_rooms(PROFILE) == dict.fromkeys(ROOMS, 0) | called
