"""read_image, list_images and ImageSource."""

import contextlib
import os
import resource
import struct
import zlib
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
import pytest

import edgepose
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
def test_read_image_every_format(tmp_path: Path, suffix: str) -> None:
    """Every supported format is read as contiguous uint8 RGB."""
    image = read_image(save(tmp_path / f"p{suffix}", quarters()))
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert_colours(image, [RED, GREEN, BLUE, GREY])


def test_read_image_grey_alpha_and_16_bit(tmp_path: Path) -> None:
    """They are read as 8-bit RGB; 16-bit values are scaled, not clipped."""
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
def test_read_image_exif_orientation(
    tmp_path: Path, orientation: int, expected: list[tuple[int, int, int]]
) -> None:
    """The EXIF orientation is applied."""
    path = save(tmp_path / "p.jpg", quarters())
    path.write_bytes(_with_exif_orientation(path.read_bytes(), orientation))
    image = read_image(path)
    assert image.shape[:2] == ((48, 64) if orientation < 5 else (64, 48))
    assert_colours(image, expected)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_read_image_exif_orientation_of_other_formats(tmp_path: Path, suffix: str) -> None:
    """The EXIF orientation is applied in PNG and WebP files too."""
    path = tmp_path / f"p{suffix}"
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = 6
    PIL.Image.fromarray(quarters()).save(path, exif=exif, lossless=True)
    assert_colours(read_image(path), [BLUE, RED, GREY, GREEN])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9, 0.995])
