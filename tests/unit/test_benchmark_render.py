"""Tables, Markdown, CSV and JSON of a benchmark."""

import csv
import json
from pathlib import Path

import pytest

from edgepose.benchmark import latency, render, results, tables
from edgepose.benchmark.reference_table import PUBLISHED_BEFORE
from edgepose.benchmark.results import Document
from tests.benchmark_documents import accuracy_row, document, latency_row, pipeline_row


def text_of(written: Document) -> list[str]:
    return render.rendered(written, "table").splitlines()


def cells(lines: list[str], title: str, model: str) -> list[str]:
    """Return the cells of a model's line in the table whose title a line begins with."""
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{title}:"))
    return next(line for line in lines[start:] if line.startswith(f"{model} ")).split()


def test_table_measured_and_published(tmp_path: Path) -> None:
    lines = text_of(document(tmp_path))
    assert "machine: Raspberry Pi 4 Model B Rev 1.4" in lines
    # MB, four threads here and to the Pi 4; then published MB, mAP, Pixel 5, its GPU, Pi 4.
    assert cells(lines, "models", "movenet-lightning-int8") == [
        *("movenet-lightning-int8", "2.9", "38.0", "0.400"),
        *("2.9", "57.4", "52", "28", "95"),
    ]
    assert any(
        line.startswith("movenet-lightning-int8: our quantization of the same") for line in lines
    )
    assert cells(lines, "latency", "movenet-lightning-int8")[1:] == [
        *("litert", "1", "50", "8.00", "142", "95.0", "105", "114", "0.4", "1"),
    ]
    assert lines[-7:] == ["notes:", "", "A note.", "", "warnings:", "", "A warning."]


def test_table_no_ratio_for_other_network(tmp_path: Path) -> None:
    lines = text_of(document(tmp_path, latency=(latency_row("posenet-mobilenet-fp32"),)))
    row = cells(lines, "models", "posenet-mobilenet-fp32")
    assert row[2:] == ["95.0", "-", "13.3", "45.6", "80", "40", "338"]
    assert "posenet-mobilenet-fp32: another network: MobileNetV1 0.75 at 385x385" in "".join(lines)


def test_table_older_page_beside_latency_here(tmp_path: Path) -> None:
    """The devices of the older page, for the network that is the same; the other one has none."""
    rows = (
        latency_row("posenet-mobilenet-fp32"),
        latency_row("posenet-mobilenet-untrained", p50=62.0),
        latency_row("posenet-mobilenet-untrained", threads=4, p50=31.0, unstable=("hot",)),
    )
    written = document(tmp_path, latency=rows, published_before=PUBLISHED_BEFORE)
    lines = text_of(written)
    (title,) = (line for line in lines if line.startswith("older page of "))
    assert title.startswith("older page of posenet-mobilenet-untrained: published before (*)")
    found = [
        cells(lines, "older page of posenet-mobilenet-untrained", device)
        for device in ("Pixel 3", "Pixel 4", "iPhone XS")
    ]
    assert found == [
        ["Pixel", "3", "12.7", "12", "31", "4", "31.0?", "1.000"],
        ["Pixel", "4", "12.7", "12", "19", "4", "31.0?", "1.632"],
        ["iPhone", "XS", "12.7", "4.8", "22", "2", "31.0?", "1.409"],
    ]
    assert not any("older page" in line for line in text_of(document(tmp_path / "other")))


def test_table_model_without_published_row(tmp_path: Path) -> None:
    lines = text_of(document(tmp_path, latency=(latency_row("movenet-multipose-fp16"),)))
    assert cells(lines, "models", "movenet-multipose-fp16")[2:] == ["95.0", *("-",) * 6]


def test_table_measured_map(tmp_path: Path) -> None:
    rows = (
        latency_row(map=43.9, map_protocol="single"),
        latency_row("movenet-thunder-int8"),
    )
    lines = text_of(document(tmp_path, latency=rows))
    assert "MB mAP single here here/Pi 4 MB* mAP* Pixel 5* its GPU* Pi 4*" in " ".join(
        " ".join(line.split()) for line in lines
    )
    assert cells(lines, "models", "movenet-lightning-int8")[2] == "43.9"
    assert cells(lines, "models", "movenet-lightning-int8")[6] == "57.4"
    assert cells(lines, "models", "movenet-thunder-int8")[2] == "-"


def test_table_marks_unstable_rows(tmp_path: Path) -> None:
    rows = (latency_row(unstable=("others used 90%",)),)
    lines = text_of(document(tmp_path, latency=rows))
    for title in ("models", "latency"):
        assert "95.0?" in cells(lines, title, "movenet-lightning-int8")


def test_table_row_that_cannot_run_has_reason(tmp_path: Path) -> None:
    refused = latency_row(
        backend="tflite-runtime",
        latency_ms=None,
        rounds=None,
        ratio_to_published_pi4=None,
        not_run="no SQRT version 2",
    )
    lines = text_of(document(tmp_path, latency=(latency_row(), refused)))
    assert "movenet-lightning-int8 on tflite-runtime: no SQRT version 2" in lines
    # What does run stands beside the published figures.
    assert cells(lines, "models", "movenet-lightning-int8")[2:4] == ["95.0", "1.000"]


def test_table_compares_fastest_row(tmp_path: Path) -> None:
    rows = (
        latency_row(threads=4, p50=38.0),
        latency_row("movenet-lightning-int8", "tflite-runtime"),
    )
    lines = text_of(document(tmp_path, latency=rows))
    assert cells(lines, "models", "movenet-lightning-int8")[2:4] == ["38.0", "0.400"]


