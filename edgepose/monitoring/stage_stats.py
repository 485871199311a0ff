"""Frame rate and percentiles of the stage durations over the last interval."""

from dataclasses import fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgepose.datatypes import StageTimings

CAPACITY: Final = 4096
"""Maximum number of frames kept; of a longer interval the latest ones count."""

_STAGES: Final = tuple(field.name for field in fields(StageTimings))
_NAMES: Final = (*(name.removesuffix("_ns") for name in _STAGES), "publish", "total")
_PERCENTILES: Final = (50, 95, 99)


class StageStatistics:
    """Collects stage timings; `take` returns fps and percentiles since the previous call."""

    def __init__(self) -> None:
        self._rows: NDArray[np.int64] = np.zeros((CAPACITY, len(_NAMES)), np.int64)
        self._count = 0
        self._since_ns: int | None = None

    def add(self, timings: StageTimings, publish_ns: int) -> None:
        """Add the timings of a frame, and the time to build and publish its message."""
        self._rows[self._count % CAPACITY] = (
            *(getattr(timings, name) for name in _STAGES),
            publish_ns,
            timings.total_ns + publish_ns,
        )
        self._count += 1

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
        self._count = 0
        self._since_ns = now_ns
        return summary
