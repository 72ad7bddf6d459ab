"""The skeleton in the pose images: its limbs in the competition's colours, and whether given images are drawn so."""

from typing import Literal

import numpy as np

Palette = Literal["competition", "unknown"]
WHITE = 255  # the ground of pose images

LIMBS = (  # BODY_25 joints in the colours of the competition's files, which are not OpenPose's own
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

SAMPLED = 512  # pose images that are looked at, spread over all
FAINT = 24  # grey levels of ink below which a pixel's colour says nothing
NEAR = 0.99  # cosine between a pixel's ink and a limb's, above which the limb explains the pixel
# Of the competition's own poses 83 % of the ink is explained; of the same poses in other colours, 50 % at most.
EXPLAINED = 0.65
SEEN = 0.002  # share of the ink from which on a limb's colour counts as seen


def limb_inks() -> np.ndarray:
    """Returns the ink (limbs, 3) of each of `LIMBS`, white minus its colour, in 0..255."""
    return WHITE - np.array([colour for _, _, colour in LIMBS], dtype=np.float64)


def palette_of(poses: np.ndarray) -> Palette:
    """Returns whether pose images (N, 3, H, W) uint8 are drawn on white in the competition's limb colours.

    A limb's line is blended with white, so a pixel's ink points in the direction of its limb's ink. The palette is the
    competition's where such directions explain most of the ink and at least half of the limbs' colours are seen; so
    pose images in a few of these colours alone do not pass for it.
    """
    step = max(1, len(poses) // SAMPLED)
    ink = WHITE - np.moveaxis(poses[::step], 1, -1).reshape(-1, 3).astype(np.float64)
    amounts = np.linalg.norm(ink, axis=1)
    ink, amounts = ink[amounts > FAINT], amounts[amounts > FAINT]
    if not len(ink):
        return "unknown"
    limbs = np.unique(limb_inks(), axis=0)
    likeness = (ink / amounts[:, None]) @ (limbs / np.linalg.norm(limbs, axis=1, keepdims=True)).T
    nearest, is_near = likeness.argmax(axis=1), likeness.max(axis=1) > NEAR
    shares = np.bincount(nearest[is_near], amounts[is_near], len(limbs)) / amounts.sum()
    is_known = shares.sum() >= EXPLAINED and (shares >= SEEN).sum() >= len(limbs) / 2
    return "competition" if is_known else "unknown"
