"""The document a benchmark leaves behind: what ran, where, how, and what came out.

Every output format is made of it, `docs/benchmark.schema.json` describes it, and two of them can
be compared. Fields may be added; a changed meaning raises `schema`.
"""

import inspect
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from edgepose.errors import SourceError, SourceNotFoundError
from edgepose.monitoring.host import Machine, MachineState

KIND: Final = "edgepose-benchmark"
SCHEMA_ID: Final = "benchmark.schema.json"

Milliseconds = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Interval = tuple[float, float]
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


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table that was published with the models; latencies in milliseconds."""

    name: str
    megabytes: float
    map: float
    pixel5_cpu_ms: Annotated[float, msgspec.Meta(description="Pixel 5, CPU, 4 threads")]
    pixel5_gpu_ms: Annotated[float, msgspec.Meta(description="Pixel 5, GPU")]
    pi4_cpu_ms: Annotated[float, msgspec.Meta(description="Raspberry Pi 4, CPU, 4 threads")]


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """How long single invokes took, in milliseconds, over all runs of all rounds."""

    min: Milliseconds
    mean: Milliseconds
    p50: Milliseconds
    p95: Milliseconds
    p99: Milliseconds
    max: Milliseconds
    standard_deviation: Milliseconds


class Rounds(msgspec.Struct, frozen=True, kw_only=True):
    """What the rounds of a row say of it: whether its median can be trusted."""

    p50_ms: Annotated[
        tuple[Milliseconds, ...], msgspec.Meta(description="The median of each round, in order")
    ]
    runs: Annotated[tuple[Count, ...], msgspec.Meta(description="The runs of each round, in order")]
    spread_percent: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            description="Middle half of the rounds' medians, in % of their median",
        ),
    ]
    load_ms: Annotated[
        Milliseconds, msgspec.Meta(description="Reading and preparing the model, median")
    ]
    first_ms: Annotated[
        Milliseconds, msgspec.Meta(description="The first invoke after loading, median")
    ]


class LatencyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one engine with one number of threads.

    `latency_ms` and `rounds` are None where it did not run, and `not_run` says why. `doubtful` are
    the reasons not to trust the figures, empty where there are none.
    """

    model: str
    bytes: Count
    sha256: str
    input_size_wh: tuple[int, int] | None
    input_dtype: str | None
    precision: str | None
    engine: Annotated[
        str, msgspec.Meta(description="litert, litert-without-xnnpack, tflite-runtime, edgetpu")
    ]
    device: str
    runtime: str
    runtime_version: str
    delegate: Annotated[str | None, msgspec.Meta(description="XNNPACK, Edge TPU or none")]
    threads: Annotated[int, msgspec.Meta(ge=1)]
    latency_ms: Statistics | None = None
    rounds: Rounds | None = None
    not_run: str | None = None
    doubtful: tuple[str, ...] = ()
    others_percent: Annotated[
        float | None,
        msgspec.Meta(description="CPU time of other processes meanwhile, in % of one core"),
    ] = None
    frequency_mhz: Annotated[
        float | None,
        msgspec.Meta(description="Lowest frequency seen right after a round, of the fastest core"),
    ] = None
    map: Annotated[
        float | None,
        msgspec.Meta(description="AP x 100 measured in the same run, by `map_protocol`"),
    ] = None
    map_protocol: str | None = None
    published: Published | None = None
    published_difference: Annotated[
        str | None,
        msgspec.Meta(description="How the file differs from the published one; null: not"),
    ] = None
    ratio_to_published_pi4: Annotated[
        float | None,
        msgspec.Meta(
            description="p50 / the published latency on a Raspberry Pi 4; null for another network"
        ),
    ] = None

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes rows of two documents the same row."""
        return self.model, self.engine, self.threads


class AccuracyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model in one accuracy protocol; AP and AR x 100, intervals are 95%."""

    about: str
    model: str
    bytes: Count
    device: str
    protocol: str
    pictures: Count
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
    """An Edge TPU that was plugged in; USB 3 is 5000 Mbit a second, USB 2 480."""

    bus: Literal["usb", "pci"]
    usb_mbit_per_s: int | None = None


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles in milliseconds."""

    p50: Milliseconds
    p95: Milliseconds
    p99: Milliseconds


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the line: its median in milliseconds, and its share of all stages' sum."""

    p50: Milliseconds
    share: Share


class BareInvoke(msgspec.Struct, frozen=True, kw_only=True):
    """The same model's invoke in a loop of its own, in the same run."""

    p50_ms: Milliseconds
    p99_ms: Milliseconds
    fps: float


