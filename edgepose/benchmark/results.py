"""The results of a benchmark: what ran, on which machine, how, and the figures.

Every output format is made of a `Document`, `docs/benchmark.schema.json` is its JSON Schema, and
two documents can be compared. Fields may be added; a changed meaning raises `schema`. Some JSON
names differ from those here: documents that were written earlier stay readable.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edgepose.errors import SourceError
from edgepose.monitoring.host import Machine, MachineState
from edgepose.sources._base import check_file

Milliseconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Threads = Annotated[int, Meta(ge=1)]
Interval = tuple[float, float]
_JSON_NAMES: Final = {
    "backend": "engine",
    "unstable": "doubtful",
    "other_cpu_percent": "others_percent",
    "max_iqr_percent": "max_spread_percent",
}
StageName = Literal[
    "capture",
    "preprocess",
    "invoke",
    "decode",
    "handover",
    "track",
    "smooth",
    "publish",
    "transport",
]


class Published(msgspec.Struct, frozen=True):
    """One row of the table that was published with the models.

    Latencies of a Pixel 5 and of a Raspberry Pi 4, on the CPU with 4 threads; `map` x 100.
    """

    name: str
    megabytes: float
    map: float
    pixel5_cpu_ms: float
    pixel5_gpu_ms: float
    pi4_cpu_ms: float


class PublishedBefore(msgspec.Struct, frozen=True, kw_only=True):
    """The latency of one device on an older page; `name` is that of the network's `Published`."""

    name: str
    megabytes: float
    device: str
    gpu_ms: float
    cpu_ms: float
    cpu_threads: int


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles in milliseconds."""

    p50: Milliseconds
    p95: Milliseconds
    p99: Milliseconds


class Statistics(Percentiles, frozen=True, kw_only=True):
    """Duration of single invokes in milliseconds, over all runs of all rounds."""

    min: Milliseconds
    mean: Milliseconds
    max: Milliseconds
    standard_deviation: Milliseconds


class Rounds(msgspec.Struct, frozen=True, kw_only=True, rename={"iqr_percent": "spread_percent"}):
    """The rounds of a latency row; they show whether its median is reliable.

    `p50_ms` and `runs`: median and number of runs of each round, in order. `spread_percent`: the
    interquartile range of these medians in % of their median. `load_ms` and `first_ms`: loading the
    model and the first invoke, medians over the rounds.
    """

    p50_ms: tuple[Milliseconds, ...]
    runs: tuple[Count, ...]
    iqr_percent: Annotated[float, Meta(ge=0)]
    load_ms: Milliseconds
    first_ms: Milliseconds


class LatencyRow(msgspec.Struct, frozen=True, kw_only=True, rename=_JSON_NAMES):
    """One model on one backend with one number of threads.

    `engine`: litert, litert-without-xnnpack, tflite-runtime or edgetpu; `delegate`: XNNPACK, Edge
    TPU or null. `latency_ms` and `rounds` are null if it did not run; `not_run` is the reason.
    `doubtful`: the reasons why the figures are not reliable. `others_percent`: CPU time of other
    processes in % of one core; `frequency_mhz`: lowest frequency of the fastest core after a round.
    `map`: AP x 100 measured in the same run by `map_protocol`. `published_difference`: how the file
    differs from the published one, null if it is that file. `ratio_to_published_pi4`: p50 relative
    to the published Raspberry Pi 4 latency, null for another network.
    """

    model: str
    bytes: Count
    sha256: str
    input_size_wh: tuple[int, int] | None
    input_dtype: str | None
    precision: str | None
    backend: str
    device: str
    runtime: str
    runtime_version: str
    delegate: str | None
    threads: Threads
    latency_ms: Statistics | None = None
    rounds: Rounds | None = None
    not_run: str | None = None
    unstable: tuple[str, ...] = ()
    other_cpu_percent: float | None = None
    frequency_mhz: float | None = None
    map: float | None = None
    map_protocol: str | None = None
    published: Published | None = None
    published_difference: str | None = None
    ratio_to_published_pi4: float | None = None


class AccuracyRow(msgspec.Struct, frozen=True, kw_only=True, rename={"images": "pictures"}):
    """One model in one accuracy protocol; AP and AR x 100, intervals are 95%.

    `left_out`: images that could not be used. `ap_difference`: AP less that of the model `against`.
    """

    about: str
    model: str
    bytes: Count
    device: str
    protocol: str
    images: Count
    persons: Count
    left_out: Count
    ap: float
    ap_interval_95: Interval | None
    ap50: float
    ap50_interval_95: Interval | None
    ap75: float
    ap75_interval_95: Interval | None
    ar: float
    ar_interval_95: Interval | None
    against: str | None = None
    ap_difference: float | None = None
    ap_difference_interval_95: Interval | None = None


class EdgeTpuPort(msgspec.Struct, frozen=True, kw_only=True):
    """A connected Edge TPU; USB 3 is 5000 Mbit/s, USB 2 is 480."""

    bus: Literal["usb", "pci"]
    usb_mbit_per_s: int | None = None


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the pipeline: median in milliseconds, and share of the sum of all stages."""

    p50: Milliseconds
    share: Annotated[float, Meta(ge=0, le=1)]


