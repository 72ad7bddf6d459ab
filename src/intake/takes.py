"""Where one take ends and the next begins: cuts that a person declares, and cuts found in the images."""

import re
from itertools import pairwise

import numpy as np

from src.base.console import UserError

JUMP = 3.0  # a cut changes frame and pose at least this many times as much as the steps around it
BLOCK = 128  # images compared at once: few enough for the cache
Takes = tuple[tuple[int, int], ...]  # first frame of each take, and the one after its last


def parse_cuts(text: str) -> tuple[int, ...]:
    """Returns the cuts of a text such as "630,1260", () of "none"; UserError for anything else."""
    if text == "none":
        return ()
    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", text):
        raise UserError(f"CUTS={text!r}; needed: frame numbers such as 630,1260, or none for one single take")
    return tuple(int(cut) for cut in text.split(","))


def takes_between(cuts: tuple[int, ...], length: int) -> Takes:
    """Returns the takes that cuts make of `length` frames; UserError unless they ascend within 1 .. length - 1."""
    edges = (0, *cuts, length)
    takes = tuple(pairwise(edges))
    if any(stop <= start for start, stop in takes):
        raise UserError(
            f"CUTS={','.join(map(str, cuts))}; needed: ascending numbers from 1 to {length - 1}; correct them"
        )
    return takes


def list_cuts(takes: Takes) -> str:
    """Returns the frames at which takes but the first begin, as text."""
    return ",".join(str(start) for start, _ in takes[1:]) or "none"


def find_cuts(frames: np.ndarray, poses: np.ndarray) -> tuple[int, ...]:
    """Returns the frames that begin a new take, found in frames and poses (N, 3, H, W) uint8 by either of two signs.

    A jump: frame and pose both change `JUMP` times as much as in the two steps before, in the two after and in the
    median step. In 2,520 frames of the competition's footage that factor stays below 2.6 inside takes, where the camera
    dropped frames; pieces of it put end to end exceed 3 in nine cases of ten.

    A repeated pose: the competition gives frame 0 of a take the pose of frame 1. Where takes continue each other, as in
    that footage, nothing else tells: frames change by no more than usual. So a cut is at c where pose c, not blank,
    equals pose c + 1 and no other poses near are equal, while the frame goes on moving, and the step into c, which
    spans two frames, exceeds its neighbours (1.6 and 1.8 times there). Slow motion repeats poses too, but not so.
    """
    frame_steps, pose_steps = _steps(frames), _steps(poses)
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
    """Mean absolute difference (N - 1,) between neighbours, in grey levels."""
    steps = np.empty(len(images) - 1)
    for start in range(0, len(steps), BLOCK):
        block = images[start : start + BLOCK + 1]
        change = np.maximum(block[1:], block[:-1]) - np.minimum(block[1:], block[:-1])
        steps[start : start + BLOCK] = change.reshape(len(change), -1).sum(axis=1, dtype=np.uint32) / change[0].size
    return steps


def _prominence(steps: np.ndarray) -> np.ndarray:
    """How many times each step exceeds the median step and the two steps on either side; 0 where there are no two."""
    result = np.zeros(len(steps))
    if len(steps) >= 5:
        windows = np.lib.stride_tricks.sliding_window_view(steps, 5)
        around = np.maximum(windows[:, [0, 1, 3, 4]].max(axis=1), np.median(steps))
        result[2:-2] = steps[2:-2] / np.maximum(around, 1e-6)
    return result
