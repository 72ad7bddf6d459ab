"""A trained pose model on the validation take: the competition's score, the baselines, pictures."""

import math
import time
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.base.console import progress_bar
from src.base.randomness import keyed_seed
from src.config import Config, EvaluationConfig
from src.dance.validation import TakeValidation, validation_of
from src.dataset import DanceData, to_unit
from src.evaluation.trained import Trained, latent_of, origin_of
from src.maths.metrics import (
    copy_first_frame,
    median_frame,
    nearest_pose,
    psnr_per_frame,
    quantise,
    rollout_scores,
    ssim_per_frame,
)
from src.models.interface import PoseModel
from src.reporting.plots import plot_psnr, save_gif, save_strip, side_by_side

NUM_LATE = 100  # frames before the last scored one, whose drift is measured with it
NUM_SAMPLES = 3  # of one sequence, to see how far apart they are
PRIOR_MEAN = EvaluationConfig(latent="mean", mirror=False)  # a mean over mirror images would hide what a latent does
SAMPLE = EvaluationConfig(latent="sample", mirror=False)


class Rollouts(NamedTuple):
    """What a model makes of the validation take, (T, 3, H, W) uint8 each."""

    drawn: Tensor  # by the run's settings
    uninformed: Tensor  # with the prior's mean, without shifts
    informed: Tensor  # the same with latents that have seen the truth
    samples: list[Tensor]  # of the prior, without mirror images and shifts
    prior_mean: Tensor  # its mean, likewise
    held_out_score: float | None  # dB
    seconds: float  # that `drawn` took


def score(trained: Trained, data: DanceData) -> dict[str, object]:
    """Rolls out the validation take, writes plot, strip and GIF into the run's folder, and returns its scores.

    The competition's score comes first, then what the baselines reach, the protocol, and where the numbers come from.
    `score_prior_mean`, `score_single` and `score_mean_of_samples` compare latents and nothing else: without mirror
    images and shifts, with the prior's mean, one sample, and the mean picture of `num_samples` samples.
    """
    run, config = trained.folder.name, trained.config
    validation = validation_of(config, data, context=trained.model.context, device=trained.device)
    assert isinstance(validation, TakeValidation), "dancers are validated on takes"
    truth, poses = validation.frames.cpu(), validation.poses.cpu()
    made = roll_out(trained, validation)
    candidates = {run: made.drawn, "posterior latent": made.informed, **baselines(data, truth[0], poses)}
    psnr = {name: psnr_per_frame(clip, truth) for name, clip in candidates.items()}
    first, last = data.manifest.scored_frames
    scores = {
        name: rollout_scores(psnr[name], ssim_per_frame(clip, truth), (first, last))
        for name, clip in candidates.items()
    }
    leak = scores["posterior latent"].score - validation.score(made.uninformed.to(trained.device))
    mean_of_samples = quantise(to_unit(torch.stack(made.samples)).mean(dim=0))
    content: dict[str, object] = {
        "run": run,
        **scores.pop(run).as_json(),
        "posterior_minus_prior_db": leak,
        "held_out_score": made.held_out_score,
        "drift_db": drift(validation, trained.model, psnr[run]),
        "score_prior_mean": validation.score(made.prior_mean),
        "score_single": validation.score(made.samples[0].to(trained.device)),
        "score_mean_of_samples": validation.score(mean_of_samples.to(trained.device)),
        "num_samples": NUM_SAMPLES,
        **psnr_between(made.samples, poses),
        "posterior_latent": scores.pop("posterior latent").as_json(),
        "baselines": {name: score.as_json() for name, score in scores.items()},
        "protocol": f"free rollout of {len(truth)} frames from frame 0 of the validation take of {config.dataset}; "
        f"checkpoint: {checkpoint_of(config)}; latent: {latent_of(config)} of the prior; "
        f"mirror: {config.evaluation.mirror}; shift: {config.evaluation.shift}; samples compared: {NUM_SAMPLES}; "
        f"score: mean PSNR of frames {first}-{min(last, len(truth) - 1)}",
        "psnr_by_frame": ["inf" if value == math.inf else value for value in psnr[run].tolist()],
        "rollout_seconds": made.seconds,
        **origin_of(trained),
    }
    del psnr["posterior latent"]
    plot_psnr(trained.folder / "psnr_by_frame.png", psnr, scored=range(first, last + 1))
    save_gif(trained.folder / "rollout.gif", side_by_side([truth, made.drawn, poses]))
    save_strip(trained.folder / "rollout_strip.png", [truth, made.drawn, poses])
    save_gif(trained.folder / "samples.gif", side_by_side([truth, *made.samples]))
    return content


