"""The reference table has the figures as they were published."""

import re
from pathlib import Path

import pytest

from edgepose.benchmark.reference_table import (
    COUNTERPARTS,
    PUBLISHED,
    PUBLISHED_BEFORE,
    UNTRAINED,
)
from edgepose.errors import UnknownModelError
from edgepose.registry.registry import check_name, default_registry

# Model, MB, mAP, Pixel 5 CPU, Pixel 5 GPU, Raspberry Pi 4 CPU.
TABLE_AS_PUBLISHED = [
    ("MoveNet.Thunder (FP16)", 12.6, 72.0, 155, 45, 594),
    ("MoveNet.Thunder (INT8)", 7.1, 68.9, 100, 52, 251),
    ("MoveNet.Lightning (FP16)", 4.8, 63.0, 60, 25, 186),
    ("MoveNet.Lightning (INT8)", 2.9, 57.4, 52, 28, 95),
    ("PoseNet (MobileNetV1, FP32)", 13.3, 45.6, 80, 40, 338),
]


def figures() -> list[tuple[object, ...]]:
    return [
        (row.name, row.megabytes, row.map, row.pixel5_cpu_ms, row.pixel5_gpu_ms, row.pi4_cpu_ms)
        for row in PUBLISHED
    ]


def test_published_figures_are_exact() -> None:
    assert figures() == TABLE_AS_PUBLISHED


def test_published_figures_match_copy_of_page(shared_data: Path) -> None:
    """A copy of the page has rows of the form `MoveNet.Thunder(FP16 ...) 12.6MB ...`."""
    documents = sorted((shared_data.parent / "seeds").glob("*.txt"))
    pattern = re.compile(
        r"^(MoveNet\.\w+|PoseNet) ?\((.*)\) ([\d.]+)MB ([\d.]+) (\d+)ms (\d+)ms (\d+)ms$",
        re.MULTILINE,
    )
    found = []
    for document in documents:
        for model, variant, *numbers in pattern.findall(document.read_text(errors="replace")):
            precision = re.search(r"FP16|INT8|FP32", variant)
            assert precision is not None
            detail = "MobileNetV1, " if "MobileNetV1" in variant else ""
            found.append((f"{model} ({detail}{precision[0]})", *map(float, numbers)))
    assert found == figures()


def test_published_rows_have_own_and_official_files() -> None:
    for row in PUBLISHED:
        names = {name for name, other in COUNTERPARTS.items() if other.row == row}
        assert any(name.endswith("-official") for name in names)
        assert any(not name.endswith(("-official", "-edgetpu")) for name in names)


def test_counterparts_are_known_models() -> None:
    assert set(COUNTERPARTS) - {UNTRAINED} <= set(default_registry().entries)


def test_untrained_model_is_not_offered() -> None:
    """It is comparable in latency, and no configuration can name it."""
    counterpart = COUNTERPARTS[UNTRAINED]
    assert counterpart.difference == "same network, untrained weights: latency only"
    assert counterpart.comparable
    with pytest.raises(UnknownModelError):
        check_name(UNTRAINED)


def test_published_before_match_copy_of_page(shared_data: Path) -> None:
    """A copy of the older page has an HTML table of PoseNet on three phones."""
    (page,) = [
        text
        for path in sorted((shared_data.parent / "seeds").glob("*.txt"))
        if "Pixel 3(" in (text := path.read_text(errors="replace"))
    ]
    table = page[page.index(">Posenet<") :]
    table = table[: table.index("</table>")]
    size = re.search(r"([\d.]+)Mb", table)
    assert size is not None
    # One star is four threads, two stars are two.
    found = [
        (device, float(size[1]), float(gpu), float(cpu), {"*": 4, "**": 2}[stars])
        for device, gpu, cpu, stars in re.findall(
            r"<td>(\w+ \w+)\([^)]*\)</td>\s*<td>([\d.]+)ms</td>\s*<td>([\d.]+)ms (\*+)</td>", table
        )
    ]
    assert found == [
        (row.device, row.megabytes, row.gpu_ms, row.cpu_ms, row.cpu_threads)
        for row in PUBLISHED_BEFORE
    ]
    assert len(found) == 3


def test_counterparts_comparable_only_if_same_network() -> None:
    """PoseNet 0.75 at 385x385 is not the 1.0 at 257x257 that was published."""
    ours = COUNTERPARTS["posenet-mobilenet-fp32"]
    assert not ours.comparable
    assert "another network" in (ours.difference or "")
    for name, counterpart in COUNTERPARTS.items():
        if name.endswith("-official"):
            assert (counterpart.comparable, counterpart.difference) == (True, None)
        if name.endswith("-edgetpu"):
            assert not counterpart.comparable
    assert "quantization" in (COUNTERPARTS["movenet-thunder-int8"].difference or "")
    assert "movenet-multipose-fp16" not in COUNTERPARTS
