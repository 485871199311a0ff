"""Paths and fixtures for all tests."""

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

SHARED = Path(__file__).parents[2] / "shared"
ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"

# A slow example is no failure: other work on the machine would fail the tests.
settings.register_profile("edgepose", deadline=None)
settings.load_profile("edgepose")


# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

HAS_SHARED = (SHARED / "data").is_dir()
# These tests need annotated data beside a developer's checkout, which a clone does not have.
collect_ignore = [] if HAS_SHARED else ["reference_data"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the single tests that need such data, too: those of `shared_data` or its files."""
    if HAS_SHARED:
        return
    left_out = [
        item
        for item in items
        if "shared_data" in getattr(item, "fixturenames", ())
        or any("empty parameter set" in mark.kwargs["reason"] for mark in item.iter_markers("skip"))
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of images and clips beside a developer's checkout."""
    return SHARED / "data"


@pytest.fixture
def no_user_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the configuration and the models of this user and machine from commands."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config-home"))
    monkeypatch.setenv("EDGEPOSE_MODELS", str(tmp_path / "model-home"))
    monkeypatch.setattr("edgepose.config.loader.SYSTEM_FILE", tmp_path / "etc.yaml")
    monkeypatch.setattr("edgepose.registry.registry.MACHINE_FOLDER", tmp_path / "machine-models")


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Undo changes of the root logger by commands that run inside the test process.

    Their handler writes to the captured stderr, which is closed when the test ends.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
