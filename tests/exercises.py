"""Exercises of a jointed body whose joints have known angles."""

from collections.abc import Callable, Iterator
from math import acos, asin, cos, degrees, pi, radians, sqrt
from typing import Final

from tests.kinematics import ANKLE, FOREARM, SHOULDER, UPPER_ARM, Camera, Points, Stance, body

Angles = tuple[float, float]
"""Degrees at the left and the right joint of the movement; 180 is straight."""
Motion = Callable[[Angles, float], Points]

RIGHT_ARM: Final = [8, 10]
NEAR: Final = Camera(height_m=1.3, distance_m=3.0)


def squat(angles: Angles, heading: float = 90.0) -> Points:
    """Both knees bend, shins and trunk lean so that the body stays above its feet."""
    bend = 180 - sum(angles) / 2
    stance = Stance(pitch=0.4 * bend, hip=(1.05 * bend, 1.05 * bend), knee=(bend, bend), arm=90)
    return body(stance, heading=heading)


def curl(angles: Angles, heading: float = 90.0) -> Points:
    """The upper arms hang, the forearms turn up to the front."""
    left, right = (body(Stance(elbow=180 - angle), heading=heading) for angle in angles)
    left[RIGHT_ARM] = right[RIGHT_ARM]
    return left


def push_up(angles: Angles, heading: float = 90.0) -> Points:
    """The body is one line from the feet to the shoulders, the hands stay below these."""
    angle = sum(angles) / 2
    upper, fore = UPPER_ARM, FOREARM
    reach = sqrt(upper**2 + fore**2 - 2 * upper * fore * cos(radians(angle)))
    # The elbow points to the feet.
    back = degrees(acos((upper**2 + reach**2 - fore**2) / (2 * upper * reach)))
    pitch = 90 - degrees(asin(reach / (SHOULDER - ANKLE)))
    return body(Stance(pitch=pitch, arm=pitch - back, elbow=180 - angle), heading=heading)


def walk(angles: Angles, heading: float = 90.0) -> Points:
    """A step: the leg whose knee is bent more is in the air and swings forward."""
    left, right = (180 - angle for angle in angles)
    swing = 0.4 * (left - right)
    return body(Stance(hip=(swing, -swing), knee=(left, right)), heading=heading)


def repeated(
    count: int, *, seconds: float, top: float, bottom: float, fps: float
) -> Iterator[float]:
    """Yield the angle of each frame: a second at the top, the repetitions, and a second."""
    for frame in range(round((2 + count * seconds) * fps)):
        done = min(max(0.0, (frame / fps - 1) / seconds), count)
        yield top + (bottom - top) * (1 - cos(2 * pi * done)) / 2
