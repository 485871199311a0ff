"""What a node counts: the source of `stats`, of the metrics and of the page."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgepose.monitoring.stage_stats import Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraCounters:
    """The counters of one camera since the start; `people`, `up` and `idle` are of now.

    `dropped` counts by reason: `overwritten` by a newer frame before it was processed, `no_model`
    while no model could run.
    """

    up: bool
    idle: bool
    people: int
    frames: int
    dropped: Mapping[str, int]
    reopened: int
    verifications: int
    stages: Mapping[str, Histogram]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCounters:
    """The counters of a node since the start, and what is measured now.

    `mqtt` are the counters of the broker's client, empty without one; `throttling` is None where
    the board does not report it.
    """

    node: str
    cameras: Mapping[str, CameraCounters]
    device: str
    model: str | None
    degraded: bool
    restarts: int
    mqtt: Mapping[str, int | bool]
    output_dropped: int
    temperatures_c: Mapping[str, float]
    throttling: tuple[str, ...] | None
    memory_bytes: float | None
