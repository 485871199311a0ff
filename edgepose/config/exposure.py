"""Secrets that other users of this machine can read."""

import shlex
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from edgepose.config.schema import Config
from edgepose.util.redact import masked_url

_OTHERS: Final = stat.S_IROTH | stat.S_IWOTH


def exposed_secrets(config: Config, config_file: Path | None) -> Iterator[str]:
    """Yield a warning for each file with a secret that any user may read or change."""
    passwords = [config.mqtt.password, *(camera.password for camera in config.cameras)]
    urls = [camera.source for camera in config.cameras]
    files = {
        config.mqtt.tls.key_file: "a private key",
        config.mqtt.password_file: "a password",
        **dict.fromkeys((camera.password_file for camera in config.cameras), "a password"),
    }
    if any(passwords) or any(masked_url(url) != url for url in urls):
        files[config_file] = "a password"
    for path, content in files.items():
        # A file that is missing, or a pipe or a device, is reported when it is used.
        with suppress(OSError):
            mode = 0 if path is None else path.stat().st_mode
            if stat.S_ISREG(mode) and mode & _OTHERS:
                yield (
                    f"{path}: contains {content}, and every user of this machine may read or "
                    f"change it; run `chmod o= {shlex.quote(str(path))}`"
                )
