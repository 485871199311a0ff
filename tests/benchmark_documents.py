"""Benchmark documents with known figures."""

import dataclasses
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from edgepose.benchmark import latency
from edgepose.benchmark.reference_table import COUNTERPARTS, PUBLISHED
from edgepose.benchmark.results import (
    AccuracyRow,
    BareInvoke,
    Document,
    LatencyRow,
    Percentiles,
    PipelineRounds,
    PipelineRow,
    Rounds,
    Stage,
    Statistics,
)
from edgepose.monitoring import host
from tests.machines import no_firmware, raspberry_pi_4


def latency_row(
    model: str = "movenet-lightning-int8",
    backend: str = "litert",
    threads: int = 1,
    p50: float = 95.0,
    **others: Any,
) -> LatencyRow:
    """Return a row with a median, and figures derived from it."""
    counterpart = COUNTERPARTS.get(model)
    comparable = counterpart is not None and counterpart.comparable
    row = LatencyRow(
        model=model,
        bytes=2_939_304,
        sha256="33edfeae" * 8,
        input_size_wh=(192, 192),
        input_dtype="uint8",
        precision="int8",
        backend=backend,
        device="edgetpu" if backend == "edgetpu" else "cpu",
        runtime="tflite-runtime" if backend == "tflite-runtime" else "litert",
        runtime_version="2.3.0",
        delegate="XNNPACK (6 parts)",
        threads=threads,
        latency_ms=Statistics(
            min=p50 * 0.9,
            mean=p50 * 1.01,
            p50=p50,
            p95=p50 * 1.1,
            p99=p50 * 1.2,
            max=p50 * 1.3,
            standard_deviation=p50 * 0.05,
        ),
        rounds=Rounds(
            p50_ms=(p50,) * 5, runs=(10,) * 5, iqr_percent=0.4, load_ms=8.0, first_ms=p50 * 1.5
        ),
        other_cpu_percent=1.2,
        published=None if counterpart is None else counterpart.row,
        published_difference=None if counterpart is None else counterpart.difference,
        ratio_to_published_pi4=p50 / counterpart.row.pi4_cpu_ms
        if counterpart is not None and comparable
        else None,
    )
    return replace(row, **others)


def accuracy_row(model: str = "movenet-lightning-int8", **others: Any) -> AccuracyRow:
    """Return a row of the protocol `single`."""
    row = AccuracyRow(
        about="one person. 24 images, 24 persons",
        model=model,
        bytes=2_939_304,
        device="cpu",
        protocol="single",
        images=24,
        persons=24,
        left_out=0,
        ap=43.9,
        ap_interval_95=(29.7, 57.0),
        ap50=65.4,
        ap50_interval_95=(45.5, 82.7),
        ap75=48.8,
        ap75_interval_95=(29.7, 66.3),
        ar=45.4,
        ar_interval_95=None,
    )
    return replace(row, **others)


def pipeline_row(model: str = "movenet-lightning-int8", **others: Any) -> PipelineRow:
    """Return a row of the whole daemon."""
    row = PipelineRow(
        model=model,
        device="cpu",
        backend="litert",
        threads=1,
        source="memory",
        width=640,
        height=480,
        broker="mosquitto 2.0.11, started by the benchmark",
        frames=1000,
        seconds=10.0,
        fps=100.0,
        dropped=1,
        lost=2,
        latency_ms=Percentiles(p50=10.4, p95=11.0, p99=12.5),
        stages_ms={
            "preprocess": Stage(p50=0.1, share=0.01),
            "invoke": Stage(p50=9.6, share=0.94),
            "publish": Stage(p50=0.5, share=0.05),
        },
        bare_invoke=BareInvoke(p50_ms=9.5, p99_ms=11.5, fps=104.0),
        pipeline_to_invoke_ratio=0.962,
        overhead_ms=0.41,
        paced_fps=30.0,
        paced_invoke_ms=Percentiles(p50=9.6, p95=10.5, p99=11.6),
        rounds=PipelineRounds(
            ratios=(0.96, 0.962, 0.97),
            bare_invoke_p50_ms=(9.5, 9.5, 9.6),
            latency_p50_ms=(10.4, 10.5),
            paced_invoke_p50_ms=(9.6, 9.6),
        ),
    )
    return replace(row, **others)


def document(folder: Path, **others: Any) -> Document:
    """Return the document of a Raspberry Pi 4; its files are written to `folder`."""
    root = raspberry_pi_4(folder)
    state = host.machine_state(root, no_firmware)
    written = Document(
        edgepose="0.1.0",
        created_at="2026-01-31T12:00:00.000000Z",
        seconds=151.3,
        machine=dataclasses.replace(
            host.machine(root), architecture="aarch64", python="3.11.2", usable_cores=4
        ),
        before=state,
        after=state,
        runtimes={"litert": "2.3.0"},
        method=latency.method(latency.Plan()),
        latency=(latency_row(), latency_row(threads=4, p50=38.0)),
        published=PUBLISHED,
        notes=("A note.",),
        warnings=("A warning.",),
    )
    return replace(written, **others)
