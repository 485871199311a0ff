"""The report pages of `edgepose benchmark` in a real Chromium, on a desktop and on a phone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.selenium import Axe

from edgepose.benchmark import compare, render
from edgepose.benchmark.reference_table import PUBLISHED_BEFORE
from edgepose.benchmark.results import read
from edgepose.cli.main import run_command
from tests.benchmark_documents import accuracy_row, document, latency_row, pipeline_row
from tests.browser import Browser

COMMITTED = Path(__file__).parents[2] / "docs/results/x86-64-epyc-2-cores.json"
MODELS = (
    *("movenet-lightning-int8", "movenet-lightning-fp16", "movenet-thunder-int8"),
    *("posenet-mobilenet-fp32", "posenet-mobilenet-untrained", "movenet-multipose-int8"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return pages by name: a document with everything, a committed one, and both compared."""
    folder = tmp_path_factory.mktemp("pages")
    rows = tuple(
        latency_row(name, backend, threads, p50=100.0 * threads, unstable=("hot",))
        for backend in ("litert", "litert-without-xnnpack", "tflite-runtime")
        for threads in (1, 4)
        for name in MODELS
    )
    everything = document(
        folder / "pi",
        latency=rows,
        accuracy=(accuracy_row(),),
        pipeline=(pipeline_row(),),
        published_before=PUBLISHED_BEFORE,
    )
    committed = read(COMMITTED)
    texts = {
        "everything": render.rendered(everything, "html"),
        "committed": render.rendered(committed, "html"),
        "compared": compare.rendered(compare.compare(everything, committed), "html"),
    }
    paths = {name: folder / f"{name}.html" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text, encoding="utf-8")
    return paths


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["everything", "committed", "compared"])
def test_page_is_accessible(
    browser: Browser, pages: dict[str, Path], name: str, scheme: str
) -> None:
    """axe-core finds no violation, and a phone scrolls the tables, not the page."""
    browser.set_colours(scheme)
    for width in (1280, 360):
        browser.set_size(width, 900)
        browser.driver.get(pages[name].as_uri())
        assert browser.run("return document.documentElement.scrollWidth") == width
        found: dict[str, Any] = Axe().run(browser.driver)
        assert [
            (violation["id"], [node["target"] for node in violation["nodes"]])
            for violation in found["violations"]
        ] == []
    assert browser.errors() == []


def test_page_follows_the_theme(browser: Browser, pages: dict[str, Path]) -> None:
    """The style is applied, which the policy of the page allows by its hash."""
    script = "return getComputedStyle(document.body).backgroundColor"
    colours = []
    for scheme in ("light", "dark"):
        browser.set_colours(scheme)
        browser.driver.get(pages["everything"].as_uri())
        colours.append(browser.run(script))
    assert colours == ["rgb(246, 247, 249)", "rgb(15, 18, 21)"]


def test_page_model_stays_in_view(browser: Browser, pages: dict[str, Path]) -> None:
    """On a phone the figures are scrolled beside their models; the first ones are those of here."""
    browser.set_size(360, 900)
    browser.driver.get(pages["everything"].as_uri())
    left = "return document.querySelector('tbody th').getBoundingClientRect().left"
    before = browser.run(left)
    right = browser.run(
        "return document.querySelector('thead th:nth-child(3)').getBoundingClientRect().right"
    )
    assert right < 360
    assert browser.run(
        "const box = document.querySelector('.scroll'); box.scrollLeft = 100; return box.scrollLeft"
    )
    assert browser.run(left) == before


def test_compare_command_writes_page(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    words = ["benchmark", "compare", str(COMMITTED), str(COMMITTED), "--format", "html"]
    assert run_command([*words, "--output", str(path)]) == 0
    text = path.read_text()
    assert text.startswith("<!doctype html>")
    assert "x86-64-epyc-2-cores.json" in text