class BareInvoke(msgspec.Struct, frozen=True, kw_only=True):
    """`invoke` of the same model in a bare loop, in the same run."""

    p50_ms: Milliseconds
    p99_ms: Milliseconds
    fps: float


class PipelineRounds(msgspec.Struct, frozen=True, kw_only=True):
    """The rounds of a pipeline row, in order."""

    ratios: tuple[float, ...]
    bare_invoke_p50_ms: tuple[Milliseconds, ...]
    latency_p50_ms: tuple[Milliseconds, ...]
    paced_invoke_p50_ms: tuple[Milliseconds, ...]


class PipelineRow(msgspec.Struct, frozen=True, kw_only=True, rename=_JSON_NAMES):
    """The whole daemon, from a source to a subscriber in another process.

    `fps`, `frames` and `seconds` are of frames back to back, or of a live source at its frame rate;
    `pipeline_to_invoke_ratio` is the frame rate relative to that of the bare loop, `overhead_ms`
    and `cpu_overhead_ms` time and processor time per frame less those of the bare loop (medians of
    pairs of rounds, null for a live source). `dropped` frames were replaced by newer ones before
    inference, `lost` messages did not reach the subscriber. `latency_ms` is from the timestamp of a
    frame to the arrival of its message, at the source's frame rate `paced_fps`; so are `stages_ms`,
    and `paced_invoke_ms`, the bare invoke: a processor that idles between frames is slower.
    `doubtful`: the reasons why the figures are not reliable.
    """

    model: str
    device: str
    backend: str
    threads: Threads
    source: str
    width: Count
    height: Count
    broker: str
    frames: Count
    seconds: float
    fps: float
    dropped: Count
    lost: Count
    paced_fps: float
    latency_ms: Percentiles
    stages_ms: dict[StageName, Stage]
    paced_invoke_ms: Percentiles
    bare_invoke: BareInvoke
    pipeline_to_invoke_ratio: float | None
    overhead_ms: float | None
    cpu_overhead_ms: float | None = None
    rounds: PipelineRounds
    unstable: tuple[str, ...] = ()


class Method(msgspec.Struct, frozen=True, kw_only=True, rename=_JSON_NAMES):
    """How latency was measured.

    `max_seconds`: time limit of the whole table. `max_spread_percent`: a row whose rounds' spread
    is above this is unstable. `input`: input of the models. `timed`: what one run includes.
    """

    min_runs: Count
    min_seconds: float
    rounds: Count
    warm_up_seconds: float
    max_seconds: float
    max_iqr_percent: float
    input: str = "random numbers over the whole range of the input"
    seed: int
    timer: str = "perf_counter_ns"
    timed: str = "copying the input in, invoke, copying all outputs out"
    order: str = "every row has one turn per round, in an order shuffled for each round"
    memory: str = "one model is loaded at a time, and again for each of its turns"
    garbage_collector: str = "off during the runs"


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """All results of one `edgepose benchmark`.

    `created_at` is UTC in ISO 8601, `seconds` the duration. `before` and `after` are the state of
    the machine, `runtimes` the installed versions by package, `published` is the published table
    and `published_before` an older page. `notes` explain the figures, `warnings` name what makes
    them unreliable.
    """

    schema: Literal[1] = 1
    kind: Literal["edgepose-benchmark"] = "edgepose-benchmark"
    edgepose: str
    created_at: str
    seconds: float
    machine: Machine
    before: MachineState
    after: MachineState
    edge_tpus: tuple[EdgeTpuPort, ...] = ()
    runtimes: dict[str, str]
    method: Method | None = None
    latency: tuple[LatencyRow, ...] = ()
    accuracy: tuple[AccuracyRow, ...] = ()
    pipeline: tuple[PipelineRow, ...] = ()
    published: tuple[Published, ...] = ()
    published_before: tuple[PublishedBefore, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def fastest_rows(latency: Iterable[LatencyRow]) -> list[LatencyRow]:
    """Return the row of each model that has the lowest median, in the order of the models."""
    rows: dict[str, LatencyRow] = {}
    for row in sorted(latency, key=lambda row: row.latency_ms.p50 if row.latency_ms else math.inf):
        rows.setdefault(row.model, row)
    return [rows[model] for model in dict.fromkeys(row.model for row in latency)]


def encode(document: msgspec.Struct) -> str:
    """Return a document as indented JSON with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def read(path: Path) -> Document:
    """Read a document that `edgepose benchmark --format json` wrote.

    Raises SourceNotFoundError or SourceError with the reason.
    """
    expected = "the JSON of `edgepose benchmark --format json` (schema 1)"
    check_file(path, expected)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Document)
    except ValueError as error:
        raise SourceError(f"{path}: expected {expected}: {error}") from None
