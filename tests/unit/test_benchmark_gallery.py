"""The gallery: which results may be published, and the table made of them."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgepose.benchmark.results import EdgeTpuPort, encode
from edgepose.errors import SourceError, SourceNotFoundError
from tests.benchmark_documents import accuracy_row, document, latency_row, pipeline_row
from tools import gallery

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "docs/results"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def put(folder: Path, name: str, **others: Any) -> None:
    (folder / name).write_text(encode(document(folder.parent, **others)))


def lines_of(folder: Path) -> list[str]:
    gallery.update(folder)
    text = (folder / "README.md").read_text()
    return [line for line in text.splitlines() if line.startswith("|")]


def test_update_committed_table_is_current() -> None:
    gallery.update(COMMITTED, check=True)


def test_read_folder_committed_results() -> None:
    assert len(gallery.read_folder(COMMITTED)) >= 1


def test_update_one_line_per_file(folder: Path) -> None:
    put(
        folder,
        "pi-4.json",
        machine=dataclasses.replace(document(folder.parent).machine, usable_cores=4),
        latency=(
            latency_row(),
            latency_row(threads=4, p50=38.0),
            latency_row(backend="tflite-runtime", threads=4, p50=52.0),
            latency_row("movenet-thunder-int8", threads=4, p50=251.0, unstable=("hot",)),
        ),
        pipeline=(pipeline_row(),),
    )
    titles, _, line = lines_of(folder)
    assert titles == "| machine | Lightning INT8 | Thunder INT8 | pipeline | edgepose | file |"
    assert line.startswith("| **Raspberry Pi 4 Model B Rev 1.4** (bcm2711, Cortex-A72, 4 cores; ")
    assert line.endswith(
        " | 38.0/4T | 251?/4T | 0.96, 10.4 ms | 0.1.0, 2026-01-31 | [pi-4.json](pi-4.json) |"
    )


def test_update_sorts_by_machine_and_date(folder: Path) -> None:
    later = "2026-03-01T00:00:00.000000Z"
    put(folder, "a.json", created_at=later)
    put(folder, "b.json")
    other = dataclasses.replace(document(folder.parent).machine, name="a board")
    put(folder, "c.json", machine=other, created_at=later)
    assert [line.split("](")[1].split(")")[0] for line in lines_of(folder)[2:]] == [
        *("c.json", "b.json", "a.json"),
    ]


def test_update_edge_tpu(folder: Path) -> None:
    put(
        folder,
        "pi.json",
        edge_tpus=(EdgeTpuPort(bus="usb", usb_mbit_per_s=5000),),
        latency=(
            latency_row(p50=38.0),
            latency_row("movenet-lightning-int8-edgetpu", "edgetpu", p50=7.0),
        ),
    )
    line = lines_of(folder)[2]
    assert "**, 1 Edge TPU (" in line
    assert "| 7.00/TPU |" in line


def test_update_columns_of_measured_models(folder: Path) -> None:
    put(folder, "a.json", latency=(latency_row(),))
    put(folder, "b.json", latency=(latency_row("movenet-lightning-fp16"),))
    titles, _, first, second = lines_of(folder)
    assert titles.split(" | ")[1:3] == ["Lightning INT8", "Lightning FP16"]
    assert first.split(" | ")[1:3] == ["95.0/1T", "-"]
    assert second.split(" | ")[1:3] == ["-", "95.0/1T"]


def test_update_empty_folder(folder: Path) -> None:
    assert lines_of(folder) == []
    text = (folder / "README.md").read_text()
    assert "There are no results yet." in text
    assert "## Submit a result" in text


def test_check_table_out_of_date(folder: Path) -> None:
    put(folder, "a.json")
    with pytest.raises(SourceError, match=r"README\.md: out of date"):
        gallery.update(folder, check=True)
    gallery.update(folder)
    gallery.update(folder, check=True)
    put(folder, "b.json")
    assert gallery.main([str(folder), "--check"]) == 1
    assert gallery.main([str(folder)]) == 0
    assert gallery.main([str(folder), "--check"]) == 0


def test_main_names_invalid_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, "right.json")
    put(folder, "empty.json", latency=(), accuracy=(accuracy_row(),))
    (folder / "broken.json").write_text("{")
    assert gallery.main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert "broken.json: expected the JSON" in error
    assert "empty.json: expected measured latencies" in error
    assert "right.json" not in error
    assert not (folder / "README.md").exists()


@pytest.mark.parametrize(
    "text",
    [
        "the image /home/ann/me.jpg",
        "~/models/x.tflite: cannot be read",
        "/srv/models/x.tflite: not enough memory",
        "mqtt://kitchen.local",
        "ann@kitchen",
    ],
)
def test_update_rejects_private_data(folder: Path, text: str) -> None:
    refused = latency_row(latency_ms=None, rounds=None, not_run=text)
    put(folder, "a.json", latency=(latency_row(), refused))
    with pytest.raises(SourceError, match=r"latency\[1\]\.not_run contains a path or an address"):
        gallery.update(folder)


@pytest.mark.parametrize(
    "text",
    [
        "`echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor`",
        "here/Pi 4 and 480 Mbit/s",
        "camera /dev/video0",
    ],
)
def test_update_accepts_system_paths(folder: Path, text: str) -> None:
    put(folder, "a.json", warnings=(text,))
    gallery.update(folder)


def test_update_escapes_names(folder: Path) -> None:
    machine = dataclasses.replace(document(folder.parent).machine, os="A | B [x]")
    put(folder, "a.json", machine=machine)
    line = lines_of(folder)[2]
    assert "A \\| B \\[x\\]" in line


def test_update_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="no such folder of results"):
        gallery.update(tmp_path / "nothing")


def test_update_pipeline_without_ratio(folder: Path) -> None:
    row = replace(pipeline_row(), pipeline_to_invoke_ratio=None, overhead_ms=None)
    put(folder, "a.json", pipeline=(row,))
    assert "| 10.4 ms |" in lines_of(folder)[2]
