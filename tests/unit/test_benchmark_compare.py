"""Comparison of two benchmarks."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgepose.benchmark.compare import Compared, compare, compare_files, rendered
from edgepose.benchmark.results import LatencyRow, encode
from edgepose.cli.main import run_command
from edgepose.errors import SourceError, SourceNotFoundError
from tests.benchmark_documents import accuracy_row, document, latency_row, pipeline_row


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machine")


def timed(*rounds_ms: float, **others: Any) -> LatencyRow:
    """Return a row whose rounds had these medians."""
    row = latency_row(p50=sorted(rounds_ms)[len(rounds_ms) // 2], **others)
    assert row.rounds is not None
    return replace(row, rounds=replace(row.rounds, p50_ms=rounds_ms))


def verdict(a: LatencyRow, b: LatencyRow, folder: Path) -> Compared:
    comparison = compare(document(folder, latency=(a,)), document(folder, latency=(b,)))
    (compared,) = comparison.compared
    return compared


def test_compare_document_with_itself(tmp_path: Path) -> None:
    written = document(tmp_path, accuracy=(accuracy_row(),), pipeline=(pipeline_row(),))
    comparison = compare(written, written)
    assert {each.verdict for each in comparison.compared} == {"same"}
    # Two latencies, the line's ratio and delay, one accuracy.
    assert len(comparison.compared) == 5
    assert comparison.differences == ()
    assert comparison.only_a == comparison.only_b == ()


def test_compare_faster_if_rounds_are_apart(tmp_path: Path) -> None:
    compared = verdict(timed(100, 101, 99, 100, 102), timed(80, 82, 81, 79, 80), tmp_path)
    assert compared.verdict == "faster"
    assert compared.ratio == pytest.approx(0.8)
    assert compared.interval is not None
    assert compared.interval[0] < 0.8 < compared.interval[1] < 1
    back = verdict(timed(80, 81, 80, 79, 80), timed(100, 101, 99, 100, 102), tmp_path)
    assert back.verdict == "slower"


def test_compare_same_if_rounds_overlap(tmp_path: Path) -> None:
    compared = verdict(timed(80, 90, 100, 110, 120), timed(70, 80, 90, 100, 110), tmp_path)
    assert compared.ratio == pytest.approx(0.9)
    assert compared.verdict == "same"


def test_compare_same_within_noise(tmp_path: Path) -> None:
    """Rounds of one run agree better than runs do: 4% apart, each within 0.1%."""
    assert verdict(timed(*(100,) * 5), timed(*(104,) * 5), tmp_path).verdict == "same"
    assert verdict(timed(*(100,) * 5), timed(*(106,) * 5), tmp_path).verdict == "slower"


def test_compare_ignores_one_disturbed_round(tmp_path: Path) -> None:
    compared = verdict(timed(100, 100, 100, 100, 50), timed(50, 50, 50, 50, 120), tmp_path)
    assert compared.verdict == "faster"


@given(
    st.lists(st.floats(1, 1000), min_size=3, max_size=15),
    st.lists(st.floats(1, 1000), min_size=3, max_size=15),
)
def test_compare_is_symmetric(machine: Path, a: list[float], b: list[float]) -> None:
    there, back = verdict(timed(*a), timed(*b), machine), verdict(timed(*b), timed(*a), machine)
    assert there.ratio is not None
    assert back.ratio is not None
    assert there.ratio * back.ratio == pytest.approx(1, rel=0.05, abs=0.01)
    opposite = {"faster": "slower", "slower": "faster", "same": "same"}
    # 5% more is not 5% less: only there may one direction be called the same.
    if not 0.94 < there.ratio < 1.06:
        assert back.verdict == opposite[there.verdict]


def test_compare_names_rows_without_counterpart(tmp_path: Path) -> None:
    a = document(tmp_path, latency=(latency_row(), latency_row("movenet-thunder-int8")))
    b = document(tmp_path, latency=(latency_row(), latency_row(backend="tflite-runtime")))
    comparison = compare(a, b)
    assert comparison.only_a == ("movenet-thunder-int8, litert, 1T",)
    assert comparison.only_b == ("movenet-lightning-int8, tflite-runtime, 1T",)
    assert len(comparison.compared) == 1


def test_compare_row_that_ran_in_one_only(tmp_path: Path) -> None:
    refused = latency_row(latency_ms=None, rounds=None, not_run="no memory")
    compared = verdict(latency_row(), refused, tmp_path)
    assert (compared.verdict, compared.a, compared.b) == ("ran in one only", 95.0, None)


def test_compare_marks_unstable_figures(tmp_path: Path) -> None:
    doubted = timed(*(50,) * 5, unstable=("others used 90%",))
    a, b = document(tmp_path, latency=(latency_row(),)), document(tmp_path, latency=(doubted,))
    text = " ".join(rendered(compare(a, b), "table").split())
    assert "faster?" in text
    assert "marks the figure as unstable" in text


def test_compare_unstable_figure_needs_all_rounds(tmp_path: Path) -> None:
    """Two runs of one busy machine, whose middle rounds happened to stand apart."""
    busy = timed(60, 80, 81, 82, 150, unstable=("others used 90%",))
    compared = verdict(timed(98, 99, 100, 101, 102), busy, tmp_path)
    assert compared.verdict == "unclear"
    quiet = replace(busy, unstable=())
    assert verdict(timed(98, 99, 100, 101, 102), quiet, tmp_path).verdict == "faster"


@pytest.mark.parametrize(("factor", "agree"), [(1.02, True), (1.09, False), (0.91, False)])
def test_compare_two_runs_of_one_machine(tmp_path: Path, factor: float, agree: bool) -> None:
    """On a shared host all rows of a run may be slower together; no row's own rounds show that."""
    models = [f"model-{number}" for number in range(5)]
    first = tuple(timed(10, 10.1, 9.9, model=model) for model in models)
    second = tuple(timed(10 * factor, 10.1 * factor, 9.9 * factor, model=model) for model in models)
    comparison = compare(document(tmp_path, latency=first), document(tmp_path, latency=second))
    (note,) = (note for note in comparison.notes if note.startswith("All 5 latency rows"))
    assert f"B/A {factor:.2f}" in note
    assert ("these two runs do not agree" in note) != agree


