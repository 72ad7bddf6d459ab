"""The pictures that an evaluation of robot pushing writes."""

import math
from pathlib import Path

import torch

from src.pushing.scores import PushingRollouts
from src.reporting.plots import plot_psnr, save_gif, save_strip, side_by_side

PICTURES = (  # file, caption, make target that writes it
    ("rollout_strip.png", "best test clip, rows from the top: true | prior's mean | samples", "evaluate"),
    ("psnr_by_frame.png", "PSNR by frame, mean over the test clips, with the baselines", "evaluate"),
    ("rollout.gif", "best test clip, from the left: true | prior's mean | samples", "evaluate"),
)
GIF_REPEATS = 3  # a GIF shows each frame three times, because ten frames are over too quickly


def save_pictures(folder: Path, rollouts: PushingRollouts) -> None:
    """Writes a plot of PSNR by frame, and a strip and a GIF of the best clip, into the run's folder."""
    num_given = len(rollouts.shown[0]) - next(iter(rollouts.psnr.values())).shape[1]
    given = torch.full((num_given,), math.nan, dtype=torch.float64)
    lines = {
        name.removeprefix("score_").replace("_", " "): torch.cat([given, levels.mean(0).cpu()])
        for name, levels in rollouts.psnr.items()
    }
    plot_psnr(folder / "psnr_by_frame.png", lines)
    save_strip(folder / "rollout_strip.png", rollouts.shown, num_frames=len(rollouts.shown[0]))
    save_gif(folder / "rollout.gif", side_by_side(rollouts.shown).repeat_interleave(GIF_REPEATS, dim=0))
