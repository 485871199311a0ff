"""The configuration that a first set-up writes."""

import os
import shutil
from pathlib import Path
from typing import Any, Final

import yaml

from edgepose.config.loader import SYSTEM_FILE, load_config
from edgepose.util.files import replace_file
from edgepose.util.folders import xdg_folder

SERVICE_USER: Final = "edgepose"
CREDENTIAL: Final = Path("/etc/credstore/edgepose.mqtt-password")
"""systemd passes it to the service, whose configuration then needs no password."""
PASSWORD_FILE: Final = "mqtt-password"  # noqa: S105 - a file's name
_HEAD: Final = """\
# Written by `edgepose setup`. Every other key has its default: `edgepose config sample` prints them
# all with their meaning, `edgepose config check` lists the errors of this file.
"""


def default_path() -> Path:
    """Return the file of the service for root, and this user's for others."""
    if os.geteuid() == 0:
        return SYSTEM_FILE
    folder = xdg_folder("XDG_CONFIG_HOME")
    return Path.cwd() / "edgepose.yaml" if folder is None else folder / "config.yaml"


def write_config(path: Path, values: dict[str, Any], password: str | None) -> list[Path]:
    """Write a configuration, and the password into another file; return the written files.

    Both are for their owner only, and the service's group if it exists. Raises OSError, and
    ConfigError if the configuration would not be accepted.
    """
    written = [path]
    mqtt = dict(values.get("mqtt", {}))
    if password is not None:
        secret = CREDENTIAL if path == SYSTEM_FILE else path.with_name(PASSWORD_FILE)
        if secret != CREDENTIAL:
            mqtt["password_file"] = secret.name
        replace_file(secret, f"{password}\n".encode())
        written.append(secret)
    text = _HEAD + yaml.safe_dump({**values, "mqtt": mqtt}, sort_keys=False, allow_unicode=True)
    # Checked before it replaces another one.
    trial = path.with_suffix(".trial")
    replace_file(trial, text.encode())
    try:
        load_config(trial)
    finally:
        trial.unlink()
    replace_file(path, text.encode())
    if path == SYSTEM_FILE:
        path.parent.chmod(0o755)
        try:
            shutil.chown(path, group=SERVICE_USER)
            path.chmod(0o640)
        except LookupError:
            # The service is not installed.
            path.chmod(0o644)
    return written