def test_compare_differences_of_machines(tmp_path: Path) -> None:
    a = document(tmp_path, latency=(latency_row(),))
    b = replace(
        a,
        edgepose="0.2.0",
        machine=dataclasses.replace(
            a.machine, name="Raspberry Pi 5", soc="bcm2712", memory_mb=8000.0
        ),
        runtimes={"litert": "2.4.0", "tflite-runtime": "2.14.0"},
        latency=(latency_row(sha256="0" * 64),),
    )
    found = {each.what: (each.a, each.b) for each in compare(a, b).differences}
    assert found["edgepose"] == ("0.1.0", "0.2.0")
    assert found["machine"] == (a.machine.name, "Raspberry Pi 5")
    assert found["processor"] == (
        "bcm2711, Cortex-A72, 4 of 4 cores",
        "bcm2712, Cortex-A72, 4 of 4 cores",
    )
    assert found["runtimes"] == ("litert 2.3.0", "litert 2.4.0, tflite-runtime 2.14.0")
    assert found["memory"] == ("1.9 GB", "8.0 GB")
    assert found["file of movenet-lightning-int8"][1] == "000000000000..."


def test_compare_difference_of_governor(tmp_path: Path) -> None:
    a = document(tmp_path)
    groups = tuple(
        dataclasses.replace(group, governor="powersave") for group in a.before.frequencies
    )
    assert groups
    b = replace(a, before=dataclasses.replace(a.before, frequencies=groups))
    (difference,) = compare(a, b).differences
    assert (difference.what, difference.b) == ("clock", "powersave, at most 1800 MHz")


def test_compare_ignores_few_megabytes(tmp_path: Path) -> None:
    a = document(tmp_path)
    assert a.machine.memory_mb is not None
    b = replace(a, machine=dataclasses.replace(a.machine, memory_mb=a.machine.memory_mb + 3))
    assert compare(a, b).differences == ()


