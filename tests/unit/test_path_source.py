"""PathSource: a folder, an image or a video, found out when it is opened."""

import errno
import os
from pathlib import Path

import pytest

from edgepose.build import PathSource, source_opener
from edgepose.config.schema import CameraConfig
from edgepose.errors import SourceError, SourceNotFoundError, UsageError
from tests.media import number_of, numbered, save, write_video


def test_path_source_folder_image_and_video(tmp_path: Path) -> None:
    images = [save(tmp_path / f"{k}.png", image) for k, image in enumerate(numbered(3))]
    video = write_video(tmp_path / "clip.jpg.avi", numbered(4)).rename(tmp_path / "clip")
    assert [number_of(f.image) for f in PathSource(images[2]).frames()] == [2]
    frames = list(PathSource(video).frames())
    assert [(number_of(f.image), f.still) for f in frames] == [(k, False) for k in range(4)]
    video.unlink()
    folder = list(PathSource(tmp_path, fps=4).frames())
    assert [(number_of(f.image), f.still) for f in folder] == [(k, True) for k in range(3)]
    assert folder[2].timestamp_ns - folder[0].timestamp_ns == 500_000_000


def test_path_source_motion_jpeg_as_from_a_camera(tmp_path: Path) -> None:
    """Images one after the other in one file, as `rpicam-vid --codec mjpeg` writes, are a video."""
    images = [save(tmp_path / f"{k}.jpg", image) for k, image in enumerate(numbered(6))]
    recording = tmp_path / "recording.mjpeg"
    recording.write_bytes(b"".join(image.read_bytes() for image in images))
    frames = list(PathSource(recording).frames())
    assert [(number_of(f.image), f.still) for f in frames] == [(k, False) for k in range(6)]


def test_source_opener_options_that_a_file_cannot_fulfil() -> None:
    """They are refused before anything is opened."""
    with pytest.raises(UsageError, match=r"height is set, but the source clip\.mp4 has no such"):
        source_opener(CameraConfig(source="clip.mp4?width=640&height=480"))


def test_path_source_folder_that_is_filled_later(tmp_path: Path) -> None:
    """An empty or missing folder is an error of its frames, and fine once it has images."""
    source = PathSource(tmp_path / "stick")
    with pytest.raises(SourceNotFoundError, match="no such file"):
        next(source.frames())
    source.path.mkdir()
    with pytest.raises(SourceNotFoundError, match=r"expected images .*, the folder has none"):
        next(source.frames())
    save(source.path / "1.png", numbered(2)[1])
    assert number_of(next(source.frames()).image) == 1


@pytest.mark.parametrize("name", ["stick", "stick/clip.mp4"])
def test_path_source_folder_that_cannot_be_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its frames raise SourceError, with the path and the reason."""
    folder = tmp_path / "stick"
    folder.mkdir()
    real_stat = os.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if str(path) == str(folder):
            return real_stat(path, **options)
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse_listing)
    monkeypatch.setattr(os, "stat", refuse)
    source = PathSource(tmp_path / name)
    with pytest.raises(SourceError, match=f"{name}: cannot .*: Permission denied"):
        next(source.frames())


def refuse_listing(folder: Path) -> list[Path]:
    raise PermissionError(errno.EACCES, "Permission denied", str(folder))
