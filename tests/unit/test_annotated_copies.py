"""AnnotatedCopies: which files it writes, and which it never does."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from edgepose.cli._annotate import AnnotatedCopies
from edgepose.config.people import ZoneConfig
from edgepose.datatypes import Frame
from edgepose.errors import SourceError
from edgepose.imaging.draw import draw_zones
from edgepose.pipeline import FrameResult
from tests.fakes.pipeline import FakePoseModel, PipelineRig
from tests.media import quarters, save


def result_of(path: Path, sequence: int = 0) -> FrameResult:
    """Return what the pipeline makes of an image file; the poses are fakes."""
    pipeline = PipelineRig(FakePoseModel(0.6, 0.0, crops=False)).pipeline
    return pipeline.process(Frame(quarters(), 1, sequence, path=str(path)))


def annotate(
    folder: Path, paths: Sequence[Path], inputs: Sequence[Path] = (), subfolder: str = ""
) -> set[str]:
    """Write a copy of each path into a folder and return the files in it."""
    folder.mkdir(exist_ok=True)
    copies = AnnotatedCopies(folder, inputs or paths, 0.0)
    for path in paths:
        copies.write(result_of(path), subfolder, None)
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def contents(*paths: Path) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def test_annotated_copy_is_an_image_with_the_poses(tmp_path: Path) -> None:
    path = save(tmp_path / "1.png", quarters())
    assert annotate(tmp_path / "out", [path]) == {"1.jpg"}
    with PIL.Image.open(tmp_path / "out" / "1.jpg") as copy:
        difference = np.abs(np.asarray(copy).astype(int) - quarters())
    assert difference.max() > 100


def test_annotated_copy_shows_the_zones() -> None:
    """The outlines are where the corners are, and a cross is where a person is."""
    black = np.zeros((200, 300, 3), np.uint8)
    zones = {"door": ((0.1, 0.2), (0.5, 0.2), (0.5, 0.9), (0.1, 0.9))}
    drawn = draw_zones(black, zones, [])
    assert not black.any()
    rows, columns = np.nonzero(drawn.max(axis=2) > 200)
    assert [int(columns.min()), int(columns.max())] == [30, 150]
    assert [int(rows.min()), int(rows.max())] == [40, 180]
    inside = drawn[45:170, 35:140]
    assert 0 < np.count_nonzero(inside) < 0.1 * inside.size, "a label, and nothing else"
    rows, columns = np.nonzero(draw_zones(black, {}, [(200.0, 100.0)]).max(axis=2))
    assert (round(columns.mean()), round(rows.mean())) == (200, 100)


def test_annotated_copy_has_the_zones_of_the_configuration(tmp_path: Path) -> None:
    """With what an excluded zone is for."""
    path = save(tmp_path / "1.png", quarters())
    corners = ((0.1, 0.2), (0.9, 0.2), (0.9, 0.9), (0.1, 0.9))
    copies = []
    for exclude in (None, "none", "all"):
        zones = [] if exclude is None else [ZoneConfig(name="a", polygon=corners, exclude=exclude)]
        folder = tmp_path / f"{exclude}"
        AnnotatedCopies(folder, [path], 0.0, zones).write(result_of(path), "", None)
        copies.append((folder / "1.jpg").read_bytes())
    assert len(set(copies)) == 3


def test_annotated_copies_in_the_folder_of_the_inputs(tmp_path: Path) -> None:
    """No file that is there is overwritten: an input, one with its stem, nor an earlier copy."""
    one, two, unrelated = (
        save(tmp_path / name, quarters()) for name in ("1.jpg", "2.png", "2.jpg")
    )
    before = contents(one, two, unrelated)
    expected = {"1.jpg", "2.png", "2.jpg", "1.jpg.jpg", "2.png.jpg"}
    assert annotate(tmp_path, [one, two]) == expected
    assert annotate(tmp_path, [one, two]) == expected | {"1.jpg-2.jpg", "2.png-2.jpg"}
    assert contents(one, two, unrelated) == before


def test_annotated_copies_of_inputs_of_one_name(tmp_path: Path) -> None:
    """There is one copy for each input, also on a disk that ignores upper and lower case."""
    paths = [tmp_path / name for name in ("a/p.jpg", "a/p.png", "b/p.jpg", "b/P.JPG", "c/p.jpg")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        save(path, quarters())
    names = annotate(tmp_path / "out", paths)
    assert names == {"p.jpg", "p.png.jpg", "p.jpg.jpg", "P.JPG-2.jpg", "p.jpg-3.jpg"}
    assert len({name.lower() for name in names}) == len(paths)


def test_annotated_copies_over_those_of_an_earlier_run(tmp_path: Path) -> None:
    """They are replaced."""
    path = save(tmp_path / "1.png", quarters())
    out = tmp_path / "out"
    annotate(out, [path])
    first = contents(out / "1.jpg")
    (out / "1.jpg").write_bytes(b"old")
    assert annotate(out, [path]) == {"1.jpg"}
    assert contents(out / "1.jpg") == first


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_annotated_copy_not_through_a_link_to_an_input(tmp_path: Path, link: object) -> None:
    """A link in the folder stays, and what it leads to."""
    assert callable(link)
    path = save(tmp_path / "1.jpg", quarters())
    before = path.read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    link(path, out / "1.jpg")
    assert annotate(out, [path]) == {"1.jpg", "1.jpg.jpg"}
    assert contents(path, out / "1.jpg") == [before, before]


def test_annotated_copy_in_the_folder_behind_a_linked_input(tmp_path: Path) -> None:
    """An input that is a link, or in a folder of links, leads to a file that is kept."""
    originals, links = tmp_path / "originals", tmp_path / "links"
    originals.mkdir()
    links.mkdir()
    path = save(originals / "1.jpg", quarters())
    before = path.read_bytes()
    (links / "1.jpg").symlink_to(path)
    for inputs in ([links / "1.jpg"], [links]):
        annotate(originals, [links / "1.jpg"], inputs)
        assert path.read_bytes() == before


def test_annotated_copies_of_a_video(tmp_path: Path) -> None:
    """Frames are numbered; two videos of one stem, or an image of such a name, do not mix."""
    clips = [tmp_path / "clip.mp4", tmp_path / "clip.avi"]
    out = tmp_path / "out"
    out.mkdir()
    copies = AnnotatedCopies(out, clips, 0.0)
    copies.write(result_of(tmp_path / "clip-000001.png"), "", None)
    for clip in clips:
        for number in range(2):
            copies.write(result_of(clip, number), "", number)
    assert sorted(file.name for file in out.iterdir()) == [
        "clip-000000.jpg",
        "clip-000001.jpg",
        "clip.avi-000000.jpg",
        "clip.avi-000001.jpg",
        "clip.mp4-000001.jpg",
    ]


def test_annotated_copy_that_cannot_be_written(tmp_path: Path) -> None:
    """It raises SourceError with the path and the reason."""
    path = save(tmp_path / "1.png", quarters())
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SourceError, match=r"out/sub.*: the annotated image cannot be written: .+"):
        AnnotatedCopies(tmp_path / "out", [path], 0.0).write(result_of(path), "sub", None)
