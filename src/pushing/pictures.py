"""The pictures that an evaluation of robot pushing writes."""

import math
from pathlib import Path

import torch

from src.pushing.scores import PushingRollouts, ShownClip
from src.reporting.clips import NewClip, save_clips
from src.reporting.plots import plot_psnr, save_gif, save_strip, side_by_side

PICTURES = (  # file, caption, make target that writes it
    ("rollout_strip.png", "best test clip, rows from the top: true | prior's mean | samples", "evaluate"),
    ("psnr_by_frame.png", "PSNR by frame, mean over the test clips, with the baselines", "evaluate"),
    ("rollout.gif", "best test clip, from the left: true | prior's mean | samples", "evaluate"),
)
GIF_REPEATS = 3  # a GIF shows each frame three times, because ten frames are over too quickly


def save_pictures(folder: Path, rollouts: PushingRollouts, checkpoint_sha256: str) -> None:
    """Writes a plot of PSNR by frame, a strip and a GIF of the best clip, and the clips, into the run's folder."""
    best = rollouts.shown["best test clip"].layers
    num_given = len(best[0]) - next(iter(rollouts.psnr.values())).shape[1]
    given = torch.full((num_given,), math.nan, dtype=torch.float64)
    lines = {
        name.removeprefix("score_").replace("_", " "): torch.cat([given, levels.mean(0).cpu()])
        for name, levels in rollouts.psnr.items()
    }
    plot_psnr(folder / "psnr_by_frame.png", lines)
    save_strip(folder / "rollout_strip.png", best, num_frames=len(best[0]))
    save_gif(folder / "rollout.gif", side_by_side(best).repeat_interleave(GIF_REPEATS, dim=0))
    clips = [_clip(name, shown, rollouts.psnr, num_given) for name, shown in rollouts.shown.items()]
    save_clips(folder, clips, checkpoint_sha256)


def _clip(name: str, shown: ShownClip, psnr: dict[str, torch.Tensor], num_given: int) -> NewClip:
    names = ["drawn", *(f"sample {number}" for number in range(1, len(shown.layers) - 1))]
    levels = dict(zip(names, shown.psnr, strict=True))
    levels |= {label: of_clips[shown.number] for label, of_clips in psnr.items() if not label.startswith("score_")}
    curves = {label: [*num_given * [math.nan], *predicted.tolist()] for label, predicted in levels.items()}
    layers = dict(zip(["true", *names], shown.layers, strict=True))
    return NewClip(name, layers, curves, (num_given, len(shown.layers[0]) - 1))
