"""The COCO-17 skeleton: keypoint names, edges, and what is left and right.

Names and order are those of the COCO keypoint annotations (https://cocodataset.org/#keypoints-2017).
"""

from typing import Final

KEYPOINT_NAMES: Final = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
KEYPOINT_COUNT: Final = len(KEYPOINT_NAMES)

LEFT_SHOULDER: Final = KEYPOINT_NAMES.index("left_shoulder")
RIGHT_SHOULDER: Final = KEYPOINT_NAMES.index("right_shoulder")
LEFT_HIP: Final = KEYPOINT_NAMES.index("left_hip")
RIGHT_HIP: Final = KEYPOINT_NAMES.index("right_hip")
LEFT_KNEE: Final = KEYPOINT_NAMES.index("left_knee")
RIGHT_KNEE: Final = KEYPOINT_NAMES.index("right_knee")
LEFT_ANKLE: Final = KEYPOINT_NAMES.index("left_ankle")
RIGHT_ANKLE: Final = KEYPOINT_NAMES.index("right_ankle")

EDGES: Final = (
    (0, 1),
    (0, 2),
    (1, 3),
    (2, 4),
    (5, 6),
    (5, 7),
    (7, 9),
    (6, 8),
    (8, 10),
    (5, 11),
    (6, 12),
    (11, 12),
    (11, 13),
    (13, 15),
    (12, 14),
    (14, 16),
)

MIRRORED: Final = tuple(
    KEYPOINT_NAMES.index(
        name.replace("left", "right") if name.startswith("left") else name.replace("right", "left")
    )
    for name in KEYPOINT_NAMES
)
"""For each keypoint, the index of the same keypoint on the other side of the body."""

OKS_FALLOFFS: Final = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
    0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
"""Per-keypoint standard deviations of object keypoint similarity, as pycocotools has them."""
