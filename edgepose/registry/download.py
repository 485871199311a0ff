"""Download published model files and check them before use.

A file is written into a temporary folder beside its place and moved there once its size and hash
are right, so a model folder never contains a part of a model, and two downloads do not mix. An
interrupted download starts again from the beginning: the largest known model has 13 MB.
"""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.client import HTTPException, InvalidURL
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from edgepose import __version__
from edgepose.errors import ModelFileError, UsageError
from edgepose.registry.registry import MAX_BYTES, ModelEntry, check_hash
from edgepose.util.folders import expanded
from edgepose.util.redact import masked_url

MIN_BYTES_PER_S: Final = 1024
CHUNK_BYTES: Final = 1 << 16


def pull(
    entry: ModelEntry,
    folder: Path,
    *,
    origin: str | None = None,
    progress: Callable[[int], None] = lambda _bytes: None,
    timeout_s: float = 30.0,
    clock: Callable[[], float] = time.monotonic,
) -> Path:
    """Download a published model file into a folder and return its path.

    A valid file that is there already is kept. `origin` replaces the listed addresses: a folder
    that has the file under its published name, or the URL of one. `progress` is called with the
    number of bytes received so far. A server is given up if it sends nothing for `timeout_s`, or
    less than `MIN_BYTES_PER_S` on average. Raises ModelHashError if a wrong file came, UsageError
    for an invalid origin, and ModelFileError for everything else.
    """
    target = folder / entry.file
    with suppress(ModelFileError):
        check_hash(target, entry)
        return target
    addresses = _addresses(entry, origin)
    failures: list[ModelFileError] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            part = Path(temporary) / entry.file
            for address in addresses:
                try:
                    with part.open("wb") as file:
                        file.writelines(_receive(address, entry, progress, timeout_s, clock))
                    check_hash(part, entry, name=address)
                except ModelFileError as error:
                    failures.append(error)
                else:
                    part.chmod(0o644)
                    return part.replace(target)
    except OSError as error:
        raise ModelFileError(
            f"{folder}: models cannot be stored there ({error.strerror or error}); check its "
            "permissions and the free space, or set EDGEPOSE_MODELS to another folder"
        ) from None
    copy = f"download {entry.urls[0]} on another computer and copy it" if entry.urls else "copy it"
    raise type(failures[-1])(
        f"{entry.name} could not be downloaded ({'; '.join(map(str, failures))}). Try again, "
        f"{copy} to {target} ({entry.digest}), or run `edgepose models pull {entry.name} "
        "--from FOLDER` with the folder it is in"
    )


def _addresses(entry: ModelEntry, origin: str | None) -> Sequence[str]:
    if origin is None:
        if not entry.urls:
            raise ModelFileError(
                f"the model {entry.name} is not published as a TFLite file; build it with "
                f"`{entry.install_command}`"
            )
        return entry.urls
    folder = expanded(origin.removeprefix("file://"))
    if folder.is_dir():
        origin = folder.absolute().as_uri()
    elif not origin.startswith(("https://", "http://")) or masked_url(origin) != origin:
        raise UsageError(
            "expected a folder or an http(s) URL without a password to download models from, got "
            f"{masked_url(origin)!r}"
        )
    return (f"{origin.rstrip('/')}/{entry.file}",)


def _receive(
    address: str,
    entry: ModelEntry,
    progress: Callable[[int], None],
    timeout_s: float,
    clock: Callable[[], float],
) -> Iterator[bytes]:
    """Yield the content of a file; raises ModelFileError with the address and the reason."""
    headers = {"User-Agent": f"edgepose/{__version__}"}
    # S310: `_addresses` and the manifest allow http(s) and existing folders only.
    request = urllib.request.Request(address, headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            done, start_s = 0, clock()
            while chunk := response.read1(CHUNK_BYTES):
                yield chunk
                done += len(chunk)
                progress(done)
                elapsed_s = clock() - start_s
                if done > (entry.bytes or MAX_BYTES):
                    raise ModelFileError(f"{address}: the server sent more than expected")
                if elapsed_s > timeout_s and done < elapsed_s * MIN_BYTES_PER_S:
                    raise ModelFileError(f"{address}: only {done} bytes came in {elapsed_s:.0f} s")
    except ModelFileError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        raise ModelFileError(f"{address}: {error}") from None
    except InvalidURL:
        # Its text can contain the password of a proxy.
        raise ModelFileError(f"{address}: this address, or that of the proxy, is invalid") from None
    except (OSError, HTTPException) as error:
        # A URLError contains the error of the system.
        raise ModelFileError(f"{address}: {getattr(error, 'reason', error)}") from None
