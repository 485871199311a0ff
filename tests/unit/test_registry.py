"""Registry: manifests, folders, and files that are damaged or not models."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.errors import ModelFileError, ModelHashError, UnknownModelError
from edgepose.registry.registry import (
    MACHINE_FOLDER,
    ModelEntry,
    Registry,
    add_to_manifest,
    bundled_folder,
    check_name,
    default_registry,
    device_of,
    git_blob_sha1,
    read_manifest,
    user_folder,
)
from tests.builders import model_entry
from tests.conftest import MODELS

CONTENT = b"\x1c\0\0\0TFL3" + bytes(range(256)) * 8


def entry_of(name: str = "tiny", content: bytes = CONTENT, **changes: object) -> ModelEntry:
    return model_entry(content, name, **changes)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    return Registry({"tiny": entry_of()}, (tmp_path / "first", tmp_path / "second"))


# --- the bundled manifest


def test_registry_published_models() -> None:
    entries = {entry.name: entry for entry in read_manifest(MODELS) if entry.urls}
    assert len(entries) == 12
    assert [n for n, e in entries.items() if e.sha256 is None] == ["movenet-thunder-int8-edgetpu"]
    for name, entry in entries.items():
        assert all(url.startswith("https://") for url in entry.urls), name
        assert (entry.accelerator == "edgetpu") == name.endswith("-edgetpu")
        assert entry.accelerator == "edgetpu" or name.endswith("-official")
        assert (entry.accelerator == "edgetpu") == entry.file.endswith("_edgetpu.tflite")
    lightning = entries["movenet-lightning-int8-edgetpu"]
    assert (lightning.bytes, lightning.input_size_wh) == (3_087_168, (192, 192))


def test_registry_unique_names_and_files() -> None:
    entries = read_manifest(MODELS)
    assert len({entry.name for entry in entries}) == len(entries)
    assert len({entry.file for entry in entries}) == len(entries)


def test_registry_verify_bundled_files() -> None:
    """Size and hash of the manifest are those of the files."""
    verify_files(bundled_folder())


def test_registry_verify_official_files(shared_data: Path) -> None:
    verify_files(shared_data.parent / "models")


def verify_files(folder: Path) -> None:
    registry = Registry({entry.name: entry for entry in read_manifest(MODELS)}, (folder,))
    entries = [entry for entry in registry.entries.values() if registry.find(entry)]
    assert entries
    for entry in entries:
        assert registry.verify(entry) == folder / entry.file


# --- names


def test_registry_unknown_name_suggests_nearest(registry: Registry) -> None:
    with pytest.raises(UnknownModelError, match="did you mean 'tiny'") as caught:
        registry.resolve("tinny")
    assert caught.value.exit_code == 2
    with pytest.raises(UnknownModelError, match="known are tiny"):
        registry.resolve("something-else")


def test_registry_check_name_without_files() -> None:
    check_name("movenet-lightning-int8-edgetpu")
    check_name("some/where.tflite")
    with pytest.raises(UnknownModelError, match="did you mean 'movenet-lightning-int8'"):
        check_name("movenet-lightning-int")


# --- files


def test_registry_folder_order(registry: Registry) -> None:
    first, second = registry.folders
    (second / "tiny.tflite").write_bytes(CONTENT)
    assert registry.resolve("tiny").path == second / "tiny.tflite"
    (first / "tiny.tflite").write_bytes(CONTENT)
    file = registry.resolve("tiny")
    assert (file.name, file.path, file.entry) == ("tiny", first / "tiny.tflite", entry_of())


@pytest.mark.parametrize(("urls", "verb"), [(("https://example.org/x",), "pull"), ((), "build")])
def test_registry_missing_file_names_install_command(
    tmp_path: Path, urls: tuple[str, ...], verb: str
) -> None:
    registry = Registry({"tiny": entry_of(urls=urls)}, (tmp_path,))
    with pytest.raises(ModelFileError, match=f"`edgepose models {verb} tiny`"):
        registry.resolve("tiny")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"\x1c\0\0\0TFL2" + bytes(2000), "'TFL3' at bytes 4 to 8"),
        (b"<!DOCTYPE html><html>" + bytes(2000), "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"\x1c\0\0\0TFL3", "truncated"),
        (b"\xff\xff\xff\xffTFL3" + bytes(2000), "truncated"),
        (b"TFL", "bytes 54 46 4c"),
    ],
)
def test_registry_invalid_model_file(registry: Registry, content: bytes, words: str) -> None:
    path = registry.folders[0] / "tiny.tflite"
    path.write_bytes(content)
    for reference in ("tiny", str(path), path):
        with pytest.raises(ModelFileError) as caught:
            registry.resolve(reference)
        assert str(caught.value).startswith(f"{path}: ")
        assert words in str(caught.value)


def test_registry_wrong_size(registry: Registry) -> None:
    """It is reported without reading the whole file."""
    path = registry.folders[0] / "tiny.tflite"
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ModelHashError, match="truncated"):
        registry.resolve("tiny")
    path.write_bytes(CONTENT + b"x")
    with pytest.raises(ModelHashError, match="another file"):
        registry.resolve("tiny")


def test_registry_verify_finds_changed_byte(registry: Registry) -> None:
    path = registry.folders[0] / "tiny.tflite"
    path.write_bytes(CONTENT[:-1] + b"x")
    assert registry.resolve("tiny").path == path
    with pytest.raises(ModelHashError, match="sha256"):
        registry.verify(entry_of())


def test_registry_model_by_path(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "my own.tflite"
    path.write_bytes(CONTENT)
    file = registry.resolve(path)
    assert (file.name, file.path, file.entry) == ("my own", path, None)


def test_registry_model_by_path_that_is_not_utf_8(registry: Registry, tmp_path: Path) -> None:
    """The name in messages and tables is valid text of one line."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.tflite"))
    path.write_bytes(CONTENT)
    file = registry.resolve(path)
    assert (file.name, file.path) == (r"caf\xe9\n", path)


