"""`python -m tools.official_benchmark` runs a model by the rules of three tools."""

import sys

import pytest


def test_main_prints_every_method(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ai_edge_litert.options", exc_type=ImportError)
    from tools import official_benchmark

    monkeypatch.setattr(sys, "argv", ["x", "movenet-lightning-int8", "--rounds", "2"])
    official_benchmark.main()
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "movenet-lightning-int8, 2 rounds of 20 runs, ms of processor time"
    assert [line.split()[0] + line.split()[1] for line in lines] == [
        f"{name},{kind}"
        for kind in ("median", "mean")
        for name in ("edgepose", "benchmark_model", "litert-benchmark")
    ]
    # Relative to itself.
    assert lines[0].endswith("1.000 [1.000, 1.000]")
