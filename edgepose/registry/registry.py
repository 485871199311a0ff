"""The models edgepose knows by name, and where their files lie.

Two lists name them: `manifest.json`, the models that edgepose builds itself from published
weights, and `official.json`, those that others publish as ready TFLite files. Both lie beside the
bundled model files; a `manifest.json` in the user's own model folder adds to them and wins.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from edgepose.errors import ModelFileError, ModelHashError, UnknownModelError
from edgepose.registry.tflite_file import is_compiled
from edgepose.util.suggest import did_you_mean

Kind = Literal["movenet_single", "movenet_multipose", "posenet"]
Device = Literal["cpu", "edgetpu"]

MANIFEST: Final = "manifest.json"
OFFICIAL: Final = "official.json"
MACHINE_FOLDER: Final = Path("/var/lib/edgepose/models")
SUFFIX: Final = ".tflite"
EDGETPU_SUFFIXES: Final = ("-edgetpu", "_edgetpu")
"""What the name of a compiled file ends with: ours, and that of Coral's compiler."""
MIN_BYTES: Final = 1024
MAX_BYTES: Final = 256 << 20
"""As much as a model may have; the largest known has 13 MB, and files are read as a whole."""
MAX_LIST_BYTES: Final = 1 << 20

_IDENTIFIER: Final = b"TFL3"
_CHUNK_BYTES: Final = 1 << 20

Hex64 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Hex40 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{40}$")]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model of a list: what it is, and how to know that a file is it.

    `file` is its plain file name; `bytes` is None where the published size is not known, and then
    `git_blob_sha1` stands in for `sha256`. `urls` are where others publish it, empty for the
    models that `edgepose models build` makes.
    """

    name: Text
    kind: Kind
    file: Text
    input_size_wh: tuple[int, int]
    input_dtype: str
    precision: str
    source: str
    licence: str
    made_by: str
    bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    sha256: Hex64 | None = None
    git_blob_sha1: Hex40 | None = None
    accelerator: Device = "cpu"
    urls: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.file != Path(self.file).name or not self.file.endswith(SUFFIX):
            raise ValueError(f"{self.name}: `file` is a plain name ending in .tflite")
        if self.sha256 is None and self.git_blob_sha1 is None:
            raise ValueError(f"{self.name}: needs sha256 or git_blob_sha1")
        if not all(text.isprintable() for text in (self.name, self.file, *self.urls)):
            raise ValueError("names and `urls` are without control characters")
        if not all(url.startswith(("https://", "http://")) for url in self.urls):
            raise ValueError(f"{self.name}: `urls` begin with https:// or http://")

    @property
    def install_command(self) -> str:
        """The command that puts the file where edgepose finds it."""
        return f"edgepose models {'pull' if self.urls else 'build'} {self.name}"


class ModelList(msgspec.Struct, frozen=True):
    """The contents of a `manifest.json` or `official.json`."""

    schema: Literal[1]
    models: tuple[ModelEntry, ...]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that is there and looks like one; `entry` is None for a file of the user's."""

    name: str
    path: Path
    entry: ModelEntry | None = None


