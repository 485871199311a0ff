"""One benchmark: choose models and backends, measure, and collect the results."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec.structs import replace

from edgepose import __version__
from edgepose.benchmark import accuracy, backends, coco, environment, latency, tables, untrained
from edgepose.benchmark.reference_table import (
    COUNTERPARTS,
    PUBLISHED,
    PUBLISHED_BEFORE,
    UNTRAINED,
)
from edgepose.benchmark.results import AccuracyRow, Document, LatencyRow, Method, PipelineRow
from edgepose.build import build_model
from edgepose.clock import isoformat_utc
from edgepose.config.schema import Config, ModelConfig
from edgepose.errors import ModelFileError, SourceError, UsageError
from edgepose.inference.cpu import default_threads
from edgepose.monitoring import host
from edgepose.registry.registry import Device, ModelFile, default_registry, device_of
from edgepose.util.extras import require_extra

ALL: Final = "all"
PIPELINE_MODEL: Final = "movenet-lightning-int8"
_MAP_PROTOCOL: Final = "single"

Progress = Callable[[str], AbstractContextManager[Callable[[float, str], None]]]
"""Shows the progress of a named part: a context manager of a callable for share and text."""


_AccuracyResults = tuple[tuple[AccuracyRow, ...], tuple[SourceError, ...], tuple[str, ...]]
"""Rows, why images were left out, and notes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkOptions:
    """What to measure, and how; empty `models`, `threads` and `protocols` are the defaults."""

    config: Config
    models: tuple[str, ...]
    threads: tuple[int, ...]
    accelerators: tuple[str, ...]
    min_runs: int
    min_seconds: float
    max_seconds: float
    latency: bool
    pipeline: bool
    source: str | None
    given_broker: bool
    annotations: Path | None
    images: Path | None
    protocols: tuple[str, ...]
    against: str | None

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """The numbers of threads to measure."""
        return self.threads or tuple(dict.fromkeys((1, default_threads())))

    @property
    def device(self) -> Device:
        """Where accuracy and pipeline run: an Edge TPU only if nothing else is asked for."""
        return "edgetpu" if set(self.accelerators) == {backends.EDGETPU} else "cpu"


def run(options: BenchmarkOptions, progress: Progress) -> tuple[Document, tuple[SourceError, ...]]:
    """Measure; returns the document and why images were left out.

    Raises EdgeposeError with what cannot be measured, as far as possible before the long part.
    """
    if UNTRAINED in options.models and (options.pipeline or options.annotations):
        raise UsageError(
            f"--models {UNTRAINED}: its weights are untrained, it is for latency only; leave it "
            "out with --coco and --pipeline"
        )
    started_ns, created_at = time.monotonic_ns(), isoformat_utc(time.time_ns())
    measure_accuracy = None if options.annotations is None else _accuracy(options)
    machine, edge_tpus, before = host.machine(), environment.edge_tpu_ports(), host.machine_state()
    method, rows, missing = _latency(options, progress) if options.latency else (None, (), [])
    pipeline = _pipeline(options, progress) if options.pipeline else ()
    after = host.machine_state()
    scores, left_out, accuracy_notes = (
        measure_accuracy(progress) if measure_accuracy else ((), (), ())
    )
    rows = _with_map(rows, scores)
    document = Document(
        edgepose=__version__,
        created_at=created_at,
        seconds=round((time.monotonic_ns() - started_ns) / 1e9, 1),
        machine=machine,
        before=before,
        after=after,
        edge_tpus=edge_tpus,
        runtimes=backends.runtimes(),
        method=method,
        latency=rows,
        accuracy=scores,
        pipeline=pipeline,
        published=PUBLISHED if rows else (),
        published_before=PUBLISHED_BEFORE if rows else (),
        notes=(*tables.latency_notes(method, rows), *missing, *accuracy_notes),
        warnings=tuple(
            environment.warnings(before, after, edge_tpus, rows) if rows or pipeline else ()
        ),
    )
    return document, left_out


def _latency(
    options: BenchmarkOptions, progress: Progress
) -> tuple[Method, tuple[LatencyRow, ...], list[str]]:
    """Time the models; also returns notes on what is not measured.

    Raises EdgeposeError if there is nothing to time, or all rows fail.
    """
    found, missing = backends.find(options.accelerators)
    plan = latency.Plan(options.min_runs, options.min_seconds, options.max_seconds)
    with TemporaryDirectory(prefix="edgepose-") as folder:
        models, not_written = _latency_models(options, found, Path(folder))
        names = [model.name for model in models]
        measurements = latency.measurements_of(models, found, options.thread_counts)
        if not measurements:
            raise UsageError(
                f"--models and --accelerator leave nothing to measure: {', '.join(names)} cannot "
                f"run on {', '.join(backend.name for backend in found)}; files for the Edge TPU "
                "end in -edgetpu"
            )
        with progress("latency") as advance:
            rows = latency.measure(measurements, plan, on_progress=advance)
    failures = [each.failure for each in measurements if each.failure is not None]
    if failures and not any(each.rounds for each in measurements):
        raise failures[0]
    notes = []
    official = [name for name in COUNTERPARTS if name.endswith("-official") and name not in names]
    if official and not options.models:
        notes.append(
            "The published files themselves are measured too if they are installed: "
            f"`edgepose models pull {official[0]}` (and {', '.join(official[1:])})."
        )
    if missing or not_written:
        notes.append(f"Not measured: {', '.join([*missing, *not_written])}.")
    return latency.method(plan), rows, notes


