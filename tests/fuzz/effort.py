"""How long to look: the same inputs every time, or many times as many fresh ones."""

import os

from hypothesis import HealthCheck, settings

EFFORT = int(os.environ.get("EDGEPOSE_FUZZ", "1"))
"""By how much every number of examples is multiplied; `EDGEPOSE_FUZZ=20 pytest tests/fuzz`."""


def examples(number: int) -> settings:
    """Return settings for so many examples, the same ones in every run unless asked for more."""
    return settings(
        max_examples=number * EFFORT,
        derandomize=EFFORT == 1,
        database=None,
        deadline=None,
        # Files go to one folder, where each example overwrites the one before.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
