"""Files that can neither block nor exhaust memory, and that others cannot read or redirect."""

import codecs
import errno
import os
import stat
from contextlib import suppress
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


def open_regular_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a regular file and return its descriptor; `mode` is that of a new one.

    Raises OSError, also for a symbolic link, which may lead to any file, and for another
    kind of file, which could block.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(0, "expected a regular file, got a symbolic link") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "expected a regular file, got a pipe or a device")
    return descriptor


def make_private_folder(path: Path) -> None:
    """Create a folder and its missing parents, for their owner only; raises OSError."""
    if not path.exists():
        make_private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file by one for its owner only; a power cut leaves the old or the new one.

    The folder is created if it is missing. Raises OSError.
    """
    make_private_folder(path.parent)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    # The file is there already, and not every file system can do this for folders.
    with suppress(OSError):
        os.fsync(folder)
    os.close(folder)


def is_utf16(content: bytes) -> bool:
    """Whether a text begins with the mark of UTF-16, which some editors write."""
    return content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
