"""Pictures: every kind in, one clear sentence for what is none."""

import contextlib
import os
import resource
import struct
import zlib
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.sources import images
from edgepose.sources.images import ImageSource, list_images, read_image
from tests.media import (
    BLUE,
    GREEN,
    GREY,
    RED,
    assert_colours,
    number_of,
    numbered,
    quarters,
    save,
)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".bmp", ".webp", ".JPG"])
def test_every_kind_is_read_as_rgb(tmp_path: Path, suffix: str) -> None:
    image = read_image(save(tmp_path / f"p{suffix}", quarters()))
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert_colours(image, [RED, GREEN, BLUE, GREY])


def test_grey_alpha_palette_and_16_bit_become_8_bit_colour(tmp_path: Path) -> None:
    grey, alpha, deep = (tmp_path / f"{name}.png" for name in ("grey", "alpha", "deep"))
    cv2.imwrite(str(grey), np.full((48, 64), 77, np.uint8))
    deep_grey = tmp_path / "deep_grey.png"
    cv2.imwrite(str(deep_grey), np.full((48, 64), 77 * 257, np.uint16))
    bgr = cv2.cvtColor(quarters(), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(alpha), np.dstack((bgr, np.full((48, 64), 10, np.uint8))))
    cv2.imwrite(str(deep), bgr.astype(np.uint16) * 257)
    assert read_image(grey).shape == (48, 64, 3)
    assert (read_image(grey) == 77).all()
    assert (read_image(deep_grey) == 77).all()
    for path in (alpha, deep):
        assert_colours(read_image(path), [RED, GREEN, BLUE, GREY], tolerance=1)


def _with_exif_orientation(jpeg: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0) + thumbnail
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [RED, GREEN, BLUE, GREY]),
        (2, [GREEN, RED, GREY, BLUE]),
        (3, [GREY, BLUE, GREEN, RED]),
        (4, [BLUE, GREY, RED, GREEN]),
        (5, [RED, BLUE, GREEN, GREY]),
        (6, [BLUE, RED, GREY, GREEN]),
        (7, [GREY, GREEN, BLUE, RED]),
        (8, [GREEN, GREY, RED, BLUE]),
    ],
)
def test_a_photograph_stands_upright_as_its_exif_data_says(
    tmp_path: Path, orientation: int, expected: list[tuple[int, int, int]]
) -> None:
    path = save(tmp_path / "p.jpg", quarters())
    path.write_bytes(_with_exif_orientation(path.read_bytes(), orientation))
    image = read_image(path)
    assert image.shape[:2] == ((48, 64) if orientation < 5 else (64, 48))
    assert_colours(image, expected)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9, 0.995])
def test_a_truncated_picture_is_an_error(tmp_path: Path, suffix: str, part: float) -> None:
    """OpenCV fills up what is missing of a JPEG with grey and says nothing."""
    rng = np.random.default_rng(3)
    path = save(tmp_path / f"p{suffix}", rng.integers(0, 255, (64, 80, 3), np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(SourceError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "p.jpg", quarters(640, 480))
    thumbnail = save(tmp_path / "t.jpg", quarters()).read_bytes()
    data = _with_exif_orientation(path.read_bytes(), 1, thumbnail)
    path.write_bytes(data)
    assert read_image(path).shape == (480, 640, 3)
    path.write_bytes(data[:-100])
    with pytest.raises(SourceError, match="cut short"):
        read_image(path)


def test_bytes_after_the_end_are_ignored(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png", ".bmp", ".webp"):
        path = save(tmp_path / f"p{suffix}", quarters())
        path.write_bytes(path.read_bytes() + b"trailing")
        assert_colours(read_image(path), [RED, GREEN, BLUE, GREY])


def test_a_progressive_jpeg_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.jpg"
    bgr = cv2.cvtColor(quarters(), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2])
    assert_colours(read_image(path), [RED, GREEN, BLUE, GREY])


def _png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "webp"])
def test_a_picture_that_claims_gigabytes_is_refused_before_decoding(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / f"p.{kind}", quarters())
    data = bytearray(path.read_bytes())
    match kind:
        case "png":
            data[:] = _png_claiming(30000, 30000)
        case "jpg":
            at = data.index(b"\xff\xc0")
            data[at + 5 : at + 9] = struct.pack(">HH", 30000, 30000)
        case "bmp":
            data[18:26] = struct.pack("<ii", 30000, -30000)
        case _:
            assert data[12:16] == b"VP8L"
            data[21:25] = struct.pack("<I", 16383 | 16383 << 14)
    path.write_bytes(data)
    monkeypatch.setattr(images, "_to_rgb", lambda *_: pytest.fail("decoded"))
    with pytest.raises(SourceError, match="the image is too large"):
        read_image(path)


