"""The gallery: which files belong in it, and that its page is what they make."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from edgepose.benchmark import gallery
from edgepose.benchmark.results import EdgeTpuPort, encode
from edgepose.cli.main import run_command
from edgepose.errors import SourceError, SourceNotFoundError
from tests.benchmark_documents import accuracy_row, document, latency_row, pipeline_row

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "docs/results"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def put(folder: Path, name: str, **others: Any) -> None:
    (folder / name).write_bytes(encode(document(folder.parent, **others)))


def lines_of(folder: Path) -> list[str]:
    gallery.update(folder)
    text = (folder / "README.md").read_text()
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_committed_page_is_what_the_committed_files_make() -> None:
    gallery.update(COMMITTED, check=True)


def test_there_is_a_real_result() -> None:
    assert len(gallery.read_folder(COMMITTED)) >= 1


def test_one_line_a_file(folder: Path) -> None:
    put(
        folder,
        "pi-4.json",
        machine=dataclasses.replace(document(folder.parent).machine, usable_cores=4),
        latency=(
            latency_row(),
            latency_row(threads=4, p50=38.0),
            latency_row(engine="tflite-runtime", threads=4, p50=52.0),
            latency_row("movenet-thunder-int8", threads=4, p50=251.0, doubtful=("hot",)),
        ),
        pipeline=(pipeline_row(),),
    )
    titles, _, line = lines_of(folder)
    assert titles == "| machine | Lightning INT8 | Thunder INT8 | line | edgepose | file |"
    assert line.startswith("| **Raspberry Pi 4 Model B Rev 1.4** (bcm2711, Cortex-A72, 4 cores; ")
    assert line.endswith(
        " | 38.0/4T | 251?/4T | 0.96, 10.4 ms | 0.1.0, 2026-01-31 | [pi-4.json](pi-4.json) |"
    )


def test_sorted_by_machine_then_date(folder: Path) -> None:
    later = "2026-03-01T00:00:00.000000Z"
    put(folder, "a.json", created_at=later)
    put(folder, "b.json")
    other = dataclasses.replace(document(folder.parent).machine, name="a board")
    put(folder, "c.json", machine=other, created_at=later)
    assert [line.split("](")[1].split(")")[0] for line in lines_of(folder)[2:]] == [
        *("c.json", "b.json", "a.json"),
    ]


def test_an_edge_tpu_is_named_and_its_rows_count(folder: Path) -> None:
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


def test_a_model_nobody_measured_has_no_column_and_a_missing_one_a_dash(folder: Path) -> None:
    put(folder, "a.json", latency=(latency_row(),))
    put(folder, "b.json", latency=(latency_row("movenet-lightning-fp16"),))
    titles, _, first, second = lines_of(folder)
    assert titles.split(" | ")[1:3] == ["Lightning INT8", "Lightning FP16"]
    assert first.split(" | ")[1:3] == ["95.0/1T", "-"]
    assert second.split(" | ")[1:3] == ["-", "95.0/1T"]


def test_an_empty_folder_says_how_to_fill_it(folder: Path) -> None:
    assert lines_of(folder) == []
    text = (folder / "README.md").read_text()
    assert "There is none yet." in text
    assert "## Send yours" in text


def test_a_page_that_is_out_of_date_is_found(folder: Path) -> None:
    put(folder, "a.json")
    with pytest.raises(SourceError, match=r"README\.md: not what the files beside it make"):
        gallery.update(folder, check=True)
    gallery.update(folder)
    gallery.update(folder, check=True)
    put(folder, "b.json")
    assert run_command(["benchmark", "gallery", str(folder), "--check"]) == 1
    assert run_command(["benchmark", "gallery", str(folder)]) == 0
    assert run_command(["benchmark", "gallery", str(folder), "--check"]) == 0


def test_every_wrong_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, "right.json")
    put(folder, "empty.json", latency=(), accuracy=(accuracy_row(),))
    (folder / "broken.json").write_text("{")
    assert run_command(["benchmark", "gallery", str(folder)]) == 1
    told = capsys.readouterr().err
    assert "broken.json: expected the JSON" in told
    assert "empty.json: expected measured latencies" in told
    assert "right.json" not in told
    assert not (folder / "README.md").exists()


@pytest.mark.parametrize(
    "text",
    [
        "the picture /home/ann/me.jpg",
        "~/models/x.tflite: cannot be read",
        "/srv/models/x.tflite: not enough memory",
        "mqtt://kitchen.local",
        "ann@kitchen",
    ],
)
def test_what_is_private_is_refused(folder: Path, text: str) -> None:
    refused = latency_row(latency_ms=None, rounds=None, not_run=text)
    put(folder, "a.json", latency=(latency_row(), refused))
    with pytest.raises(SourceError, match=r"latency\[1\]\.not_run tells a path or an address"):
        gallery.update(folder)


@pytest.mark.parametrize(
    "text",
    [
        "`echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor`",
        "here/Pi 4 and 480 Mbit/s",
        "camera /dev/video0",
    ],
)
def test_what_is_the_system_s_is_not(folder: Path, text: str) -> None:
    put(folder, "a.json", warnings=(text,))
    gallery.update(folder)


def test_a_name_with_a_bar_does_not_break_the_table(folder: Path) -> None:
    machine = dataclasses.replace(document(folder.parent).machine, os="A | B [x]")
    put(folder, "a.json", machine=machine)
    line = lines_of(folder)[2]
    assert "A \\| B \\[x\\]" in line


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="expected a folder of results"):
        gallery.update(tmp_path / "nothing")


def test_the_line_without_a_ratio(folder: Path) -> None:
    row = replace(pipeline_row(), pipeline_to_invoke_ratio=None, overhead_ms=None)
    put(folder, "a.json", pipeline=(row,))
    assert "| 10.4 ms |" in lines_of(folder)[2]
