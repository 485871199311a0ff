"""Where results are written, found out before the work that makes them."""

import os
from pathlib import Path

from edgepose.errors import UsageError


def check_writable(path: Path | None, option: str) -> None:
    """Raise UsageError where a file cannot be written; None is stdout, and fine."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{path}: {option} takes a file, this is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} is not there; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{path}: it may not be written there; name another {option}")