@pytest.mark.parametrize("kind", ["VP8 ", "VP8L", "VP8X"])
def test_the_size_is_found_in_every_sort_of_webp(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.webp"
    quality = 101 if kind == "VP8L" else 80
    cv2.imwrite(str(path), quarters(90, 50), [cv2.IMWRITE_WEBP_QUALITY, quality])
    data = path.read_bytes()
    if kind == "VP8X":
        size = (89).to_bytes(3, "little") + (49).to_bytes(3, "little")
        body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + size + data[12:]
        data = b"RIFF" + struct.pack("<I", len(body)) + body
        path.write_bytes(data)
    assert data[12:16] == kind.encode()
    assert read_image(path).shape == (50, 90, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 90 * 50 - 1)
    with pytest.raises(SourceError, match="90x50 pixels"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"hello, this is text\n" * 50, "another kind or damaged"),
        (b"%PDF-1.7" + bytes(500), "another kind or damaged"),
        (b"\xff\xd8\xff", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"BM", "damaged"),
        (b"RIFF\0\0\0\0WEBPVP8X", "damaged"),
        (b"RIFF\0\0\0\0WEBPNONE", "another kind or damaged"),
    ],
)
def test_what_is_no_picture_is_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "p.jpg"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=says):
        read_image(path)


def test_damage_in_the_middle_never_is_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A damaged size is mostly a huge one, and decoding that only takes long.
    monkeypatch.setattr(images, "MAX_PIXELS", 1_000_000)
    rng = np.random.default_rng(5)
    for suffix in (".jpg", ".png", ".bmp", ".webp"):
        path = save(tmp_path / f"p{suffix}", quarters())
        clean = path.read_bytes()
        for _ in range(60):
            data = bytearray(clean)
            for at in rng.integers(0, len(data), 6):
                data[at] = rng.integers(0, 256)
            path.write_bytes(data)
            try:
                image = read_image(path)
            except SourceError:
                continue
            assert image.ndim == 3


def test_read_image_png_with_huge_chunk_length(tmp_path: Path) -> None:
    """No memory is allocated for what a damaged chunk header declares."""
    path = save(tmp_path / "p.png", quarters())
    data = bytearray(path.read_bytes())
    data[33:37] = struct.pack(">I", 0x7FFFFFFF)
    path.write_bytes(data)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(SourceError):
        assert read_image(path).shape == (48, 64, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kb < 100_000


def test_a_png_whose_check_sum_is_wrong_is_damaged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "p.png", quarters())
    data = bytearray(path.read_bytes())
    data[50] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(SourceError, match="is damaged"):
        read_image(path)
    assert capfd.readouterr() == ("", "")


def test_missing_and_strange_files(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="no such file"):
        read_image(tmp_path / "none.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(SourceError, match="not a file"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(SourceError, match="not a file"):
        read_image(tmp_path)


def test_a_file_larger_than_any_picture_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.jpg"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(SourceError, match="file is too large"):
        read_image(path)


def test_a_folder_is_listed_as_people_count(tmp_path: Path) -> None:
    for name in (
        "10.jpg",
        "2.jpg",
        "1.PNG",
        "b2a10.webp",
        "b2a9.webp",
        "notes.txt",
        "._2.jpg",
    ):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in list_images(tmp_path)] == [
        "1.PNG",
        "2.jpg",
        "10.jpg",
        "b2a9.webp",
        "b2a10.webp",
    ]


