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
from edgepose.sources.images import (
    ImageSource,
    find_images,
    list_images,
    read_frames,
    read_image,
)
from edgepose.sources.synthetic import read_photograph
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
    write_video,
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


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_read_image_exif_orientation_of_other_formats(tmp_path: Path, suffix: str) -> None:
    """The EXIF orientation is applied in PNG, WebP and TIFF files too."""
    path = tmp_path / f"p{suffix}"
    PIL.Image.fromarray(quarters()).save(path, exif=_exif(6), lossless=True)
    assert_colours(read_image(path), [BLUE, RED, GREY, GREEN])


def _exif(orientation: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = orientation
    return exif


@pytest.mark.parametrize("compressed", [False, True])
def test_read_image_exif_in_text_of_png(tmp_path: Path, compressed: bool) -> None:
    """The EXIF orientation is applied if ImageMagick has written it as a text."""
    exif = b"Exif\0\0" + _exif(6).tobytes().removeprefix(b"Exif\0\0")
    text = f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()
    name = b"Raw profile type exif\0"
    chunk = (b"zTXt", name + b"\0" + zlib.compress(text)) if compressed else (b"tEXt", name + text)
    path = save(tmp_path / "p.png", quarters())
    path.write_bytes(_with_png_chunk(path.read_bytes(), _png_chunk(*chunk)))
    assert_colours(read_image(path), [BLUE, RED, GREY, GREEN])


def test_read_image_exif_behind_another_segment(tmp_path: Path) -> None:
    """The EXIF orientation is applied if XMP, also an APP1 segment, comes first."""
    path = save(tmp_path / "p.jpg", quarters())
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
    jpeg = _with_exif_orientation(path.read_bytes(), 6)
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + jpeg[2:])
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


_JPEGS = {
    "baseline": [],
    "restart markers": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
}


@pytest.mark.parametrize("kind", _JPEGS)
def test_read_image_jpeg_without_end_marker(tmp_path: Path, kind: str) -> None:
    """A whole image is read; one that lacks any of its last bytes is not."""
    path = tmp_path / "p.jpg"
    photograph = cv2.resize(read_photograph(), (120, 90), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), photograph, _JPEGS[kind])
    data = path.read_bytes()
    expected = read_image(path)
    for missing in (1, 2):
        path.write_bytes(data[:-missing])
        assert np.array_equal(read_image(path), expected)
    for missing in (*range(3, 100), 400, 800):
        path.write_bytes(data[:-missing])
        with pytest.raises(SourceError, match="the image is damaged or cut short"):
            read_image(path)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _with_png_chunk(png: bytes, chunk: bytes) -> bytes:
    """Return a PNG file with a chunk after its header."""
    return png[:33] + chunk + png[33:]


def _png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    chunks = _png_chunk(b"IHDR", header), _png_chunk(b"IDAT", body), _png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


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


_GIF_BOMB = bytes.fromhex(
    "4749463839618038 8038 800000 ffffff 000000 2c00000000803880380000 02 02 4401 003b"
)
"""35 bytes that declare 14464 x 14464 pixels."""


