"""`edgepose benchmark` as users run it, with a fake backend and with real models."""

import csv
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgepose.benchmark import backends, environment, latency
from edgepose.benchmark.results import Document
from edgepose.cli.main import run_command
from edgepose.errors import AcceleratorError
from edgepose.inference.runtime import installed_runtimes
from edgepose.monitoring import host
from tests.conftest import MODELS
from tests.edgetpu.compiled import compile_model
from tests.fakes.benchmark_backend import Bench
from tests.machines import no_firmware, raspberry_pi_4
from tests.requirements import missing

pytestmark = pytest.mark.usefixtures("no_user_files")

LIGHTNING, THUNDER = "movenet-lightning-int8", "movenet-thunder-int8"
SCHEMA = Path(__file__).parents[2] / "docs" / "benchmark.schema.json"
QUICK = ("--min-runs", "5", "--min-seconds", "0.02", "--max-seconds", "0")


def use_backend(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, names: tuple[str, ...] = ("litert",), **kept: Any
) -> None:
    """Replace the backends by a fake one with known durations."""
    found = [bench.backend(name) for name in names], ["tpu (not there)"]
    monkeypatch.setattr(backends, "find", lambda _wanted: found)
    monkeypatch.setattr(latency, "Instruments", lambda: bench.instruments(**kept))


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run_command(["benchmark", "--format", "json", *words]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    data = json.loads(captured.out)
    assert isinstance(data, dict)
    return data


def test_benchmark_latency_reports_set_durations(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cost(model: str, _load: int, invoke: int) -> float:
        if model == THUNDER:
            return 251.0
        return 80.0 if invoke == 0 else 38.0 + 9.5 * (invoke % 10 == 0)

    use_backend(monkeypatch, Bench(cost, load_ms=12.0))
    words = ("--models", f"{LIGHTNING},{THUNDER}", "--threads", "4", "--min-seconds", "0")
    data = as_json(capsys, *words)
    lightning, thunder = data["latency"]
    runs = [38.0] * 45 + [47.5] * 5
    assert (lightning["model"], lightning["engine"], lightning["threads"]) == (
        *(LIGHTNING, "litert", 4),
    )
    assert lightning["latency_ms"] == {
        "min": 38.0,
        "mean": pytest.approx(np.mean(runs)),
        "p50": 38.0,
        "p95": pytest.approx(np.percentile(runs, 95)),
        "p99": pytest.approx(np.percentile(runs, 99)),
        "max": 47.5,
        "standard_deviation": pytest.approx(np.std(runs, ddof=1), abs=1e-4),
    }
    assert lightning["rounds"]["runs"] == [10] * 5
    assert (lightning["rounds"]["load_ms"], lightning["rounds"]["first_ms"]) == (12.0, 80.0)
    assert (lightning["doubtful"], thunder["doubtful"]) == ([], [])
    # Beside the published 95 and 251 ms of a Raspberry Pi 4.
    assert lightning["ratio_to_published_pi4"] == pytest.approx(0.4)
    assert thunder["ratio_to_published_pi4"] == pytest.approx(1.0)
    assert (
        lightning["sha256"]
        == json.loads((MODELS / "manifest.json").read_text())["models"][0]["sha256"]
    )
    assert data["method"]["min_runs"] == 50
    assert "Not measured: tpu (not there)." in data["notes"]


def test_benchmark_latency_every_format(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("--models", LIGHTNING, "--threads", "1,4", "--min-seconds", "0")
    texts = {}
    for output_format in ("table", "markdown", "csv"):
        use_backend(monkeypatch, Bench(lambda *_: 47.5))
        path = tmp_path / output_format
        assert (
            run_command(["benchmark", *words, "--format", output_format, "--output", str(path)])
            == 0
        )
        texts[output_format] = path.read_text()
    assert capsys.readouterr().out == ""
    figures = ["2.9", "47.5", "0.500", "2.9", "57.4", "52", "28", "95"]
    assert [LIGHTNING, *figures] in [line.split() for line in texts["table"].splitlines()]
    assert (
        "| movenet-lightning-int8 | 2.9 | 47.5 | 0.500 | 2.9 | 57.4 | 52 | 28 | 95 |"
        in (texts["markdown"])
    )
    rows = list(csv.DictReader(texts["csv"].splitlines()))
    assert [(row["threads"], row["latency_ms.p50"]) for row in rows] == [
        ("1", "47.5"),
        ("4", "47.5"),
    ]


def test_benchmark_latency_reports_state_of_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = raspberry_pi_4(tmp_path, throttled="50005")
    state = host.machine_state(root, no_firmware)
    machine = host.machine(root)
    monkeypatch.setattr(host, "machine", lambda: machine)
    monkeypatch.setattr(host, "machine_state", lambda: state)
    use_backend(monkeypatch, Bench(lambda *_: 10.0), other_cpu_share=0.6, frequency=(600.0, 1800.0))
    data = as_json(capsys, "--models", LIGHTNING)
    assert data["machine"]["name"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert data["before"]["frequencies"][0]["governor"] == "ondemand"
    assert data["after"]["throttling"][0] == "under_voltage"
    assert [row["doubtful"] for row in data["latency"]] == [
        [
            "other processes used 60% of a core meanwhile",
            "the clock was at 600 of 1800 MHz after a round",
        ]
    ] * len(data["latency"])
    warnings = " ".join(data["warnings"])
    for words in ("rows are unstable", "the governor of cores", "voltage is too low"):
        assert words in warnings


def test_benchmark_latency_fails_if_no_backend_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_backend(
        monkeypatch, Bench(lambda *_: 1.0, refuse=lambda _: AcceleratorError("no TPU is there"))
    )
    assert run_command(["benchmark", "--models", LIGHTNING]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "edgepose: no TPU is there\n")


def test_benchmark_latency_default_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_backend(monkeypatch, Bench(lambda *_: 10.0), names=("litert", "tflite-runtime"))
    data = as_json(capsys, "--threads", "1,4", "--min-runs", "5", "--min-seconds", "0")
    models = list(dict.fromkeys(row["model"] for row in data["latency"]))
    assert models == [
        "movenet-lightning-int8",
        "movenet-lightning-fp16",
        "movenet-thunder-int8",
        "movenet-thunder-fp16",
        "movenet-multipose-fp16",
        "movenet-multipose-int8",
        "posenet-mobilenet-fp32",
        "posenet-mobilenet-int8",
        "posenet-mobilenet-untrained",
    ]
    assert len(data["latency"]) == 9 * 2 * 2
    assert [row["name"] for row in data["published"]] == [
        "MoveNet.Thunder (FP16)",
        "MoveNet.Thunder (INT8)",
        "MoveNet.Lightning (FP16)",
        "MoveNet.Lightning (INT8)",
        "PoseNet (MobileNetV1, FP32)",
    ]


def test_benchmark_latency_every_published_row_has_ratio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PoseNet's is that of a file with untrained weights, which says so and is deleted."""
    bench = Bench(lambda *_: 33.8)
    use_backend(monkeypatch, bench)
    data = as_json(capsys, "--threads", "4", "--min-runs", "5", "--min-seconds", "0")
    ratios = {
        row["published"]["name"]: row["ratio_to_published_pi4"]
        for row in data["latency"]
        if row["ratio_to_published_pi4"] is not None
    }
    assert list(ratios) == [
        "MoveNet.Lightning (INT8)",
        "MoveNet.Lightning (FP16)",
        "MoveNet.Thunder (INT8)",
        "MoveNet.Thunder (FP16)",
        "PoseNet (MobileNetV1, FP32)",
    ]
    assert ratios["PoseNet (MobileNetV1, FP32)"] == pytest.approx(0.1)
    row = data["latency"][-1]
    assert row["published_difference"] == "same network, untrained weights: latency only"
    assert round(row["bytes"] / 1e6, 1) == row["published"]["megabytes"] == 13.3
    assert [before["device"] for before in data["published_before"]] == [
        *("Pixel 3", "Pixel 4", "iPhone XS"),
    ]


@pytest.mark.parametrize("output_format", ["table", "markdown", "html", "csv", "json"])
def test_benchmark_latency_untrained_is_marked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], output_format: str
) -> None:
    use_backend(monkeypatch, Bench(lambda *_: 33.8))
    words = ("--models", "posenet-mobilenet-untrained", "--format", output_format)
    assert run_command(["benchmark", *words]) == 0
    text = capsys.readouterr().out
    assert "same network, untrained weights: latency only" in " ".join(text.split())


def test_benchmark_latency_untrained_without_schema(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With tflite-runtime alone the file cannot be written, which a note says."""
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    use_backend(monkeypatch, Bench(lambda *_: 10.0))
    data = as_json(capsys, "--threads", "4", "--min-runs", "5", "--min-seconds", "0")
    assert len(data["latency"]) == 8
    assert any(
        "mobilenet-untrained (reading or writing a TFLite file needs" in note
        for note in data["notes"]
    )
    use_backend(monkeypatch, Bench(lambda *_: 10.0))
    assert run_command(["benchmark", "--models", "posenet-mobilenet-untrained"]) == 1
    assert "needs the package ai-edge-litert" in capsys.readouterr().err


def test_benchmark_latency_official_files_if_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "model-home"
    folder.mkdir()
    # The list knows its size; the fake backend reads nothing of it.
    content = (MODELS / "movenet-lightning-int8.tflite").read_bytes()[:2_894_840]
    (folder / "movenet_single_pose_lightning_ptq.tflite").write_bytes(content)
    use_backend(monkeypatch, Bench(lambda *_: 9.5))
    data = as_json(capsys, "--threads", "4", "--min-runs", "5", "--min-seconds", "0")
    row = next(row for row in data["latency"] if row["model"] == f"{LIGHTNING}-official")
    assert row["published_difference"] is None
    assert row["ratio_to_published_pi4"] == pytest.approx(0.1)
    assert "posenet-mobilenet-untrained" in {row["model"] for row in data["latency"]}
    (note,) = (note for note in data["notes"] if "models pull" in note)
    assert f"{LIGHTNING}-official" not in note


def test_benchmark_latency_real_models_on_every_backend(capsys: pytest.CaptureFixture[str]) -> None:
    data = as_json(capsys, "--models", LIGHTNING, "--threads", "1,2", *QUICK)
    expected = ["litert", "litert-without-xnnpack"]
    if "tflite-runtime" in installed_runtimes():
        expected.append("tflite-runtime")
    assert [(row["engine"], row["threads"]) for row in data["latency"]] == [
        (engine, threads) for engine in expected for threads in (1, 2)
    ]
    for row in data["latency"]:
        assert row["latency_ms"]["min"] > 0
        assert len(row["rounds"]["p50_ms"]) >= 3
        assert row["input_size_wh"] == [192, 192]
        # What XNNPACK really does, not what was asked for.
        is_on = row["engine"] != "litert-without-xnnpack"
        assert (row["delegate"] is not None) == is_on
    assert msgspec.json.decode(json.dumps(data), type=Document).latency[0].threads == 1


def test_benchmark_latency_output_is_valid_by_schema(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("jsonschema") is None:
        missing("jsonschema is not installed; it checks the published schema")
    jsonschema: Any = importlib.import_module("jsonschema")
    words = ("--models", f"{LIGHTNING},posenet-mobilenet-fp32", "--accelerator", "litert")
    data = as_json(capsys, *words, "--threads", "1", *QUICK)
    jsonschema.validate(data, json.loads(SCHEMA.read_text()))


def test_benchmark_latency_model_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.tflite"
    path.write_bytes((MODELS / "movenet-lightning-int8.tflite").read_bytes())
    words = ("--models", str(path), "--accelerator", "litert", "--threads", "1", *QUICK)
    (row,) = as_json(capsys, *words)["latency"]
    assert (row["model"], row["published"], row["precision"]) == ("mine", None, None)


def test_benchmark_latency_writes_report_and_plot(tmp_path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        missing("matplotlib is not installed; it draws the plot")
    words = ("--models", LIGHTNING, "--accelerator", "litert", "--threads", "1", *QUICK)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "edgepose", "benchmark", *words),
            *("--plot", str(tmp_path / "plot.svg")),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("edgepose ")
    assert "latency: invoke in ms by backend and threads (T)" in done.stdout
    svg = (tmp_path / "plot.svg").read_text()
    assert "</svg>" in svg


def test_benchmark_latency_progress_only_on_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_backend(monkeypatch, Bench(lambda *_: 10.0))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run_command(["benchmark", "--models", LIGHTNING, "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert "latency" in captured.err
    assert "100 %" in captured.err
    assert "\x1b" not in captured.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--threads", "0"], 2, "0 is not in the range 1<=x<=64"),
        (["--threads", "one"], 2, "'one' is not a valid integer"),
        (["--threads", ","], 2, "'--threads': empty, expected values separated by commas"),
        (["--accelerator", "gpu"], 2, "--accelerator gpu: there is no such accelerator"),
        (["--accelerator", "edgtpu"], 2, "did you mean 'edgetpu'?"),
        (["--accelerator", ""], 2, "'--accelerator': empty"),
        (["--models", "movenet-lightnin-int8"], 2, "did you mean 'movenet-lightning-int8'?"),
        (["--models", "nowhere.tflite"], 1, "no such model file"),
        (["--min-runs", "0"], 2, "--min-runs"),
        (["--min-seconds", "-1"], 2, "--min-seconds"),
        (["--plot", "x.jpg"], 2, "--plot takes a file name ending in .png or .svg"),
        (["--plot", "no/such/x.png"], 2, "the folder no/such does not exist"),
        (["--plot", "x.png", "--no-latency", "--pipeline"], 2, "--plot draws latencies"),
        (["--no-latency"], 2, "--no-latency leaves nothing to measure"),
        (["--source", "synthetic:"], 2, "--source belongs to --pipeline"),
        (["--mqtt", "mqtt://localhost"], 2, "--mqtt belongs to --pipeline"),
        (
            ["--models", f"{LIGHTNING},posenet-mobilenet-untrained", "--pipeline"],
            2,
            "--models posenet-mobilenet-untrained: its weights are untrained",
        ),
        (["--accelerator", "edgetpu"], 2, "no model for edgetpu is installed"),
        (
            ["--accelerator", "edgetpu", "--models", LIGHTNING],
            2,
            "files for the Edge TPU end in -edgetpu",
        ),
        (["unknown"], 2, "unknown"),
    ],
)
def test_benchmark_latency_usage_errors(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["benchmark", *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_benchmark_latency_compiled_model_without_edge_tpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if environment.edge_tpu_ports():
        pytest.skip("an Edge TPU is plugged in")
    compiled = tmp_path / "compiled.tflite"
    compiled.write_bytes(compile_model((MODELS / f"{LIGHTNING}.tflite").read_bytes()))
    assert run_command(["benchmark", "--models", str(compiled), "--accelerator", "edgetpu"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Edge TPU" in captured.err
    assert len(captured.err.splitlines()) == 1


def test_benchmark_latency_plot_without_matplotlib_fails_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bench = Bench(lambda *_: 1.0)
    use_backend(monkeypatch, bench)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run_command(["benchmark", "--plot", str(tmp_path / "x.png")]) == 1
    assert "pip install 'edgepose[plot]'" in capsys.readouterr().err
    assert bench.order == []


def test_benchmark_latency_measures_installed_backends_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "installed_runtimes", lambda: ("litert",))
    words = ("--models", LIGHTNING, "--threads", "1", *QUICK)
    data = as_json(capsys, *words)
    assert {row["engine"] for row in data["latency"]} == {"litert", "litert-without-xnnpack"}
    assert any("tflite-runtime (tflite-runtime is not installed here)" in n for n in data["notes"])
    assert run_command(["benchmark", *words, "--accelerator", "tflite-runtime"]) == 1
    assert "tflite-runtime is not installed here" in capsys.readouterr().err
