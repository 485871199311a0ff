"""What `edgepose benchmark` does between its options and its report."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edgepose import __version__
from edgepose.benchmark import accuracy, coco, latency, plot, report
from edgepose.benchmark import backends as engines
from edgepose.benchmark import environment as conditions
from edgepose.benchmark.reference_table import COUNTERPARTS, PUBLISHED, TABLE
from edgepose.benchmark.results import AccuracyRow, Document, LatencyRow, PipelineRow
from edgepose.build import build_model
from edgepose.clock import isoformat_utc
from edgepose.config import Config
from edgepose.datatypes import Frame
from edgepose.errors import UsageError
from edgepose.inference.cpu import default_threads
from edgepose.monitoring import host
from edgepose.registry.registry import Device, Registry, default_registry, resolve
from edgepose.sources.images import read_image

ALL: Final = "all"
PIPELINE_MODEL: Final = "movenet-lightning-int8"

_CPU: Final[Device] = "cpu"
_EDGETPU: Final[Device] = "edgetpu"
_MAP_PROTOCOL: Final = "single"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be measured, as the command line says it; `threads` None means the defaults."""

    config: Config
    names: tuple[str, ...]
    threads: tuple[int, ...] | None
    accelerators: tuple[str, ...]
    min_runs: int
    min_seconds: float
    max_seconds: float
    picture: Path | None
    with_latency: bool
    with_pipeline: bool
    source: str | None
    with_broker: bool
    annotations: Path | None
    images: Path | None
    protocols: tuple[str, ...]
    against: str | None
    with_plot: bool


def run(order: Order) -> tuple[Document, int]:
    """Measure, and return the document and how many pictures could not be used.

    Raises EdgeposeError with what cannot be measured, as far as possible before the long part.
    """
    started_ns, created_at = time.monotonic_ns(), isoformat_utc(time.time_ns())
    if order.with_plot:
        plot.check_installed()
    looks = _Accuracy(order) if order.annotations is not None else None
    timing = _Latency(order) if order.with_latency else None
    machine, edge_tpus, before = host.machine(), conditions.edge_tpu_ports(), host.machine_state()
    rows = timing.measure() if timing is not None else ()
    pipeline = _pipeline(order) if order.with_pipeline else ()
    after = host.machine_state()
    scores = looks.measure() if looks is not None else ()
    rows = _with_map(rows, scores)
    document = Document(
        edgepose=__version__,
        created_at=created_at,
        seconds=round((time.monotonic_ns() - started_ns) / 1e9, 1),
        machine=machine,
        before=before,
        after=after,
        edge_tpus=edge_tpus,
        runtimes=engines.runtimes(),
        method=None if timing is None else timing.method,
        latency=rows,
        accuracy=scores,
        pipeline=pipeline,
        published=PUBLISHED if rows else (),
        notes=(
            *(() if timing is None else timing.notes(rows)),
            *(() if looks is None else looks.notes()),
        ),
        warnings=conditions.warnings(before, after, edge_tpus, rows) if rows or pipeline else (),
    )
    return document, 0 if looks is None else looks.left_out


