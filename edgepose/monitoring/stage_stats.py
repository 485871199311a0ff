"""Frame rate and percentiles of the stage durations, and histograms of them since the start."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from edgepose.datatypes import StageTimings

CAPACITY: Final = 4096
"""Maximum number of frames kept; of a longer interval the latest ones count."""

_STAGES: Final = StageTimings.__struct_fields__
_NAMES: Final = (*(name.removesuffix("_ns") for name in _STAGES), "publish", "total")
_PERCENTILES: Final = (50, 95, 99)

BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper limits of the histograms; from a stage on an Edge TPU to a frame of Thunder on a Pi 4."""
_BUCKETS_NS: Final = np.array(BUCKETS_S) * 1e9


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many frames took at most each of BUCKETS_S, in total, and the seconds of all together."""

    counts: tuple[int, ...]
    total: int
    sum_s: float


class StageStatistics:
    """Collects stage timings; `take` returns fps and percentiles since the previous call.

    `frames` and the histograms count from the start.
    """

    def __init__(self) -> None:
        self._rows: NDArray[np.int64] = np.zeros((CAPACITY, len(_NAMES)), np.int64)
        self._count = 0
        self._since_ns: int | None = None
        self.frames = 0
        self._in_histograms = 0
        self._counts = np.zeros((len(_NAMES), len(BUCKETS_S)), np.int64)
        self._sums_ns = np.zeros(len(_NAMES), np.int64)
        self._total = 0

    def add(self, timings: StageTimings, publish_ns: int) -> None:
        """Add the timings of a frame, and the time to build and publish its message."""
        self._rows[self._count % CAPACITY] = (
            *astuple(timings),
            publish_ns,
            timings.total_ns + publish_ns,
        )
        self._count += 1
        self.frames += 1

    def histograms(self) -> dict[str, Histogram]:
        """Return a histogram of each stage.

        Of more than CAPACITY frames between two calls it has the latest.
        """
        first = max(self._in_histograms, self._count - CAPACITY)
        rows = self._rows[np.arange(first, self._count) % CAPACITY]
        self._in_histograms = self._count
        self._counts += (rows[:, :, np.newaxis] <= _BUCKETS_NS).sum(axis=0)
        self._sums_ns += rows.sum(axis=0)
        self._total += len(rows)
        return {
            name: Histogram(tuple(counts), self._total, sum_ns / 1e9)
            for name, counts, sum_ns in zip(
                _NAMES, self._counts.tolist(), self._sums_ns.tolist(), strict=True
            )
        }

    def take(self, now_ns: int) -> dict[str, object]:
        """Return fps, and milliseconds by stage and percentile, since the last call; then reset."""
        elapsed_ns = now_ns - self._since_ns if self._since_ns is not None else 0
        fps = self._count * 1e9 / elapsed_ns if elapsed_ns > 0 else 0.0
        summary: dict[str, object] = {"frames": self._count, "fps": round(fps, 2)}
        if self._count:
            values = np.percentile(self._rows[: min(self._count, CAPACITY)], _PERCENTILES, axis=0)
            summary["stages_ms"] = {
                name: {
                    f"p{percentile}": round(float(values[row, column]) / 1e6, 3)
                    for row, percentile in enumerate(_PERCENTILES)
                }
                for column, name in enumerate(_NAMES)
            }
        # Before they are overwritten.
        self.histograms()
        self._count = self._in_histograms = 0
        self._since_ns = now_ns
        return summary
