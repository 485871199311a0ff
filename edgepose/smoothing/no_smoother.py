"""No smoothing at all."""

from edgepose.datatypes import TrackedPoses


class NoSmoother:
    """Returns what it is given."""

    def apply(self, tracked: TrackedPoses, timestamp_ns: int) -> TrackedPoses:  # noqa: ARG002
        """Return the poses unchanged."""
        return tracked

    def reset(self) -> None:
        """Nothing is remembered, so nothing is forgotten."""