def _latency_models(
    options: BenchmarkOptions, found: Sequence[backends.Backend], folder: Path
) -> tuple[list[ModelFile], list[str]]:
    """Return the models to time, and why one is missing; an untrained one is written to `folder`.

    An untrained one takes the place of the published PoseNet if that is not installed.
    """
    registry, devices = default_registry(), {backend.device for backend in found}
    given = options.models or (ALL,)
    others = [name for name in given if name != UNTRAINED]
    models = [registry.resolve(name) for name in _chosen(others, devices)] if others else []
    is_installed = registry.find(registry.entry(untrained.REPLACES)) is not None
    if UNTRAINED in given or (ALL in given and "cpu" in devices and not is_installed):
        try:
            models.append(untrained.write(folder))
        except ModelFileError as error:
            if UNTRAINED in given:
                raise
            return models, [f"{UNTRAINED} ({error})"]
    return models, []


def _accuracy(options: BenchmarkOptions) -> Callable[[Progress], _AccuracyResults]:
    """Return what evaluates the models; raises EdgeposeError for invalid models and images."""
    assert options.annotations is not None
    assert options.images is not None
    require_extra("pycocotools.cocoeval", "coco", "accuracy on COCO")
    folder = options.images
    protocols = [accuracy.PROTOCOLS[name] for name in options.protocols or accuracy.PROTOCOLS]
    images = [
        image
        for image in coco.read_annotations(options.annotations)
        if any(accuracy.cases_of(image, protocol) for protocol in protocols)
    ]
    coco.check_images(images, folder)
    default = ALL if options.latency else options.config.model.name
    given = _chosen(options.models or [default], {options.device})
    if options.against is not None and options.against not in given:
        given.insert(0, options.against)
    configs = [_config_for(options, name) for name in given]

    def measure(progress: Progress) -> _AccuracyResults:
        models = [build_model(config) for config in configs]
        names = [model.name for model in models]
        # Two files with the same name are called as they were given.
        labels = {
            path: path if names.count(name) > 1 else name
            for name, path in zip(names, given, strict=True)
        }
        against = None if options.against is None else labels[options.against]
        named = dict(zip(labels.values(), models, strict=True))
        with progress("accuracy") as advance:
            rows, left_out = accuracy.evaluate(
                named, images, folder, protocols, against=against, on_progress=advance
            )
        for model in models:
            model.interpreter.close()
        return rows, left_out, tuple(accuracy.notes(against, len(left_out)))

    return measure


def _pipeline(options: BenchmarkOptions, progress: Progress) -> tuple[PipelineRow, ...]:
    # Late: MQTT, a broker and the sources, which nothing else here needs.
    from edgepose.benchmark import end_to_end

    names = _chosen(options.models or [PIPELINE_MODEL], {options.device})
    with progress("pipeline") as advance:
        return end_to_end.measure(
            [_config_for(options, name) for name in names],
            options.thread_counts,
            source=options.source,
            given_broker=options.given_broker,
            on_progress=advance,
        )


def _chosen(names: Sequence[str], devices: set[Device]) -> list[str]:
    """Return the named models; `all` is every installed one that the devices can run."""
    registry = default_registry()
    installed = [
        entry.name
        for entry in registry.entries.values()
        if entry.accelerator in devices and registry.find(entry)
    ]
    chosen = [each for name in names for each in (installed if name == ALL else [name])]
    if not chosen:
        raise UsageError(
            f"no model for {' or '.join(sorted(devices))} is installed; `edgepose models list` "
            "shows how to get them"
        )
    return list(dict.fromkeys(chosen))


def _config_for(options: BenchmarkOptions, name: str) -> Config:
    """Return the configuration of a model for accuracy and pipeline.

    The backends of the table other than the Edge TPU run on the CPU, with the configured runtime.
    """
    config = options.config
    # Input size, kind and the like are those of the configured model only.
    if name != config.model.name:
        config = replace(config, model=ModelConfig(name=name))
    if "edgetpu" in (options.device, device_of(default_registry().resolve(name))):
        return replace(config, accelerator="edgetpu")
    is_auto = set(options.accelerators) == {backends.AUTO}
    return config if is_auto else replace(config, accelerator="cpu")


def _with_map(rows: Sequence[LatencyRow], scores: Sequence[AccuracyRow]) -> tuple[LatencyRow, ...]:
    """Return the rows with the AP measured in the same run, of the protocol closest to mAP's."""
    protocols = [score.protocol for score in scores]
    protocol = _MAP_PROTOCOL if _MAP_PROTOCOL in protocols else next(iter(protocols), None)
    measured = {(s.model, s.device): s.ap for s in scores if s.protocol == protocol}
    return tuple(
        replace(row, map=measured[key], map_protocol=protocol)
        if (key := (row.model, row.device)) in measured
        else row
        for row in rows
    )
