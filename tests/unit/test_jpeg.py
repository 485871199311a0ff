"""JPEG pictures that are decoded as far as they are looked at."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgepose.datatypes import CropRegion, Frame, InputSpec
from edgepose.errors import FrameError
from edgepose.imaging.preprocess import decode, preprocess
from edgepose.sources import _jpeg
from edgepose.sources._jpeg import Jpeg
from tests.helpers import Undecoded

SPEC = InputSpec.of((64, 64), np.uint8)


def picture(size_wh: tuple[int, int] = (301, 203)) -> NDArray[np.uint8]:
    """A smooth picture, red to the right, blue to the bottom."""
    width, height = size_wh
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 250, width)
    image[..., 2] = np.linspace(0, 250, height)[:, np.newaxis]
    return image


def encoded(image: NDArray[np.uint8], *parameters: int) -> NDArray[np.uint8]:
    bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95, *parameters])
    assert done
    return data.astype(np.uint8, copy=False)


@pytest.mark.parametrize("rgb", [True, False])
@pytest.mark.parametrize("progressive", [0, 1])
def test_whole_and_half_show_the_same(
    rgb: bool, progressive: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not rgb:
        # As OpenCV before 4.11, which gives BGR only.
        monkeypatch.setattr(_jpeg, "_RGB", 0)
        ignore = cv2.IMREAD_IGNORE_ORIENTATION
        monkeypatch.setattr(_jpeg, "_WHOLE", cv2.IMREAD_COLOR | ignore)
        monkeypatch.setattr(_jpeg, "_HALF", cv2.IMREAD_REDUCED_COLOR_2 | ignore)
    image = picture()
    jpeg = Jpeg(encoded(image, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive), name="p")
    assert jpeg.size_wh == (301, 203)
    assert np.abs(jpeg.whole().astype(int) - image).max() <= 6
    assert jpeg.half().shape == (102, 151, 3)
    assert np.abs(jpeg.half().astype(int) - image[::2, ::2]).max() <= 10
    assert jpeg.whole() is jpeg.whole()
    assert jpeg.half() is jpeg.half()
    assert not jpeg.whole().flags.writeable


def test_grey_pictures_have_three_channels_too() -> None:
    jpeg = Jpeg(encoded(np.full((40, 60), 77, np.uint8)), name="p")
    assert jpeg.half().shape == (20, 30, 3)
    assert np.abs(jpeg.whole().astype(int) - 77).max() <= 2


def test_the_orientation_of_a_camera_is_not_heeded() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    data = encoded(picture()).tobytes()
    turned = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    jpeg = Jpeg(np.frombuffer(turned, np.uint8), name="p")
    assert jpeg.size_wh == (301, 203)
    assert jpeg.whole().shape == (203, 301, 3)
    assert jpeg.half().shape == (102, 151, 3)


@pytest.mark.parametrize("side", [60, 127, 128, 200, 400])
def test_the_cut_is_that_of_the_decoded_picture(side: int) -> None:
    data = encoded(picture((320, 240)))
    lazy, plain = (
        Frame(Jpeg(data, name="p"), 0, 0),
        Frame(Jpeg(data, name="p").whole(), 0, 0),
    )
    region = CropRegion(-20, 11, side - 20, side + 11)
    tensor, to_frame = preprocess(lazy, region, SPEC)
    same, same_map = preprocess(plain, region, SPEC)
    assert to_frame == same_map
    assert np.abs(tensor.astype(int) - same).max() <= 8


def test_what_cannot_be_decoded_says_so() -> None:
    data = encoded(picture())
    with pytest.raises(FrameError, match="cam: a JPEG picture of 3 bytes does not begin"):
        Jpeg(np.zeros(3, np.uint8), name="cam")
    with pytest.raises(FrameError, match="has no frame header"):
        Jpeg(data[:20], name="cam")
    gone = data.copy()
    gone[200:] = 0xFF
    with pytest.raises(FrameError, match="cannot be decoded"):
        Jpeg(gone, name="cam").half()


@given(st.data())
def test_no_damage_is_more_than_one_frame_lost(data: st.DataObject) -> None:
    damaged = encoded(picture((50, 30))).copy()
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    try:
        jpeg = Jpeg(damaged, name="p")
        width, height = jpeg.size_wh
        if width * height > 1_000_000:
            return
        assert jpeg.half().shape == ((height + 1) // 2, (width + 1) // 2, 3)
        assert jpeg.whole().shape == (height, width, 3)
    except FrameError:
        pass


@pytest.mark.parametrize(("side", "needs"), [(127.9, "whole"), (128, "half"), (301, "half")])
def test_what_is_decoded_ahead_is_what_preprocessing_reads(side: float, needs: str) -> None:
    region = CropRegion(0, 0, side, side)
    ahead, read = Undecoded((301, 203)), Undecoded((301, 203))
    decode(Frame(ahead, 0, 0), region, SPEC)
    preprocess(Frame(read, 0, 0), region, SPEC)
    assert ahead.asked == [needs]
    assert set(read.asked) == {needs}


def test_pixels_need_no_decoding() -> None:
    decode(Frame(picture(), 0, 0), CropRegion(0, 0, 64, 64), SPEC)


def test_what_cannot_be_decoded_is_told_of_ahead() -> None:
    data = encoded(picture())
    with pytest.raises(FrameError, match="cannot be decoded"):
        decode(Frame(Jpeg(data[:200], name="p"), 0, 0), CropRegion(0, 0, 64, 64), SPEC)
