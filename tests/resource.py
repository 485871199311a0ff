"""The context manager of everything with `open` and `close`."""

from abc import ABC, abstractmethod
from typing import Self


class Resource(ABC):
    """A context manager that calls `open` and `close`.

    An `open` that raises cleans up first: `close` is not called then.
    """

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def open(self) -> None:  # noqa: B027 - optional
        """Open the resource; one that is open from the start does not override this."""

    @abstractmethod
    def close(self) -> None:
        """Close the resource; a second call does nothing."""
