"""A trained model of the SVG family on known clips: scores by protocol, the action test, the baselines, pictures."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from src.base.console import UserError, progress_bar
from src.config import EvaluationConfig
from src.evaluation.trained import Trained, latent_of, origin_of
from src.intake.manifest import PushingManifest
from src.maths.metrics import RolloutScores, quantise, ssim_per_frame
from src.pushing.data import PushingData
from src.pushing.validation import ClipValidation
from src.reporting.plots import plot_psnr, save_gif, save_strip, side_by_side

PRIOR_MEAN, SINGLE_SAMPLE = (
    EvaluationConfig(latent="mean", mirror=False),
    EvaluationConfig(latent="sample", mirror=False),
)
CHECKPOINTS = {"best": "best by validations on other clips", "last": "last"}
SHUFFLED = ("actions", "conditions")  # what is taken from another clip: actions, or actions and positions
NUM_SHOWN = 3  # samples in the GIF, beside the truth
GIF_REPEATS = 3  # times a frame is shown: ten frames pass too quickly to be looked at
MEAN_FRAME_CLIPS = 512  # training clips whose frames make the mean frame


class Rollouts(NamedTuple):
    """What a model makes of the test clips."""

    psnr: dict[str, Tensor]  # by protocol, of each clip and predicted frame, (N, T) in dB
    chosen: Tensor  # by the run's settings, (N, T, 3, H, W)
    best: int  # the clip whose PSNR with the prior's mean is highest
    shown: list[Tensor]  # of that clip (T, 3, H, W): the prior's mean, then samples


def score(trained: Trained, data: PushingData) -> dict[str, object]:
    """Rolls out the first frames of all test clips, writes plot, strip and GIF, and returns the scores.

    PSNR is per frame and colour channel in [0, 1], averaged over channels, predicted frames and clips, in dB. `score`
    and `mean_psnr` are that of the run's settings, with `mean_ssim` beside it, or `ssim`. By protocol:
    `psnr_prior_mean` with the prior's mean as latent; `psnr_single`, one sample; `psnr_best_of_n`, of `num_samples`
    samples the best of each clip, chosen with the truth; `psnr_shuffled_actions`, the prior's mean with the actions of
    another clip, `psnr_shuffled_conditions`, with its actions and positions, and `actions_are_worth_db` and
    `conditions_are_worth_db`, what that loses; `psnr_copy_last`, the last given frame, and `psnr_mean_frame`, that of
    training, which are the `baselines`. With `_by_frame`: of each predicted frame. `psnr_by_frame` begins with the
    `num_given` given ones. An endless PSNR is the string "inf". UserError where there is no other clip.
    """
    config, num_samples = trained.config, trained.config.evaluation.num_samples
    if len(data.test.frames) < 2:
        raise UserError(
            f"{config.dataset} has one test clip alone, but each is also drawn with the actions of another; "
            "needed: at least 2 test clips"
        )
    test = ClipValidation(config, data.test, device=trained.device, num_clips=None)
    num_given, truth = trained.model.num_given, test.batch.frames
    made = _roll_out(test, trained, data.manifest)
    last = truth[:, num_given - 1 : num_given].expand_as(truth)
    average = mean_frame(data).to(truth.device).expand_as(truth)
    psnr = made.psnr | {"psnr_copy_last": test.psnr(last), "psnr_mean_frame": test.psnr(average)}
    baselines = {"copy of the last frame": last, "mean training frame": average}

    def scored(clips: Tensor) -> RolloutScores:
        level = test.psnr(clips).mean().item()
        return RolloutScores(level, level, _ssim(clips, truth, num_given).mean().item(), None, None, None, None)

    _plot(trained, psnr, num_given)
    _save_pictures(trained, [quantise(clip).cpu() for clip in (truth[made.best], *made.shown)])
    own = scored(made.chosen)
    return {
        "run": trained.folder.name,
        **own.as_json(),
        **{name: _as_json(values.mean())[0] for name, values in psnr.items()},
        "ssim": own.mean_ssim,
        **{f"{name}_by_frame": _as_json(values.mean(0)) for name, values in psnr.items()},
        "ssim_by_frame": _ssim(made.chosen, truth, num_given).mean(0).tolist(),
        "num_given": num_given,
        "num_samples": num_samples,
        "num_clips": len(truth),
        **{
            f"{name}_are_worth_db": (psnr["psnr_prior_mean"] - psnr[f"psnr_shuffled_{name}"]).mean().item()
            for name in SHUFFLED
        },
        "baselines": {name: scored(clip).as_json() for name, clip in baselines.items()},
        "protocol": f"{len(truth)} test clips of {config.dataset}, from the first frame on, {num_given} -> "
        f"{truth.shape[1] - num_given} frames; PSNR per frame and channel; latent: {latent_of(config)} of the prior; "
        f"checkpoint: {CHECKPOINTS[config.evaluation.checkpoint]}",
        "psnr_by_frame": ["inf"] * num_given + _as_json(test.psnr(made.chosen).mean(0)),
        **origin_of(trained),
    }


def what_is_rolled_out(data: PushingData) -> str:
    """Returns in words what `score` rolls out."""
    return f"{len(data.test.frames)} test clips"


def _roll_out(test: ClipValidation, trained: Trained, manifest: PushingManifest) -> Rollouts:
    """Draws all clips by each protocol; all samples of all clips at once would need gigabytes."""
    model, settings = trained.model, trained.config.evaluation
    with progress_bar("rollouts of all clips", 2 + len(SHUFFLED) + settings.num_samples) as advance:
        mean = test.draw(model, PRIOR_MEAN)
        advance()
        psnr = {"psnr_prior_mean": test.psnr(mean)}
        best, of_samples = int(psnr["psnr_prior_mean"].mean(dim=1).argmax()), []
        shown = [mean[best]]
        for number in range(settings.num_samples):
            drawn = test.draw(model, SINGLE_SAMPLE, number=number)
            of_samples.append(test.psnr(drawn))
            shown += [drawn[best].clone()] if number < NUM_SHOWN else []
            advance()
        psnr |= {"psnr_single": of_samples[0], "psnr_best_of_n": best_of(of_samples)}
        numbers = {"actions": manifest.num_action, "conditions": manifest.num_action + manifest.num_position}
        for name in SHUFFLED:
            drawn = test.with_shuffled_conditions(numbers[name]).draw(model, PRIOR_MEAN)
            psnr[f"psnr_shuffled_{name}"] = test.psnr(drawn)
            advance()
        chosen = mean if settings.latent == "mean" else test.draw(model, settings)
        advance()
    return Rollouts(psnr, chosen, best, shown)


def _as_json(psnr: Tensor) -> list[float | str]:
    """Returns the numbers for a JSON file, which knows no infinity."""
    return ["inf" if value == math.inf else value for value in psnr.flatten().tolist()]


def best_of(psnr: list[Tensor]) -> Tensor:
    """Returns of each clip the PSNR (N, T) by frame of the sample whose mean over frames is highest."""
    stacked = torch.stack(psnr)
    best = stacked.mean(dim=2).argmax(dim=0)
    return stacked[best, torch.arange(stacked.shape[1], device=best.device)]


def mean_frame(data: PushingData) -> Tensor:
    """Returns the mean over frames of training clips, (3, H, W) in [0, 1]."""
    step = max(1, len(data.train.frames) // MEAN_FRAME_CLIPS)
    sums = [torch.from_numpy(clip.astype("float32")).mean(dim=0) for clip in data.train.frames[::step]]
    return torch.stack(sums).mean(dim=0) / 255


def _ssim(drawn: Tensor, truth: Tensor, num_given: int) -> Tensor:
    return ssim_per_frame(quantise(drawn[:, num_given:]), quantise(truth[:, num_given:]))


def _plot(trained: Trained, psnr: dict[str, Tensor], num_given: int) -> None:
    """Plots the PSNR (N, T) of all protocols by frame, mean over the clips."""
    given = torch.full((num_given,), math.nan, dtype=torch.float64)
    lines = {name.removeprefix("psnr_").replace("_", " "): values.mean(0).cpu() for name, values in psnr.items()}
    plot_psnr(trained.folder / "psnr_by_frame.png", {name: torch.cat([given, line]) for name, line in lines.items()})


def _save_pictures(trained: Trained, rows: list[Tensor]) -> None:
    """Writes strip and GIF of a clip, each (T, 3, H, W) uint8: the truth, the prior's mean, samples."""
    save_strip(trained.folder / "rollout_strip.png", rows, num_frames=len(rows[0]))
    save_gif(trained.folder / "rollout.gif", side_by_side(rows).repeat_interleave(GIF_REPEATS, dim=0))
