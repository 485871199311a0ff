"""The models edgepose knows by name, and the folders with their files.

`manifest.json` lists them: those that edgepose builds from published weights, and those that others
publish as TFLite files, with their URLs. It is bundled beside the model files; one in another model
folder adds to it and takes precedence.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edgepose.errors import ModelFileError, ModelHashError, UnknownModelError
from edgepose.registry.tflite_file import IDENTIFIER, is_compiled
from edgepose.util.files import read_regular_file
from edgepose.util.folders import MACHINE_STATE, expanded, xdg_folder
from edgepose.util.suggest import did_you_mean
from edgepose.util.text import printable, valid_text

Device = Literal["cpu", "edgetpu"]

MANIFEST: Final = "manifest.json"
MACHINE_FOLDER: Final = MACHINE_STATE / "models"
SUFFIX: Final = ".tflite"
EDGETPU_SUFFIXES: Final = ("-edgetpu", "_edgetpu")
"""The ends of the name of a compiled file: ours, and that of Coral's compiler."""
MIN_BYTES: Final = 1024
MAX_BYTES: Final = 256 << 20
"""Largest size of a model file; the largest known one has 13 MB, and files are read as a whole."""
MAX_MANIFEST_BYTES: Final = 1 << 20


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model of a manifest: its properties, and the size and hash of its file.

    `bytes` is None if the size was never published; `git_blob_sha1` then replaces `sha256`. `urls`
    are the published addresses, empty for a model that `edgepose models build` makes.
    """

    name: Annotated[str, Meta(pattern=r"^[\w.-]+\Z")]
    kind: Literal["movenet_single", "movenet_multipose", "posenet"]
    file: Annotated[str, Meta(pattern=r"^[\w.-]+\.tflite\Z")]
    input_size_wh: tuple[int, int]
    input_dtype: str
    precision: str
    source: str
    licence: str
    made_by: str
    bytes: Annotated[int, Meta(ge=1)] | None = None
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")] | None = None
    git_blob_sha1: Annotated[str, Meta(pattern=r"^[0-9a-f]{40}\Z")] | None = None
    accelerator: Device = "cpu"
    urls: tuple[Annotated[str, Meta(pattern=r"^https?://[!-~]+\Z")], ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.sha256 is None and self.git_blob_sha1 is None:
            raise ValueError(f"{self.name}: needs sha256 or git_blob_sha1")

    @property
    def digest(self) -> str:
        """The name of the hash and its value, for messages."""
        return f"sha256 {self.sha256}" if self.sha256 else f"git blob id {self.git_blob_sha1}"

    @property
    def install_command(self) -> str:
        """The command that installs the file."""
        return f"edgepose models {'pull' if self.urls else 'build'} {self.name}"


class Manifest(msgspec.Struct, frozen=True):
    """The contents of a `manifest.json`."""

    schema: Literal[1]
    models: tuple[ModelEntry, ...]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """An installed model file; `entry` is None for a file of the user."""

    name: str
    path: Path
    entry: ModelEntry | None = None


@dataclass(frozen=True, slots=True)
class Registry:
    """The known models, and the folders that may hold their files, in the order of the search."""

    entries: Mapping[str, ModelEntry]
    folders: tuple[Path, ...]

    @classmethod
    def from_folders(cls, *folders: Path) -> "Registry":
        """Read the manifests of folders; of two models with one name the first one counts.

        Raises ModelFileError for a manifest that cannot be read.
        """
        entries: dict[str, ModelEntry] = {}
        for folder in folders:
            for entry in read_manifest(folder):
                entries.setdefault(entry.name, entry)
        return cls(entries, folders)

    def entry(self, name: str) -> ModelEntry:
        """Return a model by name; raises UnknownModelError with the most similar name."""
        if name not in self.entries:
            hint = did_you_mean(name, self.entries) or f"; known are {', '.join(self.entries)}"
            raise UnknownModelError(
                f"there is no model named {name!r}, and it is no path to a .tflite file{hint}"
            )
        return self.entries[name]

    def find(self, entry: ModelEntry) -> Path | None:
        """Return the file of a model; None if it is not installed."""
        paths = (folder / entry.file for folder in self.folders)
        return next((path for path in paths if os.access(path, os.F_OK)), None)

    def resolve(self, name_or_path: str | Path) -> ModelFile:
        """Return the file of a model, given by its name or as a path to any `.tflite`.

        Reads only the size and the first bytes of the file; `verify` reads all of it. Raises
        UnknownModelError, ModelFileError (missing, empty, not TFLite) or ModelHashError (another
        size than listed).
        """
        name = str(name_or_path)
        if name not in self.entries and is_path(name):
            path = expanded(name)
            if not os.access(path, os.F_OK):
                hint = did_you_mean(path.stem, self.entries)
                raise ModelFileError(
                    f"{path}: no such model file{hint}; `edgepose models list` prints known models"
                )
            check_file(path)
            return ModelFile(printable(valid_text(path.stem)), path)
        entry = self.entry(name)
        installed = self.find(entry)
        if installed is None:
            raise ModelFileError(
                f"the model {name} is not installed (expected {entry.file} in "
                f"{', '.join(map(str, self.folders))}); run `{entry.install_command}`"
            )
        check_file(installed, entry)
        return ModelFile(name, installed, entry)

    def variant_for(self, file: ModelFile, device: Device) -> ModelFile:
        """Return the same model for the other accelerator, `device`.

        For a model known by name that is `X` or `X-edgetpu`, for a file of the user the one beside
        it with such a name. Raises UnknownModelError or ModelFileError if it is not installed.
        """
        suffixes = EDGETPU_SUFFIXES if device == "edgetpu" else ("",)
        stem = re.sub("[-_]edgetpu$", "", file.name)
        if file.entry is not None:
            return self.resolve(stem + suffixes[0])
        names = [stem + suffix + SUFFIX for suffix in suffixes]
        for path in map(file.path.with_name, names):
            if path != file.path and os.access(path, os.F_OK):
                return self.resolve(path)
        raise ModelFileError(
            f"{file.path}: the file of the same model for {device} is missing (expected "
            f"{' or '.join(names)} in the same folder)"
        )

    def verify(self, entry: ModelEntry) -> Path:
        """Compare the whole file of a model with its hash and return its path.

        Raises ModelFileError or ModelHashError.
        """
        path = self.resolve(entry.name).path
        check_hash(path, entry)
        return path


def read_manifest(folder: Path) -> tuple[ModelEntry, ...]:
    """Return the models of a folder's manifest, none without one. Raises ModelFileError."""
    path = folder / MANIFEST
    try:
        content = read_regular_file(path, MAX_MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # The model folder of another user is no error.
        return ()
    except OSError as error:
        raise ModelFileError(f"{path}: the manifest cannot be read: {error.strerror}") from None
    try:
        return msgspec.json.decode(content, type=Manifest).models
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not a manifest of models: {error}") from None


def add_to_manifest(folder: Path, entry: ModelEntry) -> None:
    """Write a model into a folder's manifest, in place of one with the same name.

    Raises ModelFileError if the present manifest cannot be read, OSError if it cannot be written.
    """
    others = [other for other in read_manifest(folder) if other.name != entry.name]
    content = msgspec.json.encode(Manifest(schema=1, models=(*others, entry)))
    part = folder / f"{MANIFEST}.part"
    part.write_bytes(msgspec.json.format(content, indent=2) + b"\n")
    part.replace(folder / MANIFEST)


def user_folder() -> Path:
    """Return the folder into which `models pull` and `models build` write.

    `$EDGEPOSE_MODELS`, else `$XDG_DATA_HOME/edgepose/models`; else for root and for users without
    a home `/var/lib/edgepose/models`, in which the service finds what `sudo` downloaded; else
    `~/.local/share/edgepose/models`.
    """
    given = os.environ.get("EDGEPOSE_MODELS")
    if given:
        return expanded(given).absolute()
    own = xdg_folder("XDG_DATA_HOME")
    if own is None or (os.geteuid() == 0 and not os.environ.get("XDG_DATA_HOME")):
        return MACHINE_FOLDER
    return own / "models"


def bundled_folder() -> Path:
    """Return the folder of the bundled models: in the package, else in the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "assets" / "models"
    return installed if installed.is_dir() else package.parent / "models"


def default_registry() -> Registry:
    """Read the registry of this machine."""
    folders = dict.fromkeys((user_folder(), MACHINE_FOLDER, bundled_folder()))
    return Registry.from_folders(*folders)


def device_of(file: ModelFile) -> Device:
    """Return the accelerator a model file is made for; raises ModelFileError."""
    if file.entry is not None:
        return file.entry.accelerator
    try:
        return "edgetpu" if is_compiled(file.path.read_bytes()) else "cpu"
    except OSError as error:
        raise ModelFileError(f"{file.path}: cannot read the model: {error.strerror}") from error


def check_name(name: str) -> None:
    """Raise UnknownModelError unless a text is a path or the name of a known model."""
    if not is_path(name):
        default_registry().entry(name)


def is_path(name: str) -> bool:
    """Whether a model is given as a path instead of a name."""
    return name.endswith(SUFFIX) or os.sep in name


def check_file(path: Path, entry: ModelEntry | None = None, *, name: str = "") -> None:
    """Check the beginning and the size of a file, which is `name` in errors.

    Raises ModelFileError unless it starts as a TFLite file and has a plausible size, ModelHashError
    unless it has the size of `entry`.
    """
    name = name or str(path)
    try:
        if not path.is_file():
            raise ModelFileError(f"{name}: expected a TFLite model, got a folder, pipe or device")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
    except PermissionError:
        raise ModelFileError(
            f"{name}: no permission to read the model file; grant it to the user that runs "
            "edgepose (chmod a+r)"
        ) from None
    if size > MAX_BYTES:
        raise ModelFileError(
            f"{name}: expected a TFLite model of at most {MAX_BYTES >> 20} MiB, got {size:,} bytes"
        )
    if head[4:8] != IDENTIFIER:
        raise ModelFileError(
            f"{name}: expected a TFLite model ('TFL3' at bytes 4 to 8), got {_describe(head)}"
        )
    if size < MIN_BYTES or int.from_bytes(head[:4], "little") >= size:
        raise ModelFileError(
            f"{name}: the model file is truncated to {size:,} bytes; download it again"
        )
    if entry is not None and entry.bytes is not None and size != entry.bytes:
        raise ModelHashError(
            f"{name}: expected the {entry.bytes:,} bytes of {entry.name}, got {size:,}: "
            f"{'truncated' if size < entry.bytes else 'another file'}; run "
            f"`{entry.install_command}` again"
        )


def check_hash(path: Path, entry: ModelEntry, *, name: str = "") -> None:
    """Raise what `check_file` raises, and ModelHashError unless the file has the listed hash."""
    check_file(path, entry, name=name)
    digest = f"sha256 {sha256(path)}" if entry.sha256 else f"git blob id {git_blob_sha1(path)}"
    if digest != entry.digest:
        raise ModelHashError(
            f"{name or path}: expected {entry.name} with {entry.digest}, got {digest}: damaged or "
            "another file, and not used"
        )


def sha256(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_sha1(path: Path) -> str:
    """Return the git blob id of a file in hex."""
    content = path.read_bytes()
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _describe(head: bytes) -> str:
    if not head:
        return "an empty file; download it again"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; run `git lfs pull`, or download the file itself"
    if head.lstrip()[:1] == b"<":
        return "a web page; download the file again"
    return f"bytes {head[:8].hex(' ')}"
