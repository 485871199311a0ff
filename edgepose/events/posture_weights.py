"""The weights of the posture model, written by `python -m tools.fit_posture`."""

from typing import Final

WEIGHTS: Final = (
    # standing
    (-1.49, 2.14, -0.14, 3.03, 1.31, -0.26, 0.74, -0.62, -1.14, -1.87, -5.09, -1.85, -0.55),
    # sitting
    (-4.05, -1.31, 0.44, -0.18, -0.11, -0.34, -0.61, 2.26, 3.70, 0.87, 1.88, -1.85, 3.13),
    # lying
    (3.12, -1.64, -0.08, -0.22, 0.02, -1.21, -1.26, -0.41, -1.83, 1.22, 2.16, 1.54, 0.34),
    # bending
    (2.42, 0.81, -0.22, -2.63, -1.23, 1.81, 1.13, -1.24, -0.73, -0.22, 1.05, 2.16, -2.92),
)  # fmt: skip
"""For each posture the weights of 12 features and a constant."""