class _Latency:
    """The rows to time, and how; raises EdgeposeError where there are none."""

    def __init__(self, order: Order) -> None:
        found = engines.find(order.accelerators)
        devices = {engine.device for engine in found.engines}
        registry = default_registry()
        self._is_table = not order.names
        names = _chosen(order.names, devices) or _of_the_table(registry, devices)
        if not names:
            raise UsageError(
                f"no model of the table for {' or '.join(sorted(devices))} is on this machine; "
                "`edgepose models list` says how to get them"
            )
        self._models = [registry.resolve(name) for name in names]
        self._rows = latency.rows_of(
            self._models, found.engines, order.threads or _default_threads()
        )
        if not self._rows:
            raise UsageError(
                f"--models and --accelerator leave nothing to measure: {', '.join(names)} "
                f"cannot run on {', '.join(engine.name for engine in found.engines)}; files for "
                "the Edge TPU end in -edgetpu"
            )
        self._missing = found.missing
        self._plan = latency.Plan(order.min_runs, order.min_seconds, order.max_seconds)
        self._picture, seen = None, None
        if order.picture is not None:
            self._picture = Frame(read_image(order.picture), 0, 0, path=str(order.picture))
            seen = f"the picture {order.picture.name}"
        self.method = latency.method(self._plan, seen)

    def measure(self) -> tuple[LatencyRow, ...]:
        """Time all rows; raises EdgeposeError where not one of them ran."""
        with _progress("latency") as advance:
            latency.measure(self._rows, self._plan, picture=self._picture, on_progress=advance)
        failures = [row.failure for row in self._rows if row.failure is not None]
        if failures and not any(row.turns for row in self._rows):
            raise failures[0]
        return latency.latency_rows(self._rows, self._plan)

    def notes(self, rows: Sequence[LatencyRow]) -> tuple[str, ...]:
        """Return how the figures came about, and what is not among them."""
        notes = [*report.method_notes(self.method), *report.latency_notes(rows)]
        names = {model.name for model in self._models}
        missing = [
            name for name in COUNTERPARTS if name.endswith("-official") and name not in names
        ]
        if self._is_table and missing:
            notes.append(
                f"The published files themselves are measured too where they are on the machine: "
                f"`edgepose models pull {missing[0]}` (and {', '.join(missing[1:])})."
            )
        if self._missing:
            notes.append(f"Not measured: {', '.join(self._missing)}.")
        return tuple(notes)


class _Accuracy:
    """The models, pictures and protocols to compare."""

    def __init__(self, order: Order) -> None:
        assert order.annotations is not None
        assert order.images is not None
        self._pycocotools = accuracy.check_installed()
        self._protocols = [accuracy.PROTOCOLS[n] for n in order.protocols or accuracy.PROTOCOLS]
        # Everything that can be wrong is found before the long part.
        self._pictures = [
            picture
            for picture in coco.read_annotations(order.annotations)
            if any(accuracy.cases_of(picture, protocol) for protocol in self._protocols)
        ]
        self._folder = order.images
        coco.check_images(tuple(self._pictures), self._folder)
        self._configs, self._against = _configs(order)
        self._labels: list[str] = []
        self.left_out = 0

    def measure(self) -> tuple[AccuracyRow, ...]:
        """Run the models on the pictures, and name on stderr those that cannot be used."""
        models = [build_model(each) for each in self._configs]
        self._labels = _labels(
            [model.name for model in models], [each.model.name for each in self._configs]
        )
        total = max(len(self._pictures), 1)
        with _progress("accuracy") as advance:
            done = 0

            def next_picture() -> None:
                nonlocal done
                done += 1
                advance(done / total, f"{done} of {total} pictures")

            evaluation = accuracy.evaluate(
                models, self._pictures, self._folder, self._protocols, on_picture=next_picture
            )
        for model in models:
            model.interpreter.close()
        for error in evaluation.left_out:
            print(f"edgepose: left out: {error}", file=sys.stderr)
        self.left_out = len(evaluation.left_out)
        return report.accuracy_rows(evaluation, models, self._labels, self._against)

    def notes(self) -> tuple[str, ...]:
        """Return how the figures came about."""
        against = None if self._against is None else self._labels[self._against]
        return report.accuracy_notes(self._pycocotools, against, self.left_out)


def _pipeline(order: Order) -> tuple[PipelineRow, ...]:
    # Late: MQTT, a broker and the sources, which nothing else here needs.
    from edgepose.benchmark import end_to_end as pipeline

    config, device = order.config, _CPU
    if _only_edgetpu(order):
        device = _EDGETPU
        config = msgspec.structs.replace(config, accelerator=device)
    names = _chosen(order.names, {device}) or [PIPELINE_MODEL]
    with _progress("pipeline") as advance:
        return pipeline.measure(
            config,
            names,
            order.threads or _default_threads(),
            source=order.source,
            given_broker=order.with_broker,
            on_progress=advance,
        )


