"""The weights of the posture model, written by `python -m tools.fit_posture`."""

from typing import Final

WEIGHTS: Final = (
    # standing
    (-1.40, 2.19, 0.15, 2.40, 0.75, -0.94, 0.90, -0.75, -1.62, -1.73, -4.31, -1.33, 0.03),
    # sitting
    (-3.84, -1.22, 0.41, -0.12, 0.14, 0.02, -0.83, 2.20, 3.81, 0.71, 1.54, -2.02, 2.90),
    # lying
    (2.98, -1.77, -0.20, 0.07, 0.20, -0.97, -1.22, -0.32, -1.73, 1.32, 2.10, 1.31, 0.12),
    # bending
    (2.26, 0.80, -0.36, -2.35, -1.08, 1.88, 1.15, -1.13, -0.45, -0.30, 0.66, 2.04, -3.04),
)  # fmt: skip
"""For each posture the weights of 12 features and a constant."""