class PipelineRounds(msgspec.Struct, frozen=True, kw_only=True):
    """What the rounds of a row say of it, each tuple in their order."""

    ratios: tuple[float, ...]
    bare_invoke_p50_ms: tuple[Milliseconds, ...]
    latency_p50_ms: tuple[Milliseconds, ...]
    paced_invoke_p50_ms: tuple[Milliseconds, ...]


class PipelineRow(msgspec.Struct, frozen=True, kw_only=True):
    """The whole line, from a source to a subscriber in another process.

    `fps`, `frames` and `seconds` are of frames back to back, or of the source's pace where that is
    a camera. `dropped` frames were too old when the line was free, `lost` messages never reached
    the subscriber. `latency_ms` is from a frame's timestamp to its message received, at the
    source's pace; so are `stages_ms`, and `paced_invoke_ms`: a processor that idles in between is
    slower.
    """

    model: str
    device: str
    engine: str
    threads: Annotated[int, msgspec.Meta(ge=1)]
    source: str
    width: Count
    height: Count
    broker: str
    frames: Count
    seconds: float
    fps: float
    dropped: Count
    lost: Count
    paced_fps: Annotated[float, msgspec.Meta(description="Frames a second while latency was taken")]
    latency_ms: Percentiles
    stages_ms: dict[StageName, Stage]
    paced_invoke_ms: Annotated[
        Percentiles, msgspec.Meta(description="The bare invoke at the source's pace, same run")
    ]
    bare_invoke: BareInvoke
    pipeline_to_invoke_ratio: Annotated[
        float | None,
        msgspec.Meta(
            description="Frames a second of the line / of the bare invoke loop, back to back, "
            "median of pairs of rounds; null where a camera gives the pace"
        ),
    ]
    overhead_ms: Annotated[
        float | None,
        msgspec.Meta(description="Time a frame takes the line less the bare loop, back to back"),
    ]
    rounds: PipelineRounds
    doubtful: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, int, str, int, int]:
        """What makes rows of two documents the same row."""
        return self.model, self.engine, self.threads, self.source, self.width, self.height


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """How latency was measured; the sentences that people read are made of it."""

    min_runs: Count
    min_seconds: float
    rounds: Count
    warm_up_seconds: float
    max_seconds: Annotated[float, msgspec.Meta(description="The time the whole table may take")]
    max_spread_percent: Annotated[
        float, msgspec.Meta(description="From which spread on a row is called doubtful")
    ]
    input: Annotated[str, msgspec.Meta(description="What the models saw")]
    seed: int
    timer: str
    timed: Annotated[str, msgspec.Meta(description="What one run includes")]
    order: str
    memory: str
    garbage_collector: str


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one `edgepose benchmark` found out.

    `seconds` is how long it took. `notes` explain the figures, `warnings` say what makes them
    doubtful.
    """

    schema: Literal[1] = 1
    kind: Literal["edgepose-benchmark"] = KIND
    edgepose: str
    created_at: Annotated[str, msgspec.Meta(description="UTC, ISO 8601")]
    seconds: float
    machine: Machine
    before: MachineState
    after: MachineState
    edge_tpus: tuple[EdgeTpuPort, ...] = ()
    runtimes: Annotated[dict[str, str], msgspec.Meta(description="Installed versions by package")]
    method: Method | None = None
    latency: tuple[LatencyRow, ...] = ()
    accuracy: tuple[AccuracyRow, ...] = ()
    pipeline: tuple[PipelineRow, ...] = ()
    published: Annotated[
        tuple[Published, ...], msgspec.Meta(description="The published table, unchanged")
    ] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def encode(document: Document) -> bytes:
    """Return a document as JSON for files and people, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def read(path: Path) -> Document:
    """Read a document that `edgepose benchmark --format json` wrote.

    Raises SourceNotFoundError or SourceError with what is wrong.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise SourceNotFoundError(f"{path}: there is no such benchmark file") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot read the benchmark: {error.strerror}") from error
    try:
        return msgspec.json.decode(content, type=Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{path}: expected the JSON of `edgepose benchmark --format json` (schema 1), got "
            f"something else ({error})"
        ) from None


def json_schema() -> bytes:
    """Return the JSON Schema of a document, as `docs/benchmark.schema.json` holds it."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "What `edgepose benchmark --format json` writes",
        **_normal(msgspec.json.schema(Document)),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


def _normal(value: Any) -> Any:
    """Return a schema that does not depend on the Python that made it.

    `typing` keeps one of two equal annotations, so whether a limit is 0 or 0.0 would depend on
    which module was imported first; and Python 3.13 takes the indentation out of docstrings.
    """
    match value:
        case dict():
            return {key: _normal(item) for key, item in value.items()}
        case list() | tuple():
            return [_normal(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case str():
            return inspect.cleandoc(value)
        case _:
            return value
