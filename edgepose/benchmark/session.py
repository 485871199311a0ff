"""One benchmark: choose models and backends, measure, and collect the results."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from edgepose import __version__
from edgepose.benchmark import accuracy, backends, coco, environment, latency, oks, tables
from edgepose.benchmark.reference_table import COUNTERPARTS, PUBLISHED, TABLE
from edgepose.benchmark.results import AccuracyRow, Document, LatencyRow, PipelineRow
from edgepose.build import build_model
from edgepose.clock import isoformat_utc
from edgepose.config import Config, ModelConfig
from edgepose.datatypes import Frame
from edgepose.errors import EdgeposeError, SourceError, UsageError
from edgepose.inference.cpu import default_threads
from edgepose.monitoring import host
from edgepose.registry.registry import Device, default_registry, resolve
from edgepose.sources.images import read_image

ALL: Final = "all"
PIPELINE_MODEL: Final = "movenet-lightning-int8"
_MAP_PROTOCOL: Final = "single"

Progress = Callable[[str], AbstractContextManager[Callable[[float, str], None]]]
"""Shows the progress of a named part: a context manager of a callable for share and text."""


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
    image: Path | None
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
    started_ns, created_at = time.monotonic_ns(), isoformat_utc(time.time_ns())
    accuracy_part = _Accuracy(options) if options.annotations is not None else None
    latency_part = _Latency(options) if options.latency else None
    machine, edge_tpus = host.machine(), environment.edge_tpu_ports()
    before = host.machine_state()
    rows = latency_part.measure(progress) if latency_part is not None else ()
    pipeline = _pipeline(options, progress) if options.pipeline else ()
    after = host.machine_state()
    scores = accuracy_part.measure(progress) if accuracy_part is not None else ()
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
        method=None if latency_part is None else latency_part.method,
        latency=rows,
        accuracy=scores,
        pipeline=pipeline,
        published=PUBLISHED if rows else (),
        notes=(
            *(() if latency_part is None else latency_part.notes(rows)),
            *(() if accuracy_part is None else accuracy_part.notes()),
        ),
        warnings=tuple(
            environment.warnings(before, after, edge_tpus, rows) if rows or pipeline else ()
        ),
    )
    return document, () if accuracy_part is None else accuracy_part.left_out


class _Latency:
    """The rows to time, and how; raises EdgeposeError if there are none."""

    def __init__(self, options: BenchmarkOptions) -> None:
        found = backends.find(options.accelerators)
        devices = {backend.device for backend in found.backends}
        self._is_table = not options.models
        names = _chosen(options.models, devices) or _table_models(devices)
        if not names:
            raise UsageError(
                f"no model of the table for {' or '.join(sorted(devices))} is installed; "
                "`edgepose models list` shows how to get them"
            )
        self._names = names
        self._missing = found.missing
        self._rows = latency.measurements_of(
            [resolve(name) for name in names], found.backends, options.thread_counts
        )
        if not self._rows:
            raise UsageError(
                f"--models and --accelerator leave nothing to measure: {', '.join(names)} cannot "
                f"run on {', '.join(backend.name for backend in found.backends)}; files for the "
                "Edge TPU end in -edgetpu"
            )
        self._plan = latency.Plan(options.min_runs, options.min_seconds, options.max_seconds)
        path = options.image
        self._image = None if path is None else Frame(read_image(path), 0, 0, path=str(path))
        self.method = latency.method(self._plan, None if path is None else path.name)

    def measure(self, progress: Progress) -> tuple[LatencyRow, ...]:
        """Time all rows; raises EdgeposeError if all fail."""
        with progress("latency") as advance:
            rows = latency.measure(self._rows, self._plan, image=self._image, on_progress=advance)
        failures: list[EdgeposeError] = [r.failure for r in self._rows if r.failure is not None]
        if failures and not any(row.rounds for row in self._rows):
            raise failures[0]
        return rows

    def notes(self, rows: Sequence[LatencyRow]) -> Iterator[str]:
        """Yield how the figures were measured, and what is not among them."""
        yield from tables.method_notes(self.method)
        yield from tables.latency_notes(rows)
        official = [n for n in COUNTERPARTS if n.endswith("-official") and n not in self._names]
        if self._is_table and official:
            yield (
                "The published files themselves are measured too if they are installed: "
                f"`edgepose models pull {official[0]}` (and {', '.join(official[1:])})."
            )
        if self._missing:
            yield f"Not measured: {', '.join(self._missing)}."


class _Accuracy:
    """The models, images and protocols to evaluate; raises EdgeposeError for invalid ones."""

    def __init__(self, options: BenchmarkOptions) -> None:
        assert options.annotations is not None
        assert options.images is not None
        oks.check_installed()
        protocols = options.protocols or accuracy.PROTOCOLS
        self._protocols = [accuracy.PROTOCOLS[name] for name in protocols]
        self._images = [
            image
            for image in coco.read_annotations(options.annotations)
            if any(accuracy.cases_of(image, protocol) for protocol in self._protocols)
        ]
        self._folder = options.images
        coco.check_images(self._images, self._folder)
        chosen = _chosen(options.models, {options.device})
        if not chosen and options.latency:
            chosen = _table_models({options.device})
        names = chosen or [options.config.model.name]
        if options.against is not None and options.against not in names:
            names.insert(0, options.against)
        for name in names:
            resolve(name)
        self._names = names
        self._configs = [_accuracy_config(options, name) for name in names]
        self._against = None if options.against is None else names.index(options.against)
        self._labels: list[str] = []
        self.left_out: tuple[SourceError, ...] = ()

    def measure(self, progress: Progress) -> tuple[AccuracyRow, ...]:
        """Run the models on the images."""
        models = [build_model(each) for each in self._configs]
        names = [model.name for model in models]
        # Two files with the same name are called as they were given.
        self._labels = [
            name if names.count(name) == 1 else given
            for name, given in zip(names, self._names, strict=True)
        ]
        with progress("accuracy") as advance:
            rows, self.left_out = accuracy.evaluate(
                models,
                self._labels,
                self._images,
                self._folder,
                self._protocols,
                against=self._against,
                on_progress=advance,
            )
        for model in models:
            model.interpreter.close()
        return rows

    def notes(self) -> Iterator[str]:
        """Yield how the figures were computed."""
        against = None if self._against is None else self._labels[self._against]
        return accuracy.notes(against, len(self.left_out))


def _pipeline(options: BenchmarkOptions, progress: Progress) -> tuple[PipelineRow, ...]:
    # Late: MQTT, a broker and the sources, which nothing else here needs.
    from edgepose.benchmark import end_to_end

    config = options.config
    if options.device == "edgetpu":
        config = replace(config, accelerator="edgetpu")
    with progress("pipeline") as advance:
        return end_to_end.measure(
            config,
            _chosen(options.models, {options.device}) or [PIPELINE_MODEL],
            options.thread_counts,
            source=options.source,
            given_broker=options.given_broker,
            on_progress=advance,
        )


def _chosen(names: Sequence[str], devices: set[Device]) -> list[str]:
    """Return the named models; `all` is every installed one that the devices can run."""
    if ALL not in names:
        return list(names)
    registry = default_registry()
    installed = [
        entry.name
        for entry in registry.entries.values()
        if entry.accelerator in devices and registry.find(entry)
    ]
    chosen = [each for name in names for each in (installed if name == ALL else [name])]
    if not chosen:
        raise UsageError("no model is installed; `edgepose models list` shows how to get them")
    return list(dict.fromkeys(chosen))


def _table_models(devices: set[Device]) -> list[str]:
    """Return the models of the table that are installed and that one of the devices can run."""
    registry = default_registry()
    entries = [registry.entries[name] for name in TABLE if name in registry.entries]
    return [
        entry.name for entry in entries if entry.accelerator in devices and registry.find(entry)
    ]


def _accuracy_config(options: BenchmarkOptions, name: str) -> Config:
    """Return the configuration of a model: that of the user only for the configured model.

    The backends of the table other than the Edge TPU run on the CPU, with the configured runtime.
    """
    config = options.config
    if options.models or name != config.model.name:
        config = replace(config, model=ModelConfig(name=name))
    entry = default_registry().entries.get(name)
    compiled = entry is not None and entry.accelerator == "edgetpu"
    wanted = set(options.accelerators)
    if options.device == "edgetpu" or (compiled and wanted & {backends.AUTO, backends.EDGETPU}):
        return replace(config, accelerator="edgetpu")
    return config if wanted == {backends.AUTO} else replace(config, accelerator="cpu")


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