@dataclass(frozen=True, slots=True)
class Registry:
    """The known models, and the folders that may hold their files, searched in order."""

    entries: Mapping[str, ModelEntry]
    folders: tuple[Path, ...]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> "Registry":
        """Read the lists of folders; of two models with one name the earlier folder's wins.

        Raises ModelFileError for a list that cannot be read.
        """
        entries: dict[str, ModelEntry] = {}
        for folder in folders:
            for name in (MANIFEST, OFFICIAL):
                for entry in read_list(folder / name):
                    entries.setdefault(entry.name, entry)
        return cls(entries, tuple(folders))

    def entry(self, name: str) -> ModelEntry:
        """Return a model by name; raise UnknownModelError with the nearest ones."""
        if name not in self.entries:
            raise UnknownModelError(self._unknown(name))
        return self.entries[name]

    def find(self, entry: ModelEntry) -> Path | None:
        """Return where a model's file lies; None where it is in no folder."""
        for folder in self.folders:
            path = folder / entry.file
            if _is_there(path):
                return path
        return None

    def resolve(self, name_or_path: str | Path) -> ModelFile:
        """Return the file of a model, given by its name or as a path to any `.tflite`.

        Looks at the file's size and first bytes only; `verify` reads all of it. Raises
        UnknownModelError, ModelFileError (missing, empty, not TFLite) or ModelHashError (another
        size than listed).
        """
        name = str(name_or_path)
        if name in self.entries:
            entry = self.entries[name]
            path = self.find(entry)
            if path is None:
                raise ModelFileError(
                    f"the model {name} is not on this machine (looked for {entry.file} in "
                    f"{_listed(self.folders)}); get it with `{entry.install_command}`"
                )
            check_file(path)
            check_size(path, entry)
            return ModelFile(name, path, entry)
        if not is_path(name_or_path):
            raise UnknownModelError(self._unknown(name))
        path = Path(name_or_path).expanduser()
        if not path.exists():
            hint = did_you_mean(path.stem, self.entries) if path.name == name else ""
            remedy = hint or "; `edgepose models list` prints the models known by name"
            raise ModelFileError(f"{path}: there is no such model file{remedy}")
        check_file(path)
        return ModelFile(path.stem, path)

    def variant_for(self, file: ModelFile, device: Device) -> ModelFile:
        """Return the same model for the other accelerator, `device`.

        A model known by name has a known sibling, `X` and `X-edgetpu`; beside a file of the user's
        lies one named alike. Raises UnknownModelError or ModelFileError where there is none.
        """
        compiled = device == "edgetpu"
        if file.entry is not None:
            stem = file.name.removesuffix(EDGETPU_SUFFIXES[0])
            entry = self.entry(stem + EDGETPU_SUFFIXES[0] if compiled else stem)
            if self.find(entry) is None:
                raise ModelFileError(
                    f"{entry.name} is not here (`{entry.install_command}` gets it)"
                )
            return self.resolve(entry.name)
        stem = file.path.stem
        for suffix in EDGETPU_SUFFIXES:
            stem = stem.removesuffix(suffix)
        endings = EDGETPU_SUFFIXES if compiled else ("",)
        names = [stem + ending + SUFFIX for ending in endings]
        for name in names:
            path = file.path.with_name(name)
            if path != file.path and _is_there(path):
                check_file(path)
                return ModelFile(path.stem, path)
        what = "compiled for the Edge TPU" if compiled else "for the CPU"
        raise ModelFileError(
            f"{file.path}: there is no file of the same model {what} beside it "
            f"(looked for {' and '.join(names)})"
        )

    def verify(self, entry: ModelEntry) -> Path:
        """Read a model's whole file, compare its hash, and return where it lies.

        Raises ModelFileError or ModelHashError.
        """
        found = self.resolve(entry.name).path
        check_hash(found, entry)
        return found

    def unlisted(self) -> Iterator[Path]:
        """Yield the `.tflite` files in the folders that no list names."""
        known = {entry.file for entry in self.entries.values()}
        for folder in self.folders:
            if os.access(folder, os.R_OK):
                for path in sorted(folder.glob(f"*{SUFFIX}")):
                    if path.name not in known:
                        yield path

    def _unknown(self, name: str) -> str:
        hint = did_you_mean(name, self.entries)
        known = "" if hint else f"; known are {', '.join(self.entries)}"
        return f"there is no model named {name!r}, and it is no path to a .tflite file{hint}{known}"


def read_list(path: Path) -> tuple[ModelEntry, ...]:
    """Return the models of a list; none where there is no such file. Raises ModelFileError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LIST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except PermissionError:
        # The model folder of another user is no reason to fail for this one.
        return ()
    except OSError as error:
        raise ModelFileError(f"{path}: the list of models cannot be read: {error}") from None
    if len(content) > MAX_LIST_BYTES:
        raise ModelFileError(f"{path}: not a list of models: over {MAX_LIST_BYTES >> 20} MiB long")
    try:
        return msgspec.json.decode(content, type=ModelList).models
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not a list of models: {error}") from None


def user_folder() -> Path:
    """Return where `models pull` and `models build` put files.

    `$EDGEPOSE_MODELS`, else `$XDG_DATA_HOME/edgepose/models`; else for root and for users without
    a home `/var/lib/edgepose/models`, where the service finds what `sudo` fetched; else
    `~/.local/share/edgepose/models`.
    """
    if os.environ.get("EDGEPOSE_MODELS"):
        return Path(os.environ["EDGEPOSE_MODELS"]).expanduser().absolute()
    if os.environ.get("XDG_DATA_HOME"):
        return Path(os.environ["XDG_DATA_HOME"]) / "edgepose" / "models"
    if os.geteuid() == 0:
        return MACHINE_FOLDER
    try:
        return Path.home() / ".local" / "share" / "edgepose" / "models"
    except RuntimeError:
        return MACHINE_FOLDER


def bundled_folder() -> Path | None:
    """Return the folder with the bundled lists and models: in the package, or in the checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "assets" / "models", package.parent / "models"):
        if (folder / OFFICIAL).is_file():
            return folder
    return None


