"""What is opened and closed, by `with` or by hand."""

from types import TracebackType
from typing import Self


class Resource:
    """A context manager over `open` and `close`, which a subclass fills in.

    Where `open` raises, it has cleared up: `close` is not called then.
    """

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open it."""

    def close(self) -> None:
        """Close it; closing twice is fine."""