def what_is_rolled_out(data: DanceData) -> str:
    """Returns in words what `score` rolls out."""
    return f"{len(data.val.frames)} frames of validation"


def roll_out(trained: Trained, validation: TakeValidation) -> Rollouts:
    """Returns the rollouts of the validation take that its scores need, and says how far it is."""
    model, settings = trained.model, trained.config.evaluation
    plain = validation.unshifted.model_copy(update={"latent": "mean"})
    with progress_bar(f"{trained.folder.name}: rollouts", 5 + NUM_SAMPLES) as advance:
        started = time.monotonic()
        drawn = validation.draw(model).cpu()
        seconds = time.monotonic() - started
        advance()
        uninformed = drawn if plain == settings else validation.draw(model, settings=plain).cpu()
        advance()
        informed = validation.draw_from_posterior(model).cpu()
        advance()
        samples = []
        for number in range(NUM_SAMPLES):
            seed = keyed_seed(trained.config.seed, "rollout", number)
            samples.append(validation.draw(model, settings=SAMPLE, seed=seed).cpu())
            advance()
        prior_mean = validation.draw(model, settings=PRIOR_MEAN)
        advance()
        held_out_score = validation.held_out_score(model) if validation.held_out else None
        advance()
    return Rollouts(drawn, uninformed, informed, samples, prior_mean, held_out_score, seconds)


def checkpoint_of(config: Config) -> str:
    """Returns in words which checkpoint is evaluated, and what it was chosen by."""
    if config.evaluation.checkpoint == "last":
        return "last"
    return f"best by the validations on {'the takes held out' if config.training.held_out_takes else 'this take'}"


def drift(validation: TakeValidation, model: PoseModel, psnr: Tensor) -> float | None:
    """Returns what the last scored frame and the `NUM_LATE` before it lose by standing deep in the rollout, in dB.

    None where the rollout is too short for them.

    They are drawn a second time straight after the given frame and the poses that the model sees around them: the same
    frames, the same motion, another depth.
    psnr: (T,) of the whole rollout, in dB.
    """
    last = validation.scored[1]
    begin, stop = last - NUM_LATE, last + 1
    if len(validation.poses) < stop or begin <= model.context:
        return None
    late, around = slice(begin, stop), slice(begin - model.context, stop + model.context)
    drawn = validation.draw(model, poses=torch.cat([validation.poses[:1], validation.poses[around]]))
    early = drawn[1 + model.context :][: stop - begin]
    return (psnr_per_frame(early, validation.frames[late]).mean() - psnr[late].to(early.device).mean()).item()


def psnr_between(samples: list[Tensor], poses: Tensor) -> dict[str, float | str]:
    """Returns how near two samples of one sequence are, (T, 3, H, W) uint8 each, in dB: the mean over pairs and frames.

    The second number is over the tenth of the frames whose poses say least.
    """
    pairs = torch.stack([psnr_per_frame(a, b)[1:] for a, b in combinations(samples, 2)]).mean(dim=0)
    ink = (255 - poses[1:].float()).flatten(1).sum(dim=1)
    vague = ink.argsort()[: max(1, len(ink) // 10)]
    levels = {"psnr_between_samples": pairs.mean().item(), "psnr_between_samples_vague": pairs[vague].mean().item()}
    return {name: "inf" if value == math.inf else value for name, value in levels.items()}


def baselines(data: DanceData, first: Tensor, poses: Tensor) -> dict[str, Tensor]:
    """Returns clips (T, 3, H, W) uint8 that need no training, for a first frame (3, H, W) and poses (T, 3, H, W)."""
    frames, known = (torch.from_numpy(np.array(pixels)) for pixels in (data.train.frames, data.train.poses))
    return {
        "first frame": copy_first_frame(first, len(poses)),
        "median frame": copy_first_frame(median_frame(frames), len(poses)),
        "nearest pose": nearest_pose(frames, known, poses, 1),
        "mean of 5 nearest poses": nearest_pose(frames, known, poses, 5),
    }
