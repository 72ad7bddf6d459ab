"""Saves the pictures of an evaluated dance model."""

from pathlib import Path

from src.dance.scores import DanceRollouts
from src.maths.metrics import psnr_per_frame
from src.reporting.clips import NewClip, save_clips
from src.reporting.plots import plot_psnr, save_gif, save_strip, side_by_side

PICTURES = (  # file, what it shows, the make target that writes it
    ("rollout_strip.png", "validation rollout, rows from the top: true | drawn | pose", "evaluate"),
    ("psnr_by_frame.png", "PSNR by frame of the validation rollout, beside the baselines", "evaluate"),
    ("rollout.gif", "validation rollout, from the left: true | drawn | pose", "evaluate"),
    ("samples.gif", "validation rollout, from the left: true | sample 1 | sample 2 | sample 3", "evaluate"),
    ("pred_seq*.gif", "test rollout {}, from the left: drawn | pose", "submission"),
)


def save_pictures(folder: Path, rollouts: DanceRollouts, checkpoint_sha256: str) -> None:
    """Writes the plot of PSNR by frame, the strip, the GIFs and the clips of an evaluation into the run's folder."""
    psnr = {name: values.cpu() for name, values in rollouts.psnr.items()}
    plot_psnr(folder / "psnr_by_frame.png", psnr, scored=range(rollouts.scored[0], rollouts.scored[1] + 1))
    rows = [rollouts.truth, rollouts.drawn, rollouts.poses]
    save_gif(folder / "rollout.gif", side_by_side(rows))
    save_strip(folder / "rollout_strip.png", rows)
    save_gif(folder / "samples.gif", side_by_side([rollouts.truth, *rollouts.samples]))
    save_clips(folder, [_clip(folder.name, rollouts)], checkpoint_sha256)


def _clip(run: str, rollouts: DanceRollouts) -> NewClip:
    samples = {f"sample {number}": clip for number, clip in enumerate(rollouts.samples, start=1)}
    curves = {"drawn" if name == run else name: values.tolist() for name, values in rollouts.psnr.items()}
    curves |= {name: psnr_per_frame(clip, rollouts.truth).tolist() for name, clip in samples.items()}
    layers = {"true": rollouts.truth, "drawn": rollouts.drawn, "pose": rollouts.poses, **samples}
    return NewClip("validation take", layers, curves, rollouts.scored)
