"""The number of examples: the same inputs every time, or many times as many random ones."""

import os

from hypothesis import HealthCheck, settings

EFFORT = int(os.environ.get("EDGEPOSE_FUZZ", "1"))
"""Factor of the number of examples: `EDGEPOSE_FUZZ=20 pytest tests/fuzz`."""


def examples(number: int) -> settings:
    """Return settings for a number of examples, the same in every run unless EFFORT is above 1."""
    return settings(
        max_examples=number * EFFORT,
        derandomize=EFFORT == 1,
        database=None,
        # All examples use one folder and overwrite its files.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