def test_registry_missing_path(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such model file"):
        registry.resolve(tmp_path / "gone.tflite")
    with pytest.raises(ModelFileError, match="did you mean 'tiny'"):
        registry.resolve("tiny.tflite")
    with pytest.raises(ModelFileError, match="got a folder"):
        registry.resolve(tmp_path)
    os.mkfifo(tmp_path / "pipe.tflite")
    with pytest.raises(ModelFileError, match="pipe or device"):
        registry.resolve(tmp_path / "pipe.tflite")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_blob_id_equals_git(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(CONTENT)
    command = ["git", "hash-object", "--no-filters", str(path)]
    expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert git_blob_sha1(path) == expected


def test_registry_git_blob_id_instead_of_sha256(registry: Registry) -> None:
    path = registry.folders[0] / "tiny.tflite"
    path.write_bytes(CONTENT)
    entry = entry_of(sha256=None, bytes=None, git_blob_sha1=git_blob_sha1(path))
    known = Registry({"tiny": entry}, registry.folders)
    known.verify(entry)
    path.write_bytes(CONTENT[:-1])
    known.resolve("tiny")
    with pytest.raises(ModelHashError, match="git blob id"):
        known.verify(entry)


# --- manifests


def test_registry_user_manifest_has_priority(tmp_path: Path) -> None:
    own, bundled = tmp_path / "own", tmp_path / "bundled"
    own.mkdir()
    bundled.mkdir()
    add_to_manifest(bundled, entry_of())
    add_to_manifest(bundled, entry_of("other"))
    changed = CONTENT + b"x"
    add_to_manifest(own, entry_of(content=CONTENT))
    add_to_manifest(own, entry_of(content=changed))
    registry = Registry.from_folders(own, bundled)
    assert set(registry.entries) == {"tiny", "other"}
    assert registry.entry("tiny").bytes == len(changed)
    assert sorted(path.name for path in own.iterdir()) == ["manifest.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../etc/passwd.tflite"},
        {"file": "x.bin"},
        {"kind": "other"},
        {"sha256": None},
        {"sha256": "abc"},
        {"bytes": 0},
        {"name": ""},
    ],
)
def test_registry_invalid_manifest(tmp_path: Path, change: dict[str, object]) -> None:
    facts = {**msgspec.to_builtins(entry_of()), **change}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"schema": 1, "models": [facts]}))
    with pytest.raises(ModelFileError, match="not a manifest of models"):
        Registry.from_folders(tmp_path)


@given(content=st.binary(max_size=100))
def test_registry_any_manifest(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("models")
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ModelFileError):
        read_manifest(folder)


# --- folders


def test_registry_user_folder_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.delenv("EDGEPOSE_MODELS", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert user_folder() == Path("/home/u/.local/share/edgepose/models")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert user_folder() == MACHINE_FOLDER
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert user_folder() == Path("/data/edgepose/models")
    monkeypatch.setenv("EDGEPOSE_MODELS", "~/m")
    assert user_folder() == Path("/home/u/m")
    assert default_registry().folders[:2] == (Path("/home/u/m"), MACHINE_FOLDER)


@pytest.mark.parametrize("ending", ["_edgetpu", "-edgetpu"])
def test_registry_variant_of_file(registry: Registry, tmp_path: Path, ending: str) -> None:
    """The variant is in the same folder."""
    for name in ("mine.tflite", f"mine{ending}.tflite"):
        (tmp_path / name).write_bytes(CONTENT)
    cpu = registry.resolve(tmp_path / "mine.tflite")
    compiled = registry.resolve(tmp_path / f"mine{ending}.tflite")
    assert registry.variant_for(cpu, "edgetpu") == compiled
    assert registry.variant_for(compiled, "cpu") == cpu
    compiled.path.unlink()
    with pytest.raises(ModelFileError, match=r"mine-edgetpu.tflite or mine_edgetpu.tflite"):
        registry.variant_for(cpu, "edgetpu")


def test_registry_variant_of_known_model() -> None:
    registry = default_registry()
    cpu = registry.resolve("movenet-lightning-int8")
    with pytest.raises(ModelFileError, match="models pull movenet-lightning-int8-edgetpu"):
        registry.variant_for(cpu, "edgetpu")
    assert device_of(cpu) == "cpu"
    with pytest.raises(UnknownModelError):
        registry.variant_for(registry.resolve("movenet-thunder-fp16"), "edgetpu")
