"""A trained model of the SVG family on known clips: scores by protocol, the action test, the baselines, pictures."""

import math

import torch
from torch import Tensor

from src.config import Evaluation
from src.dataset import PushingData
from src.metrics import RolloutScores, quantise, ssim_per_frame
from src.reporting.plots import plot_psnr, save_gif, save_strip, side_by_side
from src.runs import Trained, latent_of, origin_of
from src.validation import ClipValidation

PRIOR_MEAN, SINGLE_SAMPLE = Evaluation(latent="mean", mirror=False), Evaluation(latent="sample", mirror=False)
NUM_SHOWN = 3  # samples in the GIF, beside the truth
GIF_REPEATS = 3  # times a frame is shown: ten frames pass too quickly to be looked at
MEAN_FRAME_CLIPS = 512  # training clips whose frames make the mean frame


def score_pushing(trained: Trained, data: PushingData) -> dict[str, object]:
    """Rolls out the first frames of all test clips, writes plot, strip and GIF, and returns the scores.

    PSNR is per frame and colour channel in [0, 1], averaged over channels, predicted frames and clips, in dB: of the
    prior's mean, of one sample, and of the best of n samples, chosen clip by clip with the truth. `score` is the one
    that the run's settings ask for. The shuffled actions are those of another clip.
    """
    config, num_samples = trained.config, trained.config.evaluation.num_samples
    test = ClipValidation(config, data.test, device=trained.device, num_clips=None)
    model, num_given, truth = trained.model, trained.model.num_given, test.batch.frames
    mean = test.draw(model, PRIOR_MEAN)
    samples = [test.draw(model, SINGLE_SAMPLE, seed=config.seed + number) for number in range(num_samples)]
    chosen = mean if config.evaluation.latent == "mean" else test.draw(model, config.evaluation)
    last = truth[:, num_given - 1 : num_given].expand_as(truth)
    average = mean_frame(data).to(truth.device).expand_as(truth)
    psnr = {
        "psnr_prior_mean": test.psnr(mean),
        "psnr_single": test.psnr(samples[0]),
        "psnr_best_of_n": best_of([test.psnr(sample) for sample in samples]),
        "psnr_shuffled_actions": test.psnr(test.with_shuffled_conditions().draw(model, PRIOR_MEAN)),
        "psnr_copy_last": test.psnr(last),
        "psnr_mean_frame": test.psnr(average),
    }
    baselines = {"copy of the last frame": last, "mean training frame": average}

    def scored(clips: Tensor) -> RolloutScores:
        level = test.psnr(clips).mean().item()
        return RolloutScores(level, level, _ssim(clips, truth, num_given).mean().item(), None, None, None, None)

    _plot(trained, psnr, num_given)
    best = int(psnr["psnr_prior_mean"].mean(1).argmax())
    _save_pictures(trained, [quantise(clips[best]).cpu() for clips in (truth, mean, *samples[:NUM_SHOWN])])
    own = scored(chosen)
    return {
        "run": trained.folder.name,
        **own.as_json(),
        **{name: values.mean().item() for name, values in psnr.items()},
        "ssim": own.mean_ssim,
        **{f"{name}_by_frame": values.mean(0).tolist() for name, values in psnr.items()},
        "ssim_by_frame": _ssim(chosen, truth, num_given).mean(0).tolist(),
        "num_given": num_given,
        "num_samples": num_samples,
        "num_clips": len(truth),
        "actions_are_worth_db": (psnr["psnr_prior_mean"] - psnr["psnr_shuffled_actions"]).mean().item(),
        "baselines": {name: scored(clip).as_json() for name, clip in baselines.items()},
        "protocol": f"{len(truth)} test clips of {config.dataset}, from the first frame on, {num_given} -> "
        f"{truth.shape[1] - num_given} frames; PSNR per frame and channel; latent: {latent_of(config)} of the prior; "
        f"checkpoint: {config.evaluation.checkpoint} by validations on other clips",
        "psnr_by_frame": ["inf"] * num_given + test.psnr(chosen).mean(0).tolist(),
        **origin_of(trained, data.manifest.fingerprint),
    }


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
    save_strip(trained.folder / "validation_strip.png", rows, num_frames=len(rows[0]))
    save_gif(trained.folder / "validation.gif", side_by_side(rows).repeat_interleave(GIF_REPEATS, dim=0))
