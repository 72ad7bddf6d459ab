"""The skeleton in the pose images: the limbs and their colours in the competition, and a test for these colours."""

from typing import Literal

import numpy as np

Palette = Literal["competition", "unknown"]
WHITE = 255  # the background of pose images

# Pairs of BODY_25 joints and their colours in the competition's files. OpenPose's own colours are different.
LIMBS = (
    ("neck", "hips", (0, 0, 255)),
    ("neck", "right_shoulder", (0, 0, 255)),
    ("right_shoulder", "right_elbow", (0, 51, 255)),
    ("right_elbow", "right_wrist", (0, 107, 255)),
    ("neck", "left_shoulder", (0, 0, 255)),
    ("left_shoulder", "left_elbow", (0, 216, 255)),
    ("left_elbow", "left_wrist", (0, 235, 255)),
    ("hips", "right_hip", (0, 0, 255)),
    ("right_hip", "right_knee", (0, 255, 175)),
    ("right_knee", "right_ankle", (0, 255, 85)),
    ("hips", "left_hip", (0, 0, 255)),
    ("left_hip", "left_knee", (114, 0, 0)),
    ("left_knee", "left_ankle", (255, 85, 0)),
    ("neck", "nose", (0, 0, 190)),
    ("nose", "right_eye", (85, 0, 170)),
    ("right_eye", "right_ear", (200, 0, 200)),
    ("nose", "left_eye", (85, 0, 130)),
    ("left_eye", "left_ear", (140, 0, 80)),
    *(("right_ankle", f"right_{toe}", (0, 255, 0)) for toe in ("big_toe", "heel")),
    ("right_big_toe", "right_small_toe", (0, 255, 0)),
    *(("left_ankle", f"left_{toe}", (255, 170, 0)) for toe in ("big_toe", "heel")),
    ("left_big_toe", "left_small_toe", (255, 170, 0)),
    *((f"{side}_wrist", f"{side}_finger_0", (180, 0, 40)) for side in ("right", "left")),
    *((f"{side}_wrist", f"{side}_finger_1", (60, 150, 0)) for side in ("right", "left")),
    *((f"{side}_wrist", f"{side}_finger_2", (0, 90, 180)) for side in ("right", "left")),
)

# The darkness of a pixel or a limb is white minus its colour.
SAMPLED = 512  # number of pose images that are examined, spread over the data set
MOST_PIXELS = SAMPLED * 64 * 128  # that are examined; of larger images, fewer are
FAINT = 24  # paler pixels are ignored; length of their darkness, in grey levels
NEAR = 0.99  # a limb explains a pixel if the cosine between their darkness is above this
# Limbs explain 83 % of the darkness of the competition's poses. They explain at most 50 % in other colours.
EXPLAINED = 0.65
SEEN = 0.002  # a limb's colour is seen if it explains at least this share of the darkness


def limb_darkness() -> np.ndarray:
    """Returns the darkness (limbs, 3) of each of `LIMBS`, white minus its colour, in 0..255."""
    return WHITE - np.array([colour for _, _, colour in LIMBS], dtype=np.float64)


def palette_of(poses: np.ndarray) -> Palette:
    """Returns "competition" if pose images (N, 3, H, W) uint8 are drawn on white in the competition's limb colours.

    A limb is a line that is blended with white. So the darkness of a pixel has the direction of its limb's darkness.
    The palette is the competition's if such directions explain most of the darkness. At least half of the limbs'
    colours must be seen as well. Otherwise images in a few of these colours would be accepted.
    """
    sampled = max(1, min(SAMPLED, MOST_PIXELS // (poses.shape[2] * poses.shape[3])))
    step = max(1, len(poses) // sampled)
    darkness = WHITE - np.moveaxis(poses[::step], 1, -1).reshape(-1, 3).astype(np.float64)
    amounts = np.linalg.norm(darkness, axis=1)
    is_dark = amounts > FAINT
    darkness = darkness[is_dark]
    amounts = amounts[is_dark]
    if not len(darkness):
        return "unknown"
    limbs = np.unique(limb_darkness(), axis=0)
    cosines = (darkness / amounts[:, None]) @ (limbs / np.linalg.norm(limbs, axis=1, keepdims=True)).T
    nearest = cosines.argmax(axis=1)
    is_near = cosines.max(axis=1) > NEAR
    shares = np.bincount(nearest[is_near], amounts[is_near], len(limbs)) / amounts.sum()
    is_known = shares.sum() >= EXPLAINED and (shares >= SEEN).sum() >= len(limbs) / 2
    return "competition" if is_known else "unknown"
