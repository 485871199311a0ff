"""OrientedSource, by the colours of the four quarters of an image."""

from contextlib import closing

import numpy as np
import pytest

from edgepose.datatypes import Frame
from edgepose.protocols import FrameStream
from edgepose.sources.orientation import OrientedSource
from tests.fakes.sources import ScriptedDemand
from tests.media import BLUE, GREEN, GREY, RED, corners, quarters

Colours = list[tuple[int, int, int]]


class _SingleFrameSource:
    live = True
    description = "still"

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.open = False

    def frames(self) -> FrameStream:
        self.open = True
        try:
            yield self.frame
        finally:
            self.open = False


def _oriented(rotation: int, mirror: bool, *, mirrored: bool = False) -> Frame:
    frame = Frame(quarters(64, 48), 7, 3, mirrored=mirrored, path="a.png")
    (result,) = OrientedSource(_SingleFrameSource(frame), rotation=rotation, mirror=mirror).frames()
    assert (result.timestamp_ns, result.sequence, result.path) == (7, 3, "a.png")
    return result


@pytest.mark.parametrize(
    ("rotation", "mirror", "expected"),
    [
        (0, False, [RED, GREEN, BLUE, GREY]),
        (90, False, [BLUE, RED, GREY, GREEN]),
        (180, False, [GREY, BLUE, GREEN, RED]),
        (270, False, [GREEN, GREY, RED, BLUE]),
        (0, True, [GREEN, RED, GREY, BLUE]),
        (90, True, [RED, BLUE, GREEN, GREY]),
        (180, True, [BLUE, GREY, RED, GREEN]),
        (270, True, [GREY, GREEN, BLUE, RED]),
    ],
)
def test_oriented_source_rotates_then_mirrors(
    rotation: int, mirror: bool, expected: Colours
) -> None:
    """The rotation is clockwise and comes before the mirroring."""
    frame = _oriented(rotation, mirror)
    assert corners(frame.image) == expected
    assert frame.size_wh == ((48, 64) if rotation in (90, 270) else (64, 48))
    assert frame.image.flags.c_contiguous
    assert frame.mirrored is mirror


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_oriented_source_equals_numpy(rotation: int) -> None:
    """Random images give the result of numpy.rot90 and a flip."""
    rng = np.random.default_rng(rotation)
    image = rng.integers(0, 256, (5, 7, 3), np.uint8)
    for mirror in (False, True):
        source = OrientedSource(
            _SingleFrameSource(Frame(image, 0, 0)), rotation=rotation, mirror=mirror
        )
        (frame,) = source.frames()
        expected = np.rot90(image, -rotation // 90)
        np.testing.assert_array_equal(frame.image, expected[:, ::-1] if mirror else expected)


def test_oriented_source_mirrored_input() -> None:
    """Mirroring a mirrored frame clears its mark; rotating keeps it."""
    assert not _oriented(0, True, mirrored=True).mirrored
    assert _oriented(90, False, mirrored=True).mirrored


def test_oriented_source_opens_and_closes_inner() -> None:
    """It opens and closes the inner source."""
    inner = _SingleFrameSource(Frame(quarters(), 0, 0))
    source = OrientedSource(inner, rotation=90, mirror=False)
    assert (source.live, source.description) == (True, "still")
    with closing(source.frames()) as frames:
        next(frames)
        assert inner.open
    assert not inner.open


def test_oriented_source_passes_the_demand_on() -> None:
    received = []

    class Inner(_SingleFrameSource):
        def frames(self) -> FrameStream:
            while True:
                received.append((yield self.frame))

    demand = ScriptedDemand()
    with closing(
        OrientedSource(Inner(Frame(quarters(), 0, 0)), rotation=90, mirror=False).frames()
    ) as frames:
        next(frames)
        frames.send(demand)
        frames.send(None)
    assert received == [demand, None]
