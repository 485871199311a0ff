"""The report page: the same cells as the table, everything escaped, and the plot."""

import dataclasses
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgepose.benchmark import compare, html_page, render, svg_plot, tables
from edgepose.benchmark.results import Document
from tests.benchmark_documents import accuracy_row, document, latency_row, pipeline_row

VOID = ("meta", "link")
HOSTILE = "<script>alert(1)</script>\"'&<img src=//example.org/x>"


class Elements(HTMLParser):
    """The tags of a page, with their attributes, and the texts of its elements by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self.texts.append((tag, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            tag, text = self.texts.pop()
            self.texts.append((tag, text + data))

    def of(self, *tags: str) -> list[str]:
        """Return the texts of all elements with these tags."""
        return [text for tag, text in self.texts if tag in tags]


def whole(folder: Path, **others: object) -> Document:
    """Return a document with every table."""
    given = {
        "accuracy": (accuracy_row(),),
        "pipeline": (pipeline_row(unstable=("the machine was busy",)),),
    }
    return document(folder, **{**given, **others})


def requested(page: Elements) -> Iterator[str]:
    """Yield what a browser would load."""
    for tag, attributes in page.tags:
        for name in ("src", "href", "data", "action", "srcset"):
            if attributes.get(name) is not None:
                yield f"{tag} {attributes[name]}"


def test_page_cells_of_the_tables(tmp_path: Path) -> None:
    written = whole(tmp_path)
    page = Elements(render.rendered(written, "html"))
    report = tables.report(written)
    cells = [cell for table in report.tables for row in (table.titles, *table.rows) for cell in row]
    assert page.of("td", "th") == cells
    assert page.of("h2") == [
        *("warnings", "models", "latency", "single", "pipeline", "notes"),
    ]
    assert page.of("dt") == list(report.facts)
    assert page.of("dd") == list(report.facts.values())
    items = page.of("li")
    for text in ("A note.", "A warning.", "movenet-lightning-int8: the machine was busy"):
        assert text in items


def test_page_loads_nothing(tmp_path: Path) -> None:
    """Neither scripts nor anything that is requested, which the policy of the page forbids too."""
    text = render.rendered(whole(tmp_path), "html")
    page = Elements(text)
    assert {tag for tag, _ in page.tags} & {"script", "iframe", "object", "img", "form"} == set()
    assert list(requested(page)) == ["link data:,"]
    assert re.findall(r"url\(|@import|https?:", text) == []
    (policy,) = (at["content"] for tag, at in page.tags if at.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_page_escapes_everything(tmp_path: Path) -> None:
    """Results come from other machines: no text of a file becomes an element."""
    row = latency_row(map=50.0, map_protocol=HOSTILE, model=HOSTILE, backend=HOSTILE)
    refused = latency_row(latency_ms=None, rounds=None, not_run=HOSTILE)
    written = whole(
        tmp_path,
        created_at=HOSTILE,
        machine=dataclasses.replace(document(tmp_path / "pi").machine, name=HOSTILE, cpu=HOSTILE),
        latency=(row, refused),
        accuracy=(accuracy_row(HOSTILE, about=HOSTILE, protocol=HOSTILE),),
        pipeline=(pipeline_row(HOSTILE, unstable=(HOSTILE,), broker=HOSTILE),),
        notes=(HOSTILE,),
        warnings=(HOSTILE,),
    )
    other = document(tmp_path / "other")
    comparison = compare.rendered(compare.compare(written, other, HOSTILE), "html")
    for text in (render.rendered(written, "html"), comparison):
        assert "<script" not in text
        assert "<img" not in text
        page = Elements(text)
        assert list(requested(page)) == ["link data:,"]
        # The elements are those of a page without such names.
        assert {tag for tag, _ in page.tags} <= {
            *("html", "head", "meta", "link", "title", "style", "body", "header", "main"),
            *("h1", "h2", "dl", "dt", "dd", "section", "p", "div", "ul", "li", "table", "thead"),
            *("tbody", "tr", "th", "td", "figure", "figcaption", "svg", "path", "text", "circle"),
        }
        assert any(HOSTILE in cell for cell in page.of("td", "th", "dd"))


def test_page_of_comparison(tmp_path: Path) -> None:
    a, b = document(tmp_path / "a"), document(tmp_path / "b", latency=(latency_row(p50=50.0),))
    page = Elements(compare.rendered(compare.compare(a, b, "a.json", "b.json"), "html"))
    assert page.of("h2") == ["figures", "only in A"]
    assert page.of("dt") == ["A", "B"]
    row = page.of("td", "th")[6:12]
    assert row == [
        *("movenet-lightning-int8, litert, 1T", "p50_ms", "95", "50"),
        *("0.526 [0.526, 0.526]", "faster"),
    ]


def test_page_without_tables() -> None:
    page = Elements(html_page.page(tables.Report("nothing", {}, ())))
    assert page.of("h1") == ["nothing"]
    assert page.of("h2", "li", "td") == []


def test_figure_positions(tmp_path: Path) -> None:
    """Ten times the latency is the same distance everywhere, and a higher mAP is further up."""
    rows = tuple(
        latency_row(name, p50=p50, map=value, map_protocol="single")
        for name, p50, value in (("a", 10.0, 50.0), ("b", 100.0, 60.0), ("c", 1000.0, 60.0))
    )
    page = Elements(svg_plot.figure(document(tmp_path, latency=rows)))
    a, b, c = (
        (float(at["cx"] or 0), float(at["cy"] or 0))
        for tag, at in page.tags
        if tag == "circle" and at["class"] == "here"
    )
    assert b[0] - a[0] == pytest.approx(c[0] - b[0], abs=0.1)
    assert a[1] > b[1] == c[1]
    assert len([tag for tag, _ in page.tags if tag == "circle"]) == 3 + 15
    for tag, at in page.tags:
        if tag in ("circle", "text"):
            x, y = float(at.get("cx") or at["x"] or 0), float(at.get("cy") or at["y"] or 0)
            assert 0 < x < svg_plot.WIDTH
            assert 0 < y < svg_plot.HEIGHT
    assert page.of("li")[:2] == ["A: a, 10.0 ms, 2.9 MB", "B: b, 100 ms, 2.9 MB"]
    assert "1: MoveNet.Thunder (FP16)" in page.of("li")


def test_figure_names_apart(tmp_path: Path) -> None:
    """The letters of two files of one model with nearly the same latency do not overlap."""
    names = ("movenet-lightning-int8", "movenet-lightning-int8-official")
    rows = tuple(latency_row(name, p50=2.0 + index / 50) for index, name in enumerate(names))
    text = svg_plot.figure(document(tmp_path, latency=rows))
    (xa, ya), (xb, yb) = (
        (float(x), float(y))
        for x, y in re.findall(r'class="name" x="([\d.]+)" y="([\d.]+)">[AB]<', text)
    )
    assert abs(xa - xb) >= 9 or abs(ya - yb) >= 11


def test_figure_without_measured_map(tmp_path: Path) -> None:
    rows = (latency_row("movenet-multipose-int8"),)
    assert svg_plot.figure(document(tmp_path, latency=rows)) == ""
