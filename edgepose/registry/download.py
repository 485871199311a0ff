"""Fetching published model files: resumed where they stopped, checked before anyone uses them.

A file grows as `NAME.part` beside its final place and takes its name only after its size and hash
are right, so a model folder never holds half a model under a whole one's name.
"""

import errno
import fcntl
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from edgepose import __version__
from edgepose.errors import ModelFileError, ModelHashError, UsageError
from edgepose.registry.registry import ModelEntry, check_file, check_hash, check_size

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes there will be, None where unknown."""

MAX_BYTES: Final = 256 << 20
"""The most that is taken where the list does not say how large a file is."""
ATTEMPTS: Final = 4
MIN_BYTES_PER_WINDOW: Final = 1024

_CHUNK_BYTES: Final = 1 << 16
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d*/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient a download is.

    A connection that brings less than `MIN_BYTES_PER_WINDOW` bytes in `timeout_s` is given up.
    """

    timeout_s: float = 30.0
    clock: Callable[[], float] = time.monotonic


class _Interrupted(Exception):
    """The connection ended early; what came is kept, and asking again may bring the rest."""


class _Refused(Exception):
    """The address has not got the file."""


def pull(
    entry: ModelEntry,
    folder: Path,
    *,
    origin: str | None = None,
    progress: Progress = lambda _done, _total: None,
    limits: Limits | None = None,
) -> Path:
    """Put a published model file into a folder, and return its path.

    `origin` replaces the listed addresses: a folder that holds the file under its published name,
    or the URL of one. A right file that is there already is left alone. Raises ModelHashError
    where a wrong file came (it is deleted), UsageError for an origin that is neither, and
    ModelFileError for everything else, with what to copy where.
    """
    target = folder / entry.file
    if _is_right(target, entry):
        return target
    local = None if origin is None else _local_folder(origin)
    addresses = _addresses(entry, origin) if local is None else ()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{entry.file}.part"
        with _locked(part):
            # Another process may have finished it while this one waited for nothing.
            if _is_right(target, entry):
                part.unlink(missing_ok=True)
                return target
            if local is not None:
                _copy(local, part, entry)
            else:
                _fetch_any(addresses, part, entry, target, progress, limits or Limits())
            part.chmod(0o644)
            part.replace(target)
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(_folder_sentence(error, folder)) from None
    return target


def _is_right(path: Path, entry: ModelEntry) -> bool:
    if not path.is_file():
        return False
    try:
        check_size(path, entry)
        check_hash(path, entry)
    except ModelFileError:
        return False
    return True


def _local_folder(origin: str) -> Path | None:
    """Return the folder an origin names; None for a URL."""
    parts = urllib.parse.urlsplit(origin)
    if parts.scheme in ("http", "https"):
        return None
    plain = urllib.parse.unquote(parts.path) if parts.scheme == "file" else origin
    path = Path(plain).expanduser()
    if path.is_dir():
        return path
    raise UsageError(
        f"expected a folder or an http(s) URL to fetch models from, got {origin!r}, which is "
        "neither"
    )


def _addresses(entry: ModelEntry, origin: str | None) -> Sequence[str]:
    if origin is not None:
        return (f"{origin.rstrip('/')}/{urllib.parse.quote(entry.file)}",)
    if not entry.urls:
        raise ModelFileError(
            f"the model {entry.name} is not published as a TFLite file; build it with "
            f"`edgepose models build {entry.name}`"
        )
    return entry.urls


@contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Hold a part file for this process; a part file that nothing came into is removed."""
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelFileError(
                f"{part}: another edgepose is fetching this file; wait for it to end"
            ) from None
        try:
            yield
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()


def _copy(folder: Path, part: Path, entry: ModelEntry) -> None:
    source = folder / entry.file
    if not source.is_file():
        raise ModelFileError(
            f"{folder}: there is no {entry.file} in it, which {entry.name} is made of"
            + (f"; it is published at {entry.urls[0]}" if entry.urls else "")
        )
    check_file(source)
    check_size(source, entry)
    check_hash(source, entry)
    shutil.copyfile(source, part)
    _check(part, entry, str(source))


def _fetch_any(
    addresses: Sequence[str],
    part: Path,
    entry: ModelEntry,
    target: Path,
    progress: Progress,
    limits: Limits,
) -> None:
    """Try addresses in turn until one has the right file."""
    reasons: list[str] = []
    wrong: ModelHashError | None = None
    for address in addresses:
        try:
            _fetch(address, part, entry, progress, limits)
        except ModelHashError as error:
            wrong = error
            reasons.append(str(error))
        except (_Interrupted, _Refused) as error:
            reasons.append(f"{address}: {error}")
        else:
            return
    if wrong is not None and len(reasons) == 1:
        raise wrong
    kept = part.stat().st_size if part.exists() else 0
    resume = f"; the {kept:,} bytes that came are kept, the next try goes on there" if kept else ""
    what = (
        f"git blob id {entry.git_blob_sha1}" if entry.sha256 is None else f"sha256 {entry.sha256}"
    )
    sentence = (
        f"{entry.name} could not be fetched ({'; '.join(reasons)}){resume}. Without a network "
        f"here, download {addresses[0]} on another computer and copy it to {target} ({what}), or "
        f"run `edgepose models pull {entry.name} --from FOLDER` with the folder it lies in"
    )
    raise ModelFileError(sentence) if wrong is None else ModelHashError(sentence)


def _fetch(address: str, part: Path, entry: ModelEntry, progress: Progress, limits: Limits) -> None:
    """Fill a part file from one address, asking again where the connection breaks."""
    for attempt in range(1, ATTEMPTS + 1):
        before = part.stat().st_size
        if entry.bytes is not None and before > entry.bytes:
            os.truncate(part, 0)
            before = 0
        if before and before == entry.bytes:
            break
        try:
            _fetch_once(address, part, entry, progress, limits)
        except _Interrupted:
            # Only a connection that brings something is worth another one.
            if attempt == ATTEMPTS or part.stat().st_size <= before:
                raise
        else:
            break
    _check(part, entry, address)


def _fetch_once(
    address: str, part: Path, entry: ModelEntry, progress: Progress, limits: Limits
) -> None:
    done = part.stat().st_size
    headers = {"User-Agent": f"edgepose/{__version__}", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - http(s) only, see pull
    try:
        with (
            urllib.request.urlopen(request, timeout=limits.timeout_s) as response,  # noqa: S310
            part.open("r+b") as file,
        ):
            if done and not _continues(response, done):
                done = 0
            total = _total(response, done, entry)
            file.truncate(done)
            file.seek(done)
            _receive(response, file, done, total, progress, limits, entry)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            # What is there is as long as the file, or longer: the hash decides, or a new start.
            if entry.bytes is None:
                return
            os.truncate(part, 0)
            raise _Refused("the server cannot go on where the last try stopped") from None
        raise _Refused(f"the server answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _Refused(f"cannot be reached: {_reason(error.reason)}") from None
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _Interrupted(_reason(error)) from None


def _continues(response: http.client.HTTPResponse, done: int) -> bool:
    """Whether an answer goes on where the part file ends, rather than beginning anew."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and bool(
        match and int(match[1]) == done
    )


def _total(response: http.client.HTTPResponse, done: int, entry: ModelEntry) -> int | None:
    """Return the size the whole file will have; raise where it is another file's."""
    length = response.headers.get("Content-Length", "")
    total = done + int(length) if length.isdecimal() else None
    if total is not None and entry.bytes is not None and total != entry.bytes:
        page = ", a web page" if "html" in response.headers.get("Content-Type", "") else ""
        raise _Refused(f"expected {entry.bytes:,} bytes, the server has {total:,}{page}")
    return entry.bytes if total is None else total


def _receive(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    done: int,
    total: int | None,
    progress: Progress,
    limits: Limits,
    entry: ModelEntry,
) -> None:
    most = entry.bytes or MAX_BYTES
    window_began, window_bytes = limits.clock(), 0
    progress(done, total)
    while chunk := response.read1(_CHUNK_BYTES):
        done += len(chunk)
        if done > most:
            file.truncate(0)
            raise _Refused(f"expected {most:,} bytes, the server sent more")
        file.write(chunk)
        progress(done, total)
        window_bytes += len(chunk)
        now = limits.clock()
        if now - window_began >= limits.timeout_s:
            if window_bytes < MIN_BYTES_PER_WINDOW:
                raise _Interrupted(f"only {window_bytes} bytes came in {limits.timeout_s:g} s")
            window_began, window_bytes = now, 0
    if total is not None and done < total:
        raise _Interrupted(f"the connection ended after {done:,} of {total:,} bytes")


def _check(part: Path, entry: ModelEntry, origin: str) -> None:
    """Delete a complete part file that is not the model, and say so."""
    try:
        check_size(part, entry)
        check_hash(part, entry)
        check_file(part)
    except ModelFileError as error:
        # Emptied, the part file goes with its lock.
        os.truncate(part, 0)
        text = str(error).removeprefix(f"{part}: ")
        raise ModelHashError(f"{origin}: wrong file, deleted: {text}") from None


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _folder_sentence(error: OSError, folder: Path) -> str:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "run it with sudo, or name a folder of your own in EDGEPOSE_MODELS"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space and run it again, it goes on where it stopped"
    else:
        remedy = "check the folder, or name another one in EDGEPOSE_MODELS"
    return f"{folder}: models cannot be stored there ({error.strerror or error}); {remedy}"
