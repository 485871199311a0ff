"""No smoothing."""

from edgepose.datatypes import TrackedPoses


class NoSmoother:
    """Returns poses unchanged."""

    def apply(self, tracked: TrackedPoses, timestamp_ns: int) -> TrackedPoses:  # noqa: ARG002
        """Return the poses unchanged."""
        return tracked

    def reset(self) -> None:
        """Do nothing: there is no state."""
