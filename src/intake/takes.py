"""The boundaries between takes (cuts): declared by the user, or found in the images."""

import re
from itertools import pairwise

import numpy as np

from src.base.console import UserError

JUMP = 3.0  # at a cut, frame and pose change at least this many times as much as around it
BLOCK = 128  # images that are compared at once; they fit into the cache
Takes = tuple[tuple[int, int], ...]  # first frame of each take, and the frame after its last


def parse_cuts(text: str) -> tuple[int, ...]:
    """Returns the cuts of a text such as "630,1260", and () for "none"; UserError for any other text."""
    if text == "none":
        return ()
    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", text):
        raise UserError(f"CUTS={text!r}; needed: frame numbers such as 630,1260, or none for a single take")
    return tuple(int(cut) for cut in text.split(","))


def takes_between(cuts: tuple[int, ...], length: int) -> Takes:
    """Returns the takes of `length` frames with these cuts.

    Raises UserError unless the cuts ascend and lie within 1 .. length - 1.
    """
    edges = (0, *cuts, length)
    takes = tuple(pairwise(edges))
    if any(stop <= start for start, stop in takes):
        raise UserError(
            f"CUTS={','.join(map(str, cuts))}; needed: ascending numbers from 1 to {length - 1}; correct them"
        )
    return takes


def list_cuts(takes: Takes) -> str:
    """Returns the first frames of all takes but the first, as text; "none" for a single take."""
    return ",".join(str(start) for start, _ in takes[1:]) or "none"


def find_cuts(frames: np.ndarray, poses: np.ndarray) -> tuple[int, ...]:
    """Returns the first frames of new takes, found in frames and poses (N, 3, H, W) uint8. There are two kinds.

    A jump: frame and pose both change at least `JUMP` times as much as in the two steps before, in the two steps after,
    and in the median step. In 2,520 frames of the competition's footage this factor is below 2.6 within takes, even
    where the camera dropped frames. Where pieces of the footage are joined, it exceeds 3 in nine cases of ten.

    A repeated pose: in the competition's data, frame 0 of a take has the pose of frame 1. If a take continues the one
    before, as in that footage, this is the only sign, because the frames change no more than usual. Frame c is a cut if
    - pose c equals pose c + 1 and is not blank,
    - no other neighbouring poses near c are equal, which excludes slow motion,
    - the frame still changes from c to c + 1, and
    - the pose changes more from c - 1 to c than in the steps beside it, because this step spans two frames. In the
      footage it is 1.6 and 1.8 times as large.
    """
    frame_steps = _steps(frames)
    pose_steps = _steps(poses)
    factor = np.minimum(_prominence(frame_steps), _prominence(pose_steps))
    cuts = {int(step) + 1 for step in np.flatnonzero(factor >= JUMP)}
    for cut in np.flatnonzero(pose_steps[:-1] == 0):
        near = slice(max(0, cut - 4), cut + 5)
        if cut < 2 or np.count_nonzero(pose_steps[near] == 0) > 1 or poses[cut].min() == poses[cut].max():
            continue
        moves = frame_steps[cut] >= 0.5 * np.median(frame_steps[near])
        if moves and pose_steps[cut - 1] >= 1.25 * (pose_steps[cut - 2] + pose_steps[cut + 1]) / 2:
            cuts.add(int(cut))
    return tuple(sorted(cuts))


def _steps(images: np.ndarray) -> np.ndarray:
    """Returns the mean absolute difference between neighbouring images, (N - 1,), in grey levels."""
    steps = np.empty(len(images) - 1)
    for start in range(0, len(steps), BLOCK):
        block = images[start : start + BLOCK + 1]
        change = np.maximum(block[1:], block[:-1]) - np.minimum(block[1:], block[:-1])
        steps[start : start + BLOCK] = change.reshape(len(change), -1).sum(axis=1, dtype=np.uint32) / change[0].size
    return steps


def _prominence(steps: np.ndarray) -> np.ndarray:
    """Returns each step divided by the largest of the median step and the two steps on either side.

    It is 0 for the first two and the last two steps.
    """
    result = np.zeros(len(steps))
    if len(steps) >= 5:
        windows = np.lib.stride_tricks.sliding_window_view(steps, 5)
        around = np.maximum(windows[:, [0, 1, 3, 4]].max(axis=1), np.median(steps))
        result[2:-2] = steps[2:-2] / np.maximum(around, 1e-6)
    return result
