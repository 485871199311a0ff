"""Requirements of tests that may be missing on a machine."""

import os
import sys
from typing import Final, NoReturn

import pytest

from edgepose.inference.runtime import RuntimeName

RUNTIMES: Final[tuple[RuntimeName, ...]] = (
    ("litert", "tflite-runtime") if sys.version_info < (3, 12) else ("litert",)
)
"""The runtimes that are always required; tflite-runtime ends at Python 3.11."""


def missing(reason: str) -> NoReturn:
    """Skip a test whose requirement is not installed; fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
