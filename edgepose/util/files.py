"""Reading small files that a user names, of which none may block or exhaust memory."""

import codecs
import os
import stat
from pathlib import Path


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises OSError, whose `strerror` is the reason, also for another kind of file, such as a pipe,
    which could block or never end, and for a larger file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(0, "expected a regular file, got a folder, a pipe or a device")
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(0, f"expected at most {max_bytes >> 10} KiB, got a larger file")
    return content


def is_utf16(content: bytes) -> bool:
    """Whether a text begins with the mark of UTF-16, which some editors write."""
    return content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def expanded(path: str) -> Path:
    """Return a path with `~` replaced; `~name` of an unknown user is a file name."""
    # `Path.expanduser` raises for an unknown user.
    return Path(os.path.expanduser(path))  # noqa: PTH111