def test_read_image_small_file_of_many_pixels(tmp_path: Path) -> None:
    """A GIF of 35 bytes, a TIFF with one huge tile and a later frame that is huge are rejected."""
    gif, tile = tmp_path / "p.gif", tmp_path / "p.tif"
    gif.write_bytes(_GIF_BOMB)
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 20_000, 323: 20_000, 324: 0}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    tile.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4))
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in (gif, tile):
        with pytest.raises(SourceError, match="the image is too large"):
            read_image(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kb < 50_000


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
    for suffix in (".jpg", ".png", ".bmp", ".webp", ".gif", ".tif", ".ppm", ".ico"):
        path = tmp_path / f"p{suffix}"
        PIL.Image.fromarray(quarters()).save(path)
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
    """It raises SourceError and prints nothing, but does not matter in a text."""
    path = save(tmp_path / "p.png", quarters())
    whole = path.read_bytes()
    path.write_bytes(_with_png_chunk(whole, _png_chunk(b"tEXt", b"Title\0x")[:-1] + b"?"))
    assert_colours(read_image(path), [RED, GREEN, BLUE, GREY])
    path.write_bytes(whole)
    data = bytearray(path.read_bytes())
    data[50] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(SourceError, match="is damaged"):
        read_image(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_read_image_png_huge_metadata(tmp_path: Path, kind: bytes) -> None:
    """A text or colour profile that would take 50 MB is left out, the image is read."""
    path = save(tmp_path / "p.png", quarters())
    chunk = _png_chunk(kind, b"Title\0\0" + zlib.compress(bytes(50_000_000)))
    path.write_bytes(_with_png_chunk(path.read_bytes(), chunk))
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_colours(read_image(path), [RED, GREEN, BLUE, GREY])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kb < 20_000


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


def test_list_images_natural_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Numbers in names are sorted by value; other entries are logged, hidden ones are not."""
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
    assert "skipping files that are not images: 2 (folder.jpg, notes.txt)" in caplog.text


def test_list_images_by_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Images of any name are found; of many other files only the first are named."""
    save(tmp_path / "p.png", quarters()).rename(tmp_path / "10")
    save(tmp_path / "p.webp", quarters()).rename(tmp_path / "9.mp4")
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text("text")
    assert [path.name for path in list_images(tmp_path)] == ["9.mp4", "10"]
    assert "not images: 20 (0.txt, 1.txt, 2.txt, 3.txt, 4.txt, ...)" in caplog.text


@pytest.mark.parametrize(
    ("suffix", "name"),
    [
        (".jpg", "p.jfif"),
        (".jpg", "p.jpe"),
        (".jpg", "p"),
        (".png", "p.mp4"),
        (".tiff", "P.TIF"),
        (".bmp", "p.jpg"),
        (".webp", "p.data"),
        (".ppm", "p.ppm"),
    ],
)
def test_find_images_by_content(tmp_path: Path, suffix: str, name: str) -> None:
    """The content of a file decides that it is an image, not its name."""
    path = save(tmp_path / f"q{suffix}", quarters()).rename(tmp_path / name)
    assert find_images(path) == [path]
    assert_colours(read_image(path), [RED, GREEN, BLUE, GREY])


def test_find_images_video_with_the_name_of_an_image(tmp_path: Path) -> None:
    """A video, Motion JPEG included, is none; several versions of one photograph are."""
    video = write_video(tmp_path / "v.avi", numbered(3)).rename(tmp_path / "v.jpg")
    assert find_images(video) == []
    jpegs = [save(tmp_path / f"{k}.jpg", image) for k, image in enumerate(numbered(3))]
    mjpeg = tmp_path / "m.jpg"
    mjpeg.write_bytes(b"".join(path.read_bytes() for path in jpegs))
    assert find_images(mjpeg) == []
    with_preview = tmp_path / "p.jpg"
    with_preview.write_bytes(jpegs[0].read_bytes() + jpegs[1].read_bytes())
    assert find_images(with_preview) == [with_preview]
    mpo = save(tmp_path / "p.mpo.jpg", quarters()).rename(tmp_path / "p.mpo")
    first = mpo.read_bytes()
    index = b"\xff\xe2\0\x06MPF\0"
    mpo.write_bytes(first[:2] + index + first[2:] + mjpeg.read_bytes())
    assert find_images(mpo) == [mpo]
    assert_colours(read_image(mpo), [RED, GREEN, BLUE, GREY])


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0\0\0\x20ftypavif\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    ],
)
def test_read_image_unsupported_format(tmp_path: Path, start: bytes, kind: str) -> None:
    """The error names the format and the remedy."""
    path = tmp_path / "p.jpg"
    path.write_bytes(start + bytes(200))
    assert find_images(path) == [path]
    with pytest.raises(SourceError, match=f"in the format {kind}; convert it to JPEG or PNG"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_read_frames_animation(tmp_path: Path, suffix: str) -> None:
    """All frames are read with their durations; one without is shown for 0.1 s."""
    path = tmp_path / f"p{suffix}"
    colours = (RED, GREEN, BLUE)
    first, *others = [PIL.Image.new("RGB", (32, 24), colour) for colour in colours]
    first.save(path, save_all=True, append_images=others, duration=[50, 0, 250], lossless=True)
    frames = list(read_frames(path))
    assert [duration for _, duration in frames] == [50_000_000, 100_000_000, 250_000_000]
    for (image, _), colour in zip(frames, colours, strict=True):
        assert np.abs(image[12, 16].astype(int) - colour).max() <= 2


def test_read_frames_pages_of_tiff(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pages are not an animation: the first is read, and the log reports it."""
    path = tmp_path / "p.tif"
    first, second = (PIL.Image.fromarray(image) for image in (quarters(), quarters()[::-1]))
    first.save(path, save_all=True, append_images=[second])
    ((image, duration_ns),) = read_frames(path)
    assert_colours(image, [RED, GREEN, BLUE, GREY])
    assert duration_ns is None
    assert "only the first of several pages is used" in caplog.text


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
    assert all(frame.still for frame in frames)
    assert {b.timestamp_ns - a.timestamp_ns for a, b in pairwise(frames)} == {100_000_000}


def test_image_source_animation(tmp_path: Path) -> None:
    """It is a sequence with the times of its own frames, also if played in a loop."""
    path = tmp_path / "p.gif"
    first, *others = map(PIL.Image.fromarray, numbered(3))
    first.save(path, save_all=True, append_images=others, duration=[50, 200, 30])
    frames = list(islice(ImageSource([path], loop=True).frames(), 5))
    steps = [b.timestamp_ns - a.timestamp_ns for a, b in pairwise(frames)]
    assert steps == [50_000_000, 200_000_000, 30_000_000, 50_000_000]
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 0, 1]
    assert not any(frame.still for frame in frames)


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


def test_image_source_no_readable_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It raises SourceError, also in a loop; no image is logged each time it is opened again."""
    paths = _folder(tmp_path, 2)
    for path in paths:
        path.write_bytes(b"nonsense")
    with pytest.raises(SourceError, match="none of them can be read"):
        list(ImageSource(paths, loop=True).frames())
    assert caplog.text == ""


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