def test_read_image_truncated_file(tmp_path: Path, suffix: str, part: float) -> None:
    """A truncated file raises SourceError, instead of an image filled up with grey."""
    rng = np.random.default_rng(3)
    path = save(tmp_path / f"p{suffix}", rng.integers(0, 255, (64, 80, 3), np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(SourceError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_read_image_truncated_after_thumbnail(tmp_path: Path) -> None:
    """The end marker of an EXIF thumbnail does not count as that of the image."""
    path = save(tmp_path / "p.jpg", quarters(640, 480))
    thumbnail = save(tmp_path / "t.jpg", quarters()).read_bytes()
    data = _with_exif_orientation(path.read_bytes(), 1, thumbnail)
    path.write_bytes(data)
    assert read_image(path).shape == (480, 640, 3)
    path.write_bytes(data[:-100])
    with pytest.raises(SourceError, match="cut short"):
        read_image(path)


def test_read_image_trailing_bytes(tmp_path: Path) -> None:
    """Bytes after the end of the image are ignored."""
    for suffix in (".jpg", ".png", ".bmp", ".webp"):
        path = save(tmp_path / f"p{suffix}", quarters())
        path.write_bytes(path.read_bytes() + b"trailing")
        assert_colours(read_image(path), [RED, GREEN, BLUE, GREY])


def test_read_image_progressive_jpeg(tmp_path: Path) -> None:
    """A progressive JPEG with restart markers is read."""
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
def test_read_image_huge_declared_size(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that declares too many pixels is rejected before it is decoded."""
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
    monkeypatch.setattr(PIL.ImageOps, "exif_transpose", lambda *_: pytest.fail("decoded"))
    with pytest.raises(SourceError, match="the image is too large"):
        read_image(path)


@pytest.mark.parametrize("kind", ["VP8 ", "VP8L", "VP8X"])
def test_read_image_webp_variants(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lossy, lossless and extended WebP files are read, and their size is checked."""
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
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 90 * 50 - 1)
    with pytest.raises(SourceError, match="the image is too large"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "message"),
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
def test_read_image_invalid_content(tmp_path: Path, content: bytes, message: str) -> None:
    """Anything that is not an image raises SourceError with the reason."""
    path = tmp_path / "p.jpg"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read_image(path)


def test_read_image_random_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A damaged size is mostly a huge one, and decoding that only takes long.
    """Randomly damaged files give an image or SourceError, no other exception."""
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1_000_000)
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


def test_read_image_png_huge_chunk_length(tmp_path: Path) -> None:
    """No memory is allocated for what a damaged chunk header declares."""
    path = save(tmp_path / "p.png", quarters())
    data = bytearray(path.read_bytes())
    data[33:37] = struct.pack(">I", 0x7FFFFFFF)
    path.write_bytes(data)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(SourceError):
        assert read_image(path).shape == (48, 64, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kb < 100_000


def test_read_image_png_wrong_checksum(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It raises SourceError and prints nothing."""
    path = save(tmp_path / "p.png", quarters())
    data = bytearray(path.read_bytes())
    data[50] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(SourceError, match="is damaged"):
        read_image(path)
    assert capfd.readouterr() == ("", "")


def test_read_image_missing_file_and_pipe(tmp_path: Path) -> None:
    """A missing file, a pipe and a folder raise SourceError; the pipe is not opened."""
    with pytest.raises(SourceNotFoundError, match="no such file"):
        read_image(tmp_path / "none.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(SourceError, match="not a file"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(SourceError, match="not a file"):
        read_image(tmp_path)


def test_read_image_file_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of more than MAX_BYTES is not read."""
    path = tmp_path / "p.jpg"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(SourceError, match="file is too large"):
        read_image(path)


def test_list_images_natural_order(tmp_path: Path) -> None:
    """Numbers in names are sorted by value; other files and hidden ones are left out."""
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
def test_list_images_equal_numbers(
    tmp_path: Path, listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order does not depend on that of the folder's entries."""
    paths = [tmp_path / name for name in listed]
    for path in paths:
        path.touch()
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(paths))
    assert [path.name for path in list_images(tmp_path)] == ["02.jpg", "2.jpg"]


def test_list_images_empty_or_missing_folder(tmp_path: Path) -> None:
    """A folder without images, a missing folder and a file raise SourceError."""
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceNotFoundError, match="the folder has none"):
        list_images(tmp_path)
    with pytest.raises(SourceNotFoundError, match="no such folder"):
        list_images(tmp_path / "none")
    with pytest.raises(SourceError, match="cannot list"):
        list_images(tmp_path / "notes.txt")


def _folder(tmp_path: Path, count: int) -> list[Path]:
    return [save(tmp_path / f"{k}.png", image) for k, image in enumerate(numbered(count))]


def test_image_source_plays_in_order(tmp_path: Path) -> None:
    """Frames carry their paths, `1 / fps` apart."""
    paths = _folder(tmp_path, 12)
    frames = list(ImageSource(list_images(tmp_path), fps=10).frames())
    assert [number_of(frame.image) for frame in frames] == list(range(12))
    assert [frame.path for frame in frames] == [str(path) for path in paths]
    assert {b.timestamp_ns - a.timestamp_ns for a, b in pairwise(frames)} == {100_000_000}


def test_image_source_loop(tmp_path: Path) -> None:
    """The sequence numbers continue in the next pass."""
    frames = list(islice(ImageSource(_folder(tmp_path, 3), loop=True).frames(), 7))
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 0, 1, 2, 0]
    assert [frame.sequence for frame in frames] == list(range(7))


def test_image_source_one_unreadable_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once and skipped."""
    paths = _folder(tmp_path, 3)
    paths[1].write_bytes(b"nonsense")
    frames = list(islice(ImageSource(paths, loop=True).frames(), 4))
    assert [number_of(frame.image) for frame in frames] == [0, 2, 0, 2]
    assert [frame.sequence for frame in frames] == [0, 1, 2, 3]
    assert caplog.text.count(str(paths[1])) == 1


def test_image_source_no_readable_image(tmp_path: Path) -> None:
    """It raises SourceError, also in a loop."""
    paths = _folder(tmp_path, 2)
    for path in paths:
        path.write_bytes(b"nonsense")
    with pytest.raises(SourceError, match="none of them can be read"):
        list(ImageSource(paths, loop=True).frames())


def test_image_source_single_missing_image(tmp_path: Path) -> None:
    """It raises SourceNotFoundError."""
    with pytest.raises(SourceNotFoundError):
        list(ImageSource([tmp_path / "none.jpg"], loop=True).frames())


def test_image_source_realtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are paced by the clock."""
    now_ns, slept = [1_000_000_000], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now_ns[0] += round(seconds * 1e9)

    monkeypatch.setattr("edgepose.sources._base.boottime_ns", lambda: now_ns[0])
    monkeypatch.setattr("time.sleep", sleep)
    frames = list(ImageSource(_folder(tmp_path, 3), fps=4, realtime=True).frames())
    assert slept == [0.25, 0.25]
    assert frames[2].timestamp_ns == 1_500_000_000


def test_read_image_photograph_colours() -> None:
    """The channels of a photograph are in RGB order."""
    image = read_image(Path(edgepose.__file__).parent / "assets" / "astronaut.jpg")
    assert image.shape == (512, 512, 3)
    red, _, blue = image[330:400, 200:260].reshape(-1, 3).mean(axis=0)
    assert red > blue + 40, "the suit is orange"