@pytest.mark.parametrize("listed", [["2.jpg", "02.jpg"], ["02.jpg", "2.jpg"]])
def test_names_of_one_number_do_not_depend_on_how_the_folder_lists_them(
    tmp_path: Path, listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in listed]
    for path in paths:
        path.touch()
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(paths))
    assert [path.name for path in list_images(tmp_path)] == ["02.jpg", "2.jpg"]


def test_a_folder_without_pictures_or_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceNotFoundError, match="the folder has none"):
        list_images(tmp_path)
    with pytest.raises(SourceNotFoundError, match="no such folder"):
        list_images(tmp_path / "none")
    with pytest.raises(SourceError, match="cannot list"):
        list_images(tmp_path / "notes.txt")


def _folder(tmp_path: Path, count: int) -> list[Path]:
    return [save(tmp_path / f"{k}.png", image) for k, image in enumerate(numbered(count))]


def test_pictures_are_played_in_order_with_their_paths(tmp_path: Path) -> None:
    paths = _folder(tmp_path, 12)
    with ImageSource(list_images(tmp_path), fps=10) as source:
        frames = list(source.frames())
    assert [number_of(frame.image) for frame in frames] == list(range(12))
    assert [frame.path for frame in frames] == [str(path) for path in paths]
    assert {b.timestamp_ns - a.timestamp_ns for a, b in pairwise(frames)} == {100_000_000}


def test_a_loop_goes_on_counting(tmp_path: Path) -> None:
    with ImageSource(_folder(tmp_path, 3), loop=True) as source:
        frames = list(islice(source.frames(), 7))
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 0, 1, 2, 0]
    assert [frame.sequence for frame in frames] == list(range(7))


def test_one_bad_picture_of_many_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = _folder(tmp_path, 3)
    paths[1].write_bytes(b"nonsense")
    with ImageSource(paths, loop=True) as source:
        frames = list(islice(source.frames(), 4))
    assert [number_of(frame.image) for frame in frames] == [0, 2, 0, 2]
    assert [frame.sequence for frame in frames] == [0, 1, 2, 3]
    assert caplog.text.count(str(paths[1])) == 1


def test_only_bad_pictures_are_an_error_even_in_a_loop(tmp_path: Path) -> None:
    paths = _folder(tmp_path, 2)
    for path in paths:
        path.write_bytes(b"nonsense")
    with (
        ImageSource(paths, loop=True) as source,
        pytest.raises(SourceError, match="none of them can be read"),
    ):
        list(source.frames())


def test_the_only_picture_being_bad_is_an_error(tmp_path: Path) -> None:
    with (
        ImageSource([tmp_path / "none.jpg"], loop=True) as source,
        pytest.raises(SourceNotFoundError),
    ):
        list(source.frames())


def test_real_time_paces_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns, slept = [1_000_000_000], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now_ns[0] += round(seconds * 1e9)

    monkeypatch.setattr("edgepose.sources._base.boottime_ns", lambda: now_ns[0])
    monkeypatch.setattr("time.sleep", sleep)
    with ImageSource(_folder(tmp_path, 3), fps=4, realtime=True) as source:
        frames = list(source.frames())
    assert slept == [0.25, 0.25]
    assert frames[2].timestamp_ns == 1_500_000_000


def test_the_astronaut_is_the_right_way_round(shared_data: Path) -> None:
    image = read_image(shared_data / "stills" / "astronaut.png")
    assert image.shape == (512, 512, 3)
    red, _, blue = image[330:400, 200:260].reshape(-1, 3).mean(axis=0)
    assert red > blue + 40, "the suit is orange"
