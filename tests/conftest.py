"""What every test may ask for."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"
ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"


# Tests that measure on annotated data beside a developer's checkout, which a clone does not have.
collect_ignore = [] if (SHARED / "data").is_dir() else ["reference_data"]


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of real pictures and clips that lies beside a developer's checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no pictures beside the checkout; they are for measuring and are not shipped")
    return SHARED / "data"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo what a command run inside the test process does to logging.

    Its handler writes to the test's captured stderr, which is closed when the test ends.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
