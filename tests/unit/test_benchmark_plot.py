"""The plot of latency against mAP."""

import itertools
import sys
from pathlib import Path

import pytest

from edgepose.benchmark import plot
from edgepose.benchmark.plot import MEASURED, Point
from edgepose.errors import EdgeposeError, SinkError, SourceError
from edgepose.util.extras import require_extra
from tests.benchmark_documents import document, latency_row
from tests.requirements import missing


@pytest.fixture
def _matplotlib() -> None:
    try:
        require_extra("matplotlib", "plot", "--plot")
    except EdgeposeError as error:
        missing(str(error))


def test_points_measured_and_published(tmp_path: Path) -> None:
    rows = (
        latency_row(p50=95.0),
        latency_row(threads=4, p50=38.0),
        latency_row("posenet-mobilenet-fp32"),
        latency_row("movenet-multipose-fp16", map=50.0, map_protocol="single"),
        latency_row("movenet-multipose-int8"),
        latency_row("movenet-thunder-int8", latency_ms=None, rounds=None, not_run="no"),
    )
    bubbles = plot.points(document(tmp_path, latency=rows))
    # Each model at its fastest; PoseNet 0.75 has no mAP of its own, one MultiPose was not measured.
    assert [bubble for bubble in bubbles if bubble.series == MEASURED] == [
        Point(MEASURED, "movenet-lightning-int8", 38.0, 57.4, 2.939304),
        Point(MEASURED, "movenet-multipose-fp16", 95.0, 50.0, 2.939304),
    ]
    published = [bubble for bubble in bubbles if bubble.series != MEASURED]
    assert len(published) == 15
    assert (
        Point("Raspberry Pi 4 CPU (published)", "MoveNet.Thunder (FP16)", 594, 72.0, 12.6)
        in published
    )


@pytest.mark.usefixtures("_matplotlib")
@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_draw_png_and_svg(tmp_path: Path, suffix: str, begins: bytes) -> None:
    path = tmp_path / f"plot.{suffix}"
    plot.draw(document(tmp_path / "pi"), path)
    assert path.read_bytes().startswith(begins)


@pytest.mark.usefixtures("_matplotlib")
def test_draw_labels_do_not_overlap(tmp_path: Path) -> None:
    """Measured and published mAP can be close together, as INT8 and float files are."""
    names = ("movenet-lightning-int8", "movenet-lightning-fp16", "movenet-thunder-int8")
    rows = tuple(
        latency_row(name, p50=10.0 + index, map=57.2 + 0.1 * index, map_protocol="single")
        for index, name in enumerate((*names, "movenet-thunder-fp16", "movenet-multipose-fp16"))
    )
    figure = plot.figure_of(document(tmp_path, latency=rows))
    figure.draw_without_rendering()
    # The words alone: an annotation's own extent has its line too.
    from matplotlib.text import Text

    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    width, height = figure.canvas.get_width_height()
    assert len(boxes) == 10
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height


@pytest.mark.usefixtures("_matplotlib")
def test_draw_without_points(tmp_path: Path) -> None:
    rows = (latency_row("movenet-multipose-int8"),)
    with pytest.raises(SourceError, match="no model that ran has a published or measured mAP"):
        plot.draw(document(tmp_path, latency=rows), tmp_path / "x.png")


@pytest.mark.usefixtures("_matplotlib")
def test_draw_to_unwritable_file(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot write the plot"):
        plot.draw(document(tmp_path / "pi"), tmp_path / "none" / "x.png")


def test_require_extra_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EdgeposeError, match=r"pip install 'edgepose\[plot\]'"):
        require_extra("matplotlib", "plot", "--plot")
