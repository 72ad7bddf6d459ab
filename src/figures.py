"""`make figures RUN=...`: figures of an evaluated run for a paper or a talk -> reports/figures/<run>/.

Strip, PSNR by frame and training curves as SVG, PDF and PNG; the best, the median and the worst stretch of the rollout
as GIF and MP4. All come from what `make evaluate` has kept, so no frame is drawn anew.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.base.console import UserError, activity, run_program, say
from src.base.ownership import owned
from src.commands import figures_options, has_encoder
from src.reporting.clips import StoredClip, frames_of, read_clips
from src.reporting.plots import plot_history, plot_psnr, plot_strip, side_by_side
from src.reporting.results import Run, read_run
from src.reporting.videos import save_clip

RUNS = Path("runs")
FOLDER = Path("reports/figures")
FORMATS = (".svg", ".pdf", ".png")
STRETCH = 50  # frames of a stretch, or all scored frames if there are fewer
STRIP_FRAMES = 8
ERROR_SCALE = 4  # so that small errors can be seen
LAYERS = ("true", "drawn", "pose")  # in this order, as far as a clip has them; the error comes last


def figures(run: Run, folder: Path) -> list[Path]:
    """Writes all figures of a run into a folder, and returns their paths. UserError if the run is not evaluated."""
    if run.config is None or run.scores is None:
        raise UserError(f"{run.folder} has no figures yet: {run.notes[0]}")
    clip = read_clips(run.folder, run.scores.checkpoint_sha256)[0]
    layers = {layer.name: frames_of(run.folder, clip, layer) for layer in clip.layers if layer.name in LAYERS}
    layers[f"error x {ERROR_SCALE}"] = error_of(layers["true"], layers["drawn"])
    psnr = {run.name: next(layer.psnr for layer in clip.layers if layer.name == "drawn"), **clip.baselines}
    first, last = clip.scored
    by_frame = {name: torch.tensor([np.nan if level is None else level for level in psnr[name]]) for name in psnr}

    def files(name: str) -> list[Path]:
        return [folder / f"{name}{ending}" for ending in FORMATS]

    written = [*files("psnr_by_frame"), *files("training_curves"), *files("strip")]
    plot_psnr(written[0], by_frame, scored=range(first, last + 1), also=written[1:3])
    plot_history(written[3], run.log.rows, run.schedules, also=written[4:6])
    chosen = np.linspace(first, last, min(STRIP_FRAMES, last - first + 1)).round().astype(int)
    plot_strip(written[6:], {name: frames[chosen] for name, frames in layers.items()}, chosen.tolist())
    for name, start in stretches(clip).items():
        part = side_by_side([frames[start : start + STRETCH] for frames in layers.values()])
        for ending in (".gif", *([".mp4"] if has_encoder() else [])):
            written.append(folder / f"{name}_frames_{start}_to_{start + len(part) - 1}{ending}")
            save_clip(written[-1], part)
    return written


def error_of(truth: Tensor, drawn: Tensor) -> Tensor:
    """Returns the absolute error of frames (T, 3, H, W) uint8, times `ERROR_SCALE`, at most 255."""
    return ((truth.int() - drawn.int()).abs() * ERROR_SCALE).clamp(max=255).to(torch.uint8)


def stretches(clip: StoredClip) -> dict[str, int]:
    """Returns the first frame of the best, the median and the worst stretch of scored frames, by their mean PSNR."""
    first, last = clip.scored
    (drawn,) = (layer for layer in clip.layers if layer.name == "drawn")
    levels = np.array([np.inf if level is None else level for level in drawn.psnr[first : last + 1]])
    length = min(STRETCH, len(levels))
    means = np.lib.stride_tricks.sliding_window_view(levels, length).mean(axis=1)
    order = means.argsort(kind="stable")
    return {name: first + int(order[place]) for name, place in zip(*_places(len(order)), strict=True)}


def _places(count: int) -> tuple[Sequence[str], Sequence[int]]:
    """Returns the names of the stretches and their places among `count` stretches, the worst first."""
    return ("all",) if count == 1 else ("best", "median", "worst"), (0,) if count == 1 else (-1, count // 2, 0)


def main() -> None:
    """The command line."""
    name = figures_options().run
    folder = FOLDER / name
    with owned(folder), activity("drawing figures"):
        folder.mkdir(parents=True, exist_ok=True)
        written = figures(read_run(RUNS / name), folder)
        for old in set(folder.glob("*_frames_*")) - set(written):  # stretches of an earlier evaluation
            old.unlink()
    say(f"{folder}: {len(written)} files: " + ", ".join(path.name for path in written))
    if not has_encoder():
        say("no MP4, because its encoder is not installed; docs/usage.md says how to install it")


if __name__ == "__main__":
    run_program(main)