def _default_threads() -> tuple[int, ...]:
    return tuple(dict.fromkeys((1, default_threads())))


def _chosen(names: Sequence[str], devices: set[Device]) -> list[str]:
    """Return the models that --models names, `all` taken for those here that devices can run."""
    chosen = [name.strip() for text in names for name in text.split(",") if name.strip()]
    if names and not chosen:
        raise UsageError("--models is empty, expected names of models, or all")
    if ALL in chosen:
        registry = default_registry()
        here = [
            entry.name
            for entry in registry.entries.values()
            if entry.accelerator in devices and registry.find(entry)
        ]
        chosen = [each for name in chosen for each in (here if name == ALL else [name])]
        if not chosen:
            raise UsageError("no model is on this machine; `edgepose models list` says how to get")
    return list(dict.fromkeys(chosen))


def _configs(order: Order) -> tuple[list[Config], int | None]:
    """Return a configuration for every model, and which one the others are compared with."""
    config, own = order.config, order.config.model.name
    chosen = _chosen(order.names, {"edgetpu"} if _only_edgetpu(order) else {"cpu"})
    if not chosen and order.with_latency:
        chosen = _of_the_table(default_registry(), {"edgetpu"} if _only_edgetpu(order) else {"cpu"})
    wanted = chosen or [own]
    if order.against is not None and order.against not in wanted:
        wanted.insert(0, order.against)
    for name in wanted:
        resolve(name)
    configs = [
        config
        if not order.names and name == own
        # Kind, input size and the like in the file are those of the model that the file names.
        else msgspec.structs.replace(config, model=type(config.model)(name=name))
        for name in wanted
    ]
    configs = [
        each
        if (device := _accuracy_device(order, each.model.name)) is None
        else msgspec.structs.replace(each, accelerator=device)
        for each in configs
    ]
    against = None if order.against is None else wanted.index(order.against)
    return configs, against


def _accuracy_device(order: Order, name: str) -> Device | None:
    """Return where a model's accuracy is measured; None leaves it to the configuration.

    The table's other engines are ways of the CPU, where the configured runtime is taken.
    """
    entry = default_registry().entries.get(name)
    compiled = entry is not None and entry.accelerator == "edgetpu"
    words = set(order.accelerators)
    if _only_edgetpu(order) or (compiled and words & {engines.AUTO, engines.EDGETPU}):
        return "edgetpu"
    return None if words == {engines.AUTO} else "cpu"


def _only_edgetpu(order: Order) -> bool:
    return set(order.accelerators) == {engines.EDGETPU}


def _of_the_table(registry: Registry, devices: set[Device]) -> list[str]:
    """Return the models of the table that are on this machine and one of the devices can run."""
    entries = [registry.entries[name] for name in TABLE if name in registry.entries]
    return [
        entry.name for entry in entries if entry.accelerator in devices and registry.find(entry)
    ]


def _labels(names: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return what each model is called: its name, or as it was given where two share one."""
    return [
        name if names.count(name) == 1 else asked for name, asked in zip(names, given, strict=True)
    ]


def _with_map(rows: Sequence[LatencyRow], scores: Sequence[AccuracyRow]) -> tuple[LatencyRow, ...]:
    """Return the rows with the AP measured in the same run, of the protocol nearest to mAP's."""
    protocols = dict.fromkeys(score.protocol for score in scores)
    protocol = _MAP_PROTOCOL if _MAP_PROTOCOL in protocols else next(iter(protocols), None)
    measured: Mapping[tuple[str, str], float] = {
        (score.model, score.device): score.ap for score in scores if score.protocol == protocol
    }
    return tuple(
        msgspec.structs.replace(row, map=measured[key], map_protocol=protocol)
        if (key := (row.model, row.device)) in measured
        else row
        for row in rows
    )


@contextmanager
def _progress(what: str) -> Iterator[Callable[[float, str], None]]:
    """Show a bar on stderr where that is a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _share, _text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, text: bar.update(task, completed=share, description=text)