def test_compare_pipeline_ratio_more_is_faster(tmp_path: Path) -> None:
    slow = pipeline_row()
    ratios = (0.80, 0.81, 0.82)
    fast = replace(
        slow,
        pipeline_to_invoke_ratio=0.81,
        rounds=replace(slow.rounds, ratios=ratios, latency_p50_ms=(20.0, 20.1)),
        latency_ms=replace(slow.latency_ms, p50=20.0),
    )
    a, b = document(tmp_path, pipeline=(slow,)), document(tmp_path, pipeline=(fast,))
    found = {each.figure: each.verdict for each in compare(a, b).compared}
    assert (found["fps_to_bare"], found["latency_p50_ms"]) == ("slower", "slower")


def test_compare_latency_at_other_frame_rate(tmp_path: Path) -> None:
    a = document(tmp_path, pipeline=(pipeline_row(),))
    b = document(tmp_path, pipeline=(pipeline_row(paced_fps=15.0),))
    found = {each.figure: each.verdict for each in compare(a, b).compared}
    assert found["latency_p50_ms"] == "not comparable"


@pytest.mark.parametrize(
    ("ap", "interval", "expected"),
    [
        (63.9, (60.0, 70.0), "more accurate"),
        (20.0, (15.0, 25.0), "less accurate"),
        (50.0, (40.0, 60.0), "same"),
    ],
)
def test_compare_accuracy_by_intervals(
    tmp_path: Path, ap: float, interval: tuple[float, float], expected: str
) -> None:
    other = accuracy_row(ap=ap, ap_interval_95=interval)
    a = document(tmp_path, latency=(), accuracy=(accuracy_row(),))
    (compared,) = compare(a, document(tmp_path, latency=(), accuracy=(other,))).compared
    assert compared.verdict == expected


def test_compare_accuracy_of_other_images(tmp_path: Path) -> None:
    a = document(tmp_path, latency=(), accuracy=(accuracy_row(),))
    b = document(tmp_path, latency=(), accuracy=(accuracy_row(images=25),))
    comparison = compare(a, b)
    assert comparison.compared == ()
    assert comparison.only_b == (
        "movenet-lightning-int8 on cpu, protocol single (25 images, 24 persons)",
    )


def test_compare_command_all_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = tmp_path / "a.json"
    b = tmp_path / "b.json"
    a.write_text(encode(document(tmp_path, latency=(latency_row(),))))
    b.write_text(encode(document(tmp_path, latency=(latency_row(p50=38.0),))))
    assert run_command(["benchmark", "compare", str(a), str(b)]) == 0
    text = capsys.readouterr().out
    assert "movenet-lightning-int8, litert, 1T" in text
    assert "faster" in text
    assert max(map(len, text.splitlines())) <= 100
    assert run_command(["benchmark", "compare", str(a), str(b), "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["kind"] == "edgepose-benchmark-comparison"
    assert data["compared"][0]["ratio"] == 0.4
    output = tmp_path / "comparison.md"
    words = ["benchmark", "compare", str(a), str(b), "--format", "markdown", "--output"]
    assert run_command([*words, str(output)]) == 0
    assert (
        "| movenet-lightning-int8, litert, 1T | p50_ms | 95 | 38 | 0.400 [0.400, 0.400] |"
        in output.read_text()
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"[1, 2]",
        b"\xff\xfe",
        b'{"schema": 1, "kind": "something-else"}',
        b'{"schema": 2, "kind": "edgepose-benchmark"}',
    ],
)
def test_compare_invalid_file(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    good, wrong = tmp_path / "good.json", tmp_path / "wrong.json"
    good.write_text(encode(document(tmp_path)))
    wrong.write_bytes(content)
    with pytest.raises(SourceError, match=r"wrong\.json: expected the JSON of `edgepose benchmark"):
        compare_files(good, wrong)
    assert run_command(["benchmark", "compare", str(good), str(wrong)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_compare_rejects_comparison(tmp_path: Path) -> None:
    written = document(tmp_path)
    path = tmp_path / "comparison.json"
    path.write_text(rendered(compare(written, written), "json"))
    with pytest.raises(SourceError, match="expected the JSON"):
        compare_files(path, path)


def test_compare_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="no such file"):
        compare_files(tmp_path / "a.json", tmp_path / "b.json")
