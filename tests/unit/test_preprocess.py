"""Cropping, scaling, padding, and the map back to the frame."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from edgepose.datatypes import CropRegion, Frame, InputSpec, TensorToFrame
from edgepose.imaging.crop import padded_region
from edgepose.imaging.preprocess import preprocess
from tests.builders import frame_of

SPEC = InputSpec((192, 192), np.dtype(np.uint8))


@st.composite
def regions(draw: st.DrawFn) -> tuple[tuple[int, int], CropRegion]:
    """Draw a frame size and a square region that overlaps the frame."""
    width = draw(st.integers(16, 1280))
    height = draw(st.integers(16, 960))
    side = draw(st.floats(8, 2 * max(width, height)))
    x_min = draw(st.floats(-side + 2, width - 2))
    y_min = draw(st.floats(-side + 2, height - 2))
    return (width, height), CropRegion(x_min, y_min, x_min + side, y_min + side)


def place(to_frame: TensorToFrame, point: tuple[float, float]) -> tuple[float, float]:
    """Return a point of the tensor in frame px."""
    x, y = to_frame.turned_back(*point)
    return (
        x * to_frame.scale_xy[0] + to_frame.offset_xy[0],
        y * to_frame.scale_xy[1] + to_frame.offset_xy[1],
    )


@given(regions())
def test_preprocess_map_to_frame(drawn: tuple[tuple[int, int], CropRegion]) -> None:
    """The edges of the region are mapped back to within a pixel of frame and tensor."""
    size_wh, region = drawn
    _, to_frame = preprocess(frame_of(size_wh).image, region, SPEC)
    # A whole-pixel crop may miss the region's edge by a pixel of the frame or one of the tensor,
    # and the difference inside the overlap is stretched over the whole tensor. If pixels are
    # halved in pairs, one more of the frame may be left over.
    px = 3.0 if region.x_max - region.x_min >= 2 * 192 else 1.0
    for low, high, scale, offset, extent in (
        (region.x_min, region.x_max, to_frame.scale_xy[0], to_frame.offset_xy[0], size_wh[0]),
        (region.y_min, region.y_max, to_frame.scale_xy[1], to_frame.offset_xy[1], size_wh[1]),
    ):
        per_px = (high - low) / 192
        for edge in (max(low, 0.0), min(high, float(extent))):
            tensor = (edge - low) / per_px
            assert abs(tensor * scale + offset - edge) <= px + per_px


def test_preprocess_round_trip_of_a_point() -> None:
    """A bright dot found in the tensor is mapped back to its place in the frame."""
    image = np.zeros((480, 640, 3), np.uint8)
    image[298:303, 398:403] = 255
    frame = Frame(image, 0, 0)
    for region in (
        CropRegion(0, -80, 640, 560),
        CropRegion(300, 200, 500, 400),
        CropRegion(-100, 100, 500, 700),
    ):
        tensor, to_frame = preprocess(frame.image, region, SPEC)
        ys, xs = np.nonzero(tensor[0, :, :, 0].astype(int) > 100)
        dot = place(to_frame, (xs.mean() + 0.5, ys.mean() + 0.5))
        assert dot == pytest.approx((400.5, 300.5), abs=1.7)


@given(regions(), st.integers(1, 3), st.booleans())
def test_preprocess_turned_region(
    drawn: tuple[tuple[int, int], CropRegion], turns: int, square: bool
) -> None:
    """Every corner of the turned tensor is mapped to the corner that was turned there."""
    size_wh, region = drawn
    width, height = (192, 192) if square else (96, 160)
    upright = replace(SPEC, size_wh=(height, width) if turns % 2 else (width, height))
    _, to_upright = preprocess(frame_of(size_wh).image, region, upright)
    tensor, to_frame = preprocess(
        frame_of(size_wh).image,
        structs.replace(region, turns=turns),
        replace(SPEC, size_wh=(width, height)),
    )
    assert tensor.shape == (1, height, width, 3)
    right, bottom = upright.size_wh
    clockwise = [(0, 0), (right, 0), (right, bottom), (0, bottom)]
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    for index, corner in enumerate(corners):
        source = clockwise[(index - turns) % 4]
        assert place(to_frame, corner) == pytest.approx(place(to_upright, source), abs=1e-6)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("size_wh", [(640, 480), (641, 479), (201, 333)])
def test_preprocess_turned_round_trip_of_a_point(turns: int, size_wh: tuple[int, int]) -> None:
    """A bright dot is mapped back to its place in the frame, whatever the turn."""
    width, height = size_wh
    image = np.zeros((height, width, 3), np.uint8)
    image[148:153, 98:103] = 255
    for region in (None, CropRegion(-20, 60, 180, 260), CropRegion(50, 100, 150, 200)):
        whole = padded_region(size_wh, SPEC.size_wh, centred=True)
        tensor, to_frame = preprocess(image, structs.replace(region or whole, turns=turns), SPEC)
        ys, xs = np.nonzero(tensor[0, :, :, 0].astype(int) > 100)
        dot = place(to_frame, (xs.mean() + 0.5, ys.mean() + 0.5))
        assert dot == pytest.approx((100.5, 150.5), abs=1.7)


def test_preprocess_turns_clockwise() -> None:
    """One quarter turn puts the left side of the frame at the top of the tensor."""
    image = np.zeros((192, 192, 3), np.uint8)
    image[:, :96] = 255
    tensor, _ = preprocess(image, CropRegion(0, 0, 192, 192, turns=1), SPEC)
    assert tensor[0, :96].min() == 255
    assert tensor[0, 96:].max() == 0


def test_preprocess_region_exceeds_frame() -> None:
    """The area outside the frame is black."""
    frame = Frame(np.full((100, 200, 3), 255, np.uint8), 0, 0)
    tensor, _ = preprocess(frame.image, CropRegion(0, -50, 200, 150), SPEC)
    assert tensor.shape == (1, 192, 192, 3)
    assert tensor[0, :48].max() == 0
    assert tensor[0, 48:144].min() == 255
    assert tensor[0, 144:].max() == 0


def test_preprocess_region_outside_frame() -> None:
    """A region beside the frame gives a tensor and a finite map."""
    tensor, to_frame = preprocess(
        frame_of((100, 80)).image, CropRegion(150.0, 150.0, 250.0, 250.0), SPEC
    )
    assert tensor.shape == (1, 192, 192, 3)
    assert np.isfinite(to_frame.scale_xy + to_frame.offset_xy).all()


def test_preprocess_large_region_does_not_alias() -> None:
    """Stripes of one pixel become grey, not a moire pattern."""
    image = np.zeros((768, 768, 3), np.uint8)
    image[:, ::2] = 255
    tensor, _ = preprocess(image, CropRegion(0, 0, 768, 768), SPEC)
    assert np.ptp(tensor.astype(int)) <= 2


@pytest.mark.parametrize("size_wh", [(641, 481), (1, 500), (500, 1), (3, 700)])
def test_preprocess_odd_frame_size(size_wh: tuple[int, int]) -> None:
    """The last row and column of an odd size are used."""
    width, height = size_wh
    frame = Frame(np.full((height, width, 3), 200, np.uint8), 0, 0)
    tensor, _ = preprocess(frame.image, CropRegion(0, 0, 700, 700), SPEC)
    inside = tensor[0, : max(1, height * 192 // 700), : max(1, width * 192 // 700)]
    assert inside.min() == inside.max() == 200


@pytest.mark.parametrize(
    ("spec", "low", "high"),
    [
        (InputSpec((64, 64), np.dtype(np.int32)), 0, 255),
        (InputSpec((64, 64), np.dtype(np.float32)), 0, 255),
        (InputSpec((64, 64), np.dtype(np.float32), 1 / 127.5, -1.0), -1, 1),
        (InputSpec((64, 64), np.dtype(np.int8), 1.0, -128.0), -128, 127),
    ],
)
def test_preprocess_tensor_dtype_and_scale(spec: InputSpec, low: float, high: float) -> None:
    """Pixels are converted by scale, offset and dtype of the input."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    tensor, _ = preprocess(image, CropRegion(0, 0, 64, 64), spec)
    assert tensor.dtype == spec.dtype
    assert tensor[0, 0, 0, 0] == low
    assert tensor[0, 0, 63, 2] == pytest.approx(high)
