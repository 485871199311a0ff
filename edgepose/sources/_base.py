"""What every source does the same way."""

from types import TracebackType
from typing import Self


class OpenableSource:
    """A context manager over `open` and `close`, which a source fills in."""

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
        """Open the source; raises SourceError."""

    def close(self) -> None:
        """Close the source; closing twice is fine."""