def test_table_fits_100_columns(tmp_path: Path) -> None:
    names = (*("movenet-lightning-int8", "posenet-mobilenet-untrained", "movenet-multipose-fp16"),)
    rows = tuple(
        latency_row(name, engine, threads, p50=1234.5, unstable=("x",), other_cpu_percent=199.0)
        for engine in ("litert", "litert-without-xnnpack", "tflite-runtime")
        for threads in (1, 4)
        for name in names
    )
    written = document(
        tmp_path,
        latency=rows,
        accuracy=tuple(accuracy_row(name) for name in names),
        pipeline=(pipeline_row(),),
        notes=tuple(tables.latency_notes(latency.method(latency.Plan()), rows)),
    )
    assert max(map(len, text_of(written))) <= render.WIDTH


def test_table_accuracy_with_intervals(tmp_path: Path) -> None:
    rows = (
        accuracy_row(),
        accuracy_row(
            "other",
            against="movenet-lightning-int8",
            ap_difference=-1.25,
            ap_difference_interval_95=(-2.0, 0.5),
        ),
    )
    lines = text_of(document(tmp_path, latency=(), accuracy=rows))
    assert "single: one person. 24 images, 24 persons" in lines
    itself, other = (cells(lines, "single", row.model) for row in rows)
    assert itself[-2:] == ["45.4", "-"]
    assert other[-4:] == ["45.4", "-1.2", "[-2.0,", "+0.5]"]
    assert any("43.9 [29.7, 57.0]" in line for line in lines)


def test_table_pipeline(tmp_path: Path) -> None:
    row = pipeline_row(unstable=("the machine was busy",))
    lines = text_of(document(tmp_path, pipeline=(row,)))
    expected = {
        "": "movenet-lightning-int8 1T",
        "source": "memory 640x480",
        "frames per second": "100.0?",
        "ratio of these": "0.962",
        "additional CPU time of a frame": "-",
        "paced latency p50": "10.4",
        "invoke": "9.60 (94%)",
    }
    for title, cell in expected.items():
        assert any(line.startswith(title) and line.endswith(f"  {cell}") for line in lines)
    assert "movenet-lightning-int8: the machine was busy" in lines


def test_markdown(tmp_path: Path) -> None:
    rows = (accuracy_row("a|b"),)
    lines = render.rendered(document(tmp_path, latency=(), accuracy=rows), "markdown").splitlines()
    start = lines.index("### single")
    assert lines[start : start + 7] == [
        *("### single", "", "one person. 24 images, 24 persons", ""),
        "| model | MB | AP | AP50 | AP75 | AR |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| a\\|b | 2.9 | 43.9 [29.7, 57.0] | 65.4 [45.5, 82.7] | 48.8 [29.7, 66.3] | 45.4 |",
    ]
    assert lines[-7:] == ["### notes", "", "- A note.", "", "### warnings", "", "- A warning."]


def test_csv_has_all_rows(tmp_path: Path) -> None:
    written = document(tmp_path, accuracy=(accuracy_row(),), pipeline=(pipeline_row(),))
    rows = list(csv.DictReader(render.rendered(written, "csv").splitlines()))
    assert [row["table"] for row in rows] == ["latency", "latency", "accuracy", "pipeline"]
    first, second, accuracy, pipeline = rows
    assert (first["latency_ms.p50"], second["latency_ms.p50"]) == ("95.0", "38.0")
    assert (first["published.map"], first["threads"]) == ("57.4", "1")
    assert first["rounds.runs"] == "10 10 10 10 10"
    assert first["input_size_wh"] == "192 192"
    assert (accuracy["ap_interval_95_low"], accuracy["ap_interval_95_high"]) == ("29.7", "57.0")
    assert (accuracy["ar_interval_95_low"], accuracy["latency_ms.p50"]) == ("", "")
    assert pipeline["stages_ms.invoke.share"] == "0.94"


def test_json_can_be_read_again(tmp_path: Path) -> None:
    written = document(tmp_path / "pi", accuracy=(accuracy_row(),), pipeline=(pipeline_row(),))
    path = tmp_path / "result.json"
    path.write_text(render.rendered(written, "json"))
    assert results.read(path) == written
    data = json.loads(path.read_text())
    assert (data["schema"], data["kind"]) == (1, "edgepose-benchmark")
    assert data["pipeline"][0]["pipeline_to_invoke_ratio"] == 0.962


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected the JSON of `edgepose benchmark --format json`"),
        ("[1, 2]", "expected the JSON"),
        ('{"schema": 2, "kind": "edgepose-benchmark"}', "schema 1"),
        ('{"schema": 1, "kind": "something"}', "expected the JSON"),
        ("\xff", "expected the JSON"),
    ],
)
def test_read_rejects_other_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(OSError, match=message):
        results.read(path)


def test_read_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.json: no such file"):
        results.read(tmp_path / "x.json")
    with pytest.raises(OSError, match="this is not a file"):
        results.read(tmp_path)


def test_latency_notes_name_models_without_xnnpack() -> None:
    rows = (
        latency_row(delegate=None, backend="tflite-runtime"),
        latency_row(delegate=None, backend="litert-without-xnnpack"),
        latency_row(),
    )
    *_, note = tables.latency_notes(latency.method(latency.Plan()), rows)
    assert note.startswith("XNNPACK was on but not used")
    assert note.endswith(": movenet-lightning-int8 on tflite-runtime.")
