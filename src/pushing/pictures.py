"""The pictures of an evaluated model of robot pushing."""

import math
from pathlib import Path

import torch

from src.pushing.scores import PushingRollouts
from src.reporting.plots import plot_psnr, save_gif, save_strip, side_by_side

PICTURES = (  # file, what it shows, the target that makes it
    ("rollout_strip.png", "best test clip, rows from the top: true | prior's mean | samples", "evaluate"),
    ("psnr_by_frame.png", "PSNR by frame, mean over the test clips, beside the baselines", "evaluate"),
    ("rollout.gif", "best test clip, from the left: true | prior's mean | samples", "evaluate"),
)
GIF_REPEATS = 3  # times a frame is shown: ten frames pass too quickly to be looked at


def save_pictures(folder: Path, made: PushingRollouts) -> None:
    """Writes PSNR by frame, and strip and GIF of the best clip, into the run's folder."""
    num_given = len(made.shown[0]) - next(iter(made.psnr.values())).shape[1]
    given = torch.full((num_given,), math.nan, dtype=torch.float64)
    lines = {
        name.removeprefix("score_").replace("_", " "): torch.cat([given, levels.mean(0).cpu()])
        for name, levels in made.psnr.items()
    }
    plot_psnr(folder / "psnr_by_frame.png", lines)
    save_strip(folder / "rollout_strip.png", made.shown, num_frames=len(made.shown[0]))
    save_gif(folder / "rollout.gif", side_by_side(made.shown).repeat_interleave(GIF_REPEATS, dim=0))