def default_registry() -> Registry:
    """Return the registry of this machine, as its folders are now."""
    bundled = bundled_folder()
    folders = (user_folder(), MACHINE_FOLDER, *(() if bundled is None else (bundled,)))
    return Registry.of(tuple(dict.fromkeys(folders)))


def resolve(name_or_path: str | Path) -> ModelFile:
    """Return the file of a model on this machine; see `Registry.resolve`."""
    return default_registry().resolve(name_or_path)


def device_of(file: ModelFile) -> Device:
    """Return what a model file is made for; raises ModelFileError for one that is no model."""
    if file.entry is not None:
        return file.entry.accelerator
    try:
        data = file.path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{file.path}: cannot read the model: {error.strerror}") from error
    return "edgetpu" if is_compiled(data) else "cpu"


def check_name(name: str) -> None:
    """Raise UnknownModelError unless a text is a path or the name of a known model."""
    if not is_path(name):
        default_registry().entry(name)


def is_path(name_or_path: str | Path) -> bool:
    """Whether a model is given as a path rather than by name."""
    if isinstance(name_or_path, Path):
        return True
    return name_or_path.endswith(SUFFIX) or os.sep in name_or_path


def check_file(path: Path) -> None:
    """Raise ModelFileError unless a file begins as a TFLite flatbuffer does."""
    try:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "a pipe or device"
            raise ModelFileError(f"{path}: expected a TFLite model file, got {what}")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
    except PermissionError:
        raise ModelFileError(
            f"{path}: the model file may not be read; give the user that runs edgepose the right "
            "to (chmod a+r)"
        ) from None
    if not size:
        raise ModelFileError(f"{path}: expected a TFLite model, got an empty file; fetch it again")
    if size > MAX_BYTES:
        raise ModelFileError(
            f"{path}: expected a TFLite model of at most {MAX_BYTES >> 20} MiB, got "
            f"{size:,} bytes; is it the right file?"
        )
    if head[4:8] != _IDENTIFIER:
        raise ModelFileError(
            f"{path}: expected a TFLite model ('TFL3' at its bytes 4 to 8), got {_what_is(head)}"
        )
    root = int.from_bytes(head[:4], "little")
    if size < MIN_BYTES or root >= size:
        raise ModelFileError(
            f"{path}: the model file is truncated, it has only {size:,} bytes; fetch it again"
        )


def check_size(path: Path, entry: ModelEntry) -> None:
    """Raise ModelHashError unless a file has the listed number of bytes."""
    size = path.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        kind = "truncated" if size < entry.bytes else "another file"
        raise ModelHashError(
            f"{path}: expected the {entry.bytes:,} bytes of {entry.name}, got {size:,}: it is "
            f"{kind}; delete it and run `{entry.install_command}`"
        )


def check_hash(path: Path, entry: ModelEntry) -> None:
    """Raise ModelHashError unless a file has the listed sha256, or git blob id without one."""
    what, expected, got = (
        ("sha256", entry.sha256, sha256(path))
        if entry.sha256 is not None
        else ("git blob id", entry.git_blob_sha1, git_blob_sha1(path))
    )
    if got != expected:
        raise ModelHashError(
            f"{path}: expected {entry.name} with {what} {expected}, got {got}: it is damaged or "
            "another file, and not used"
        )


def sha256(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_sha1(path: Path) -> str:
    """Return the id git gives a file's contents, in hex."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A file behind a folder that may not be entered belongs to another user.
        return False


def _what_is(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; run `git lfs pull`, or fetch the file itself"
    if head.lstrip()[:1] == b"<":
        return "a web page; the download went wrong, fetch it again"
    return f"bytes {head[:8].hex(' ')}"


def _listed(folders: Iterable[Path]) -> str:
    return ", ".join(map(str, folders))


def add_to_list(folder: Path, entry: ModelEntry) -> None:
    """Write a model into a folder's own list, in place of one with the same name.

    Raises ModelFileError where the list cannot be read or written.
    """
    path = folder / MANIFEST
    others = [other for other in read_list(path) if other.name != entry.name]
    content = msgspec.json.encode(ModelList(schema=1, models=(*others, entry)))
    partial = path.with_suffix(".part")
    try:
        partial.write_bytes(msgspec.json.format(content, indent=2) + b"\n")
        partial.replace(path)
    except OSError as error:
        raise ModelFileError(
            f"{path}: the list of models cannot be written: {error.strerror}"
        ) from None
