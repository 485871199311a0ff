"""What every test may ask for."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"
MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of real pictures and clips that lies beside a developer's checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no pictures beside the checkout; they are for measuring and are not shipped")
    return SHARED / "data"
