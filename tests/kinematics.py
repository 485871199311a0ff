"""A jointed body before a camera: keypoints of known postures and motions.

The lengths of its parts are those of Drillis and Contini, "Body Segment Parameters" (1966), as
fractions of the height. The world is in metres: x to the right, y away from the camera, z up.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

SHOULDER, HIP, KNEE, ANKLE = 0.818, 0.530, 0.285, 0.039
"""Heights of the keypoints of a standing body."""
HALF_SHOULDERS, HALF_HIPS = 0.115, 0.06
UPPER_ARM, FOREARM = 0.186, 0.146
HEAD: Final = {"nose": (0.0, 0.05, 0.105), "eye": (0.02, 0.04, 0.125), "ear": (0.045, 0.0, 0.115)}
"""To the right, forward and up from the middle of the shoulders."""
THICKNESS: Final = 0.05
"""The height of the lowest of the keypoints below; hands may reach below them."""
_ON_FLOOR: Final = [5, 6, *range(11, 17)]


@dataclass(frozen=True)
class Stance:
    """The angles of a body in degrees; all zero is upright with hanging arms.

    `pitch` bends the trunk forward, `roll` to its right. `hip` flexes the thighs forward from the
    trunk's line, `knee` the shins back from the thighs, each for left and right; `arm` lifts the
    arms forward, `elbow` flexes them; `spread` moves the legs apart.
    """

    pitch: float = 0.0
    roll: float = 0.0
    hip: tuple[float, float] = (0.0, 0.0)
    knee: tuple[float, float] = (0.0, 0.0)
    arm: float = 0.0
    elbow: float = 10.0
    spread: float = 4.0

    def towards(self, other: "Stance", part: float) -> "Stance":
        """Return the stance between this one and another, 0..1 of the way, eased at both ends."""
        part = min(max(part, 0.0), 1.0)
        part = part * part * (3 - 2 * part)

        def between(a: float, b: float) -> float:
            return a + part * (b - a)

        return Stance(
            between(self.pitch, other.pitch),
            between(self.roll, other.roll),
            (between(self.hip[0], other.hip[0]), between(self.hip[1], other.hip[1])),
            (between(self.knee[0], other.knee[0]), between(self.knee[1], other.knee[1])),
            between(self.arm, other.arm),
            between(self.elbow, other.elbow),
            between(self.spread, other.spread),
        )


STANDING: Final = Stance()
SITTING: Final = Stance(pitch=-8, hip=(85, 80), knee=(85, 80), arm=25, elbow=50)
BENDING: Final = Stance(pitch=85, hip=(85, 80), knee=(10, 5), arm=80, elbow=0)
CROUCHING: Final = Stance(pitch=35, hip=(130, 125), knee=(135, 130), arm=60, elbow=20)
CRAWLING: Final = Stance(pitch=80, hip=(90, 70), knee=(90, 90), arm=85, elbow=5)
ON_BACK: Final = Stance(pitch=-90, hip=(5, 25), knee=(5, 40), arm=15, elbow=30, spread=10)
ON_FRONT: Final = Stance(pitch=90, hip=(0, 5), knee=(5, 20), arm=120, elbow=60, spread=10)
ON_RIGHT_SIDE: Final = Stance(roll=90, hip=(30, 50), knee=(40, 60), arm=40, elbow=40)
ON_LEFT_SIDE: Final = replace(ON_RIGHT_SIDE, roll=-90)


def body(stance: Stance, *, height_m: float = 1.7, heading: float = 0.0) -> Points:
    """Return the 17 keypoints (17, 3) in metres, on the floor, around the hips at x = y = 0.

    `heading` in degrees turns the body: 0 faces the camera, 90 faces to the right of the frame.
    """
    pitch, roll, yaw = map(math.radians, (stance.pitch, stance.roll, heading))
    # The body's own axes while it is upright: its right is the left of the frame.
    facing = np.array((math.sin(yaw), -math.cos(yaw), 0.0))
    side = np.array((-math.cos(yaw), -math.sin(yaw), 0.0))
    vertical = np.array((0.0, 0.0, 1.0))
    up = vertical * math.cos(pitch) + facing * math.sin(pitch)
    forward = facing * math.cos(pitch) - vertical * math.sin(pitch)
    up, right = (
        up * math.cos(roll) + side * math.sin(roll),
        side * math.cos(roll) - up * math.sin(roll),
    )
    points = np.zeros((17, 3))
    shoulders = up * (SHOULDER - HIP)
    for row, (part, sign) in enumerate(
        (("nose", 0), ("eye", -1), ("eye", 1), ("ear", -1), ("ear", 1))
    ):
        to_right, to_front, to_up = HEAD[part]
        points[row] = shoulders + right * sign * to_right + forward * to_front + up * to_up
    for index, sign in ((0, -1), (1, 1)):

        def along(angle: float, apart: float = 0.0, outward: int = sign) -> Points:
            """Return the direction of a limb that is lifted forward from hanging down."""
            lifted, moved = math.radians(angle), math.radians(apart)
            direction: Points = (forward * math.sin(lifted) - up * math.cos(lifted)) * math.cos(
                moved
            ) + right * outward * math.sin(moved)
            return direction

        shoulder = shoulders + right * sign * HALF_SHOULDERS
        elbow = shoulder + along(stance.arm, 8.0) * UPPER_ARM
        wrist = elbow + along(stance.arm + stance.elbow, 4.0) * FOREARM
        hip = right * sign * HALF_HIPS
        knee = hip + along(stance.hip[index], stance.spread) * (HIP - KNEE)
        ankle = knee + along(stance.hip[index] - stance.knee[index], stance.spread / 2) * (
            KNEE - ANKLE
        )
        for row, point in zip(
            (5, 7, 9, 11, 13, 15), (shoulder, elbow, wrist, hip, knee, ankle), strict=True
        ):
            points[row + index] = point
    points[:, 2] += THICKNESS - points[_ON_FLOOR, 2].min()
    return points * height_m


@dataclass(frozen=True)
class Camera:
    """A camera at a height in metres that looks at a point `distance_m` away on half its height."""

    height_m: float = 1.6
    distance_m: float = 4.0
    size_wh: tuple[int, int] = (640, 480)
    view: float = 62.0

    def project(self, points: Points, *, x_m: float = 0.0) -> Points:
        """Return keypoints (17, 3) in metres as (17, 2) frame px, `x_m` right of the middle."""
        aim = math.atan2(self.height_m - 0.8, self.distance_m)
        x = points[:, 0] + x_m
        y, z = points[:, 1] + self.distance_m, points[:, 2] - self.height_m
        depth = y * math.cos(aim) - z * math.sin(aim)
        height = y * math.sin(aim) + z * math.cos(aim)
        width_px, height_px = self.size_wh
        focal = width_px / 2 / math.tan(math.radians(self.view) / 2)
        return np.stack(
            (width_px / 2 + focal * x / depth, height_px / 2 - focal * height / depth), 1
        )


def random_stance(posture: str, rng: np.random.Generator) -> Stance:
    """Return one of the many ways to be `standing`, `sitting`, `lying` or `bending`.

    Bending includes crouching and crawling.
    """

    def around(angles: tuple[float, float], degrees: float) -> tuple[float, float]:
        return rng.normal(angles[0], degrees), rng.normal(angles[1], degrees)

    if posture == "standing":
        return Stance(
            pitch=rng.normal(3, 6),
            roll=rng.normal(0, 4),
            hip=around((3, 3), 12),
            knee=(abs(rng.normal(0, 15)), abs(rng.normal(0, 15))),
            arm=rng.choice((0.0, rng.uniform(0, 120))),
            elbow=rng.uniform(0, 110),
        )
    if posture == "sitting":
        pitch, knee = rng.uniform(-25, 20), rng.uniform(50, 105)
        return Stance(
            pitch=pitch,
            roll=rng.normal(0, 5),
            hip=around((85 + pitch, 85 + pitch), 10),
            knee=around((knee, knee), 10),
            arm=rng.uniform(0, 60),
            elbow=rng.uniform(10, 100),
            spread=rng.uniform(0, 20),
        )
    if posture == "lying":
        lying = (ON_BACK, ON_FRONT, ON_RIGHT_SIDE, ON_LEFT_SIDE)[rng.integers(4)]
        curled = rng.uniform(0, 40, 4)
        return Stance(
            pitch=rng.normal(lying.pitch, 5),
            roll=rng.normal(lying.roll, 5),
            hip=(lying.hip[0] + curled[0], lying.hip[1] + curled[1]),
            knee=(lying.knee[0] + curled[2], lying.knee[1] + curled[3]),
            arm=rng.uniform(-20, 140),
            elbow=rng.uniform(0, 100),
            spread=rng.uniform(0, 20),
        )
    bending = (BENDING, CROUCHING, CRAWLING)[rng.integers(3)]
    return Stance(
        pitch=rng.normal(bending.pitch, 10),
        roll=rng.normal(0, 5),
        hip=around(bending.hip, 10),
        knee=around(bending.knee, 10),
        arm=rng.normal(bending.arm, 20),
        elbow=abs(rng.normal(bending.elbow, 20)),
        spread=rng.uniform(0, 20),
    )


def random_view(stance: Stance, rng: np.random.Generator) -> Points:
    """Return the keypoints (17, 2) in px of a child or adult seen by some camera from some side."""
    camera = Camera(height_m=rng.uniform(0.8, 2.6), distance_m=rng.uniform(2.5, 7.0))
    points = body(stance, height_m=rng.uniform(1.0, 1.9), heading=rng.uniform(-180, 180))
    return camera.project(points, x_m=rng.uniform(-1, 1))


def measured(points: Points, rng: np.random.Generator, *, score: float = 0.6) -> Points:
    """Return keypoints as a model finds them: (17, 3), moved, with a score each.

    One with a lower score is further off; by 2% of the body's size where the score is 0.6.
    """
    scores = np.clip(rng.normal(score, 0.12, 17), 0.05, 0.95)
    deviation = 0.02 * np.ptp(points, axis=0).max() * (1.6 - scores)
    return np.column_stack((points + rng.normal(0, deviation, (2, 17)).T, scores))


@dataclass(frozen=True)
class Key:
    """What a body does at a second: its stance, heading and place in metres."""

    second: float
    stance: Stance
    heading: float = 0.0
    x_m: float = 0.0
    y_m: float = 0.0


@dataclass(frozen=True)
class Motion:
    """A body that goes from key to key; before the first and after the last it stays."""

    keys: tuple[Key, ...]
    seconds: float
    height_m: float = 1.7

    def points(self, second: float) -> Points:
        """Return the keypoints (17, 3) in metres at a second."""
        before = after = self.keys[0]
        for key in self.keys:
            before, after = (key, key) if key.second <= second else (before, key)
            if key.second > second:
                break
        length = after.second - before.second
        part = (second - before.second) / length if length else 0.0

        def between(a: float, b: float) -> float:
            return a + part * (b - a)

        stance = before.stance.towards(after.stance, part)
        heading = between(before.heading, after.heading)
        place = (between(before.x_m, after.x_m), between(before.y_m, after.y_m), 0.0)
        moved: Points = body(stance, height_m=self.height_m, heading=heading) + np.array(place)
        return moved
