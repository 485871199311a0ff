"""The folders of a user, who may have no home, as in a container."""

import os
from pathlib import Path
from typing import Final

MACHINE_STATE: Final = Path("/var/lib/edgepose")
"""The folder of the service, and of a user without a home."""
_DEFAULTS: Final = {
    "XDG_CONFIG_HOME": "~/.config",
    "XDG_STATE_HOME": "~/.local/state",
    "XDG_DATA_HOME": "~/.local/share",
    "XDG_CACHE_HOME": "~/.cache",
}


def expanded(path: str) -> Path:
    """Return a path with `~` replaced; `~name` of an unknown user is a file name."""
    # `Path.expanduser` raises for an unknown user.
    return Path(os.path.expanduser(path))  # noqa: PTH111


def xdg_folder(variable: str) -> Path | None:
    """Return `edgepose` in a base folder of the user; None for a user without a home.

    `variable` is that of the XDG base directory specification.
    """
    given = os.environ.get(variable)
    folder = expanded(given or _DEFAULTS[variable])
    # An empty HOME would be taken for the root of the file system.
    has_home = folder.is_absolute() and os.environ.get("HOME") != ""
    return folder / "edgepose" if given or has_home else None
