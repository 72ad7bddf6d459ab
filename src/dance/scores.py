"""Evaluates a dance model on the validation take: the competition's score, other measures, and the baselines."""

import time
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.base.console import progress_bar
from src.base.randomness import keyed_seed
from src.config import Config, EvaluationConfig
from src.dance.schema import DanceRolloutScores, DanceScores
from src.dance.validation import TakeValidation, to_pixels, validation_takes
from src.dataset import DanceData
from src.evaluation.rollout import mean_picture
from src.evaluation.trained import Trained, latent_of, origin_of
from src.intake.facts import SCORED_FRAMES
from src.maths.metrics import (
    competition_score,
    copy_first_frame,
    median_frame,
    nearest_pose,
    psnr_at,
    psnr_per_frame,
    ssim_per_frame,
)
from src.models.interface import PoseModel

NUM_LATE = 100  # drift is measured on the last scored frame and this many frames before it
NUM_SAMPLES = 3  # samples of one sequence, to measure how much they differ
# No mirror images here: a mean over them would hide the effect of the latent.
PRIOR_MEAN = EvaluationConfig(latent="mean", mirror=False)
SAMPLE = EvaluationConfig(latent="sample", mirror=False)


class DanceRollouts(NamedTuple):
    """The validation take and a model's rollouts of it, (T, 3, H, W) uint8 each, on the device."""

    truth: Tensor
    poses: Tensor
    drawn: Tensor  # with the run's settings
    unshifted: Tensor  # latent: the prior's mean; no shifts
    posterior: Tensor  # latent: the posterior's mean, which has seen the true frames; no shifts
    samples: list[Tensor]  # latent: samples of the prior; no mirror images, no shifts
    mean_of_samples: Tensor
    prior_mean: Tensor  # latent: the prior's mean; no mirror images, no shifts
    held_out_score: float | None  # dB
    seconds: float  # time to compute `drawn`
    scored: tuple[int, int]  # first and last scored frame
    psnr: dict[str, Tensor]  # name of the run or baseline -> PSNR in dB, (T,); `score` fills it


def score(trained: Trained, data: DanceData) -> tuple[DanceScores, DanceRollouts]:
    """Rolls out the validation take. Returns the scores and the rollouts."""
    run = trained.folder.name
    config = trained.config
    validation = validation_takes(config, data, context=trained.model.context, device=trained.device)
    rollouts = roll_out(trained, validation)
    truth = rollouts.truth
    scored = rollouts.scored
    own_psnr = psnr_per_frame(rollouts.drawn, truth)
    psnr = {run: own_psnr}
    baseline_scores = {}
    for name, clip in baselines(data, truth[0].cpu(), rollouts.poses.cpu()).items():
        psnr[name] = psnr_per_frame(clip.to(truth.device), truth)
        baseline_scores[name] = rollout_scores(psnr[name], ssim_per_frame(clip.to(truth.device), truth), scored)
    posterior = rollout_scores(
        psnr_per_frame(rollouts.posterior, truth), ssim_per_frame(rollouts.posterior, truth), scored
    )
    between, between_near_empty = psnr_between(rollouts.samples, rollouts.poses)
    scores = DanceScores(
        run=run,
        **rollout_scores(own_psnr, ssim_per_frame(rollouts.drawn, truth), scored).model_dump(),
        posterior_minus_prior_db=posterior.score - validation.score(rollouts.unshifted),
        held_out_score=rollouts.held_out_score,
        drift_db=drift(validation, trained.model, own_psnr),
        score_prior_mean=validation.score(rollouts.prior_mean),
        score_single=validation.score(rollouts.samples[0]),
        score_mean_of_samples=validation.score(rollouts.mean_of_samples),
        num_samples_compared=NUM_SAMPLES,
        psnr_between_samples=between,
        psnr_between_samples_vague=between_near_empty,
        posterior_latent=posterior,
        baselines=baseline_scores,
        protocol=protocol_of(config, len(truth), scored),
        num_given=trained.model.num_given,
        scored_frames=scored,
        psnr_by_frame=own_psnr.tolist(),
        rollout_seconds=rollouts.seconds,
        **origin_of(trained),
    )
    return scores, rollouts._replace(psnr=psnr)


def what_is_rolled_out(data: DanceData) -> str:
    """Returns in words what `score` rolls out."""
    return f"{len(data.val.frames)} frames of validation"


def protocol_of(config: Config, num_frames: int, scored: tuple[int, int]) -> str:
    """Returns in words how the scores are computed."""
    evaluation = config.evaluation
    return (
        f"free rollout of {num_frames} frames from frame 0 of the validation take of {config.dataset}; "
        f"checkpoint: {checkpoint_of(config)}; latent: {latent_of(config)} of the prior; "
        f"mirror: {evaluation.mirror}; shift: {evaluation.shift}; samples compared: {NUM_SAMPLES}; "
        f"score: mean PSNR of frames {scored[0]}-{scored[1]}"
    )


def roll_out(trained: Trained, validation: TakeValidation) -> DanceRollouts:
    """Returns the rollouts of the validation take, and shows its progress. `psnr` is still empty."""
    model = trained.model
    settings = trained.config.evaluation
    plain = validation.unshifted.model_copy(update={"latent": "mean"})
    with progress_bar(f"{trained.folder.name}: rollouts", 5 + NUM_SAMPLES) as advance:
        started = time.monotonic()
        drawn = validation.draw(model)
        seconds = time.monotonic() - started
        advance()
        unshifted = drawn if plain == settings else validation.draw(model, settings=plain)
        advance()
        posterior = validation.draw_from_posterior(model)
        advance()
        samples = []
        for number in range(NUM_SAMPLES):
            seed = keyed_seed(trained.config.seed, "rollout", number)
            samples.append(validation.draw_unrounded(model, settings=SAMPLE, seed=seed))
            advance()
        prior_mean = validation.draw(model, settings=PRIOR_MEAN)
        advance()
        held_out_score = validation.held_out_score(model) if validation.held_out else None
        advance()
    return DanceRollouts(
        truth=validation.frames,
        poses=validation.poses,
        drawn=drawn,
        unshifted=unshifted,
        posterior=posterior,
        samples=[to_pixels(sample) for sample in samples],
        mean_of_samples=to_pixels(mean_picture(samples, NUM_SAMPLES)),
        prior_mean=prior_mean,
        held_out_score=held_out_score,
        seconds=seconds,
        scored=(validation.scored[0], min(validation.scored[1], len(validation.frames) - 1)),
        psnr={},
    )


def rollout_scores(psnr: Tensor, ssim: Tensor, scored: tuple[int, int] = SCORED_FRAMES) -> DanceRolloutScores:
    """Returns the scores of a rollout from PSNR in dB and SSIM per frame, (T,) each. Frame 0 is the given frame."""
    return DanceRolloutScores(
        score=competition_score(psnr, scored),
        mean_psnr=psnr[..., 1:].double().mean().item(),
        mean_ssim=ssim[..., 1:].double().mean().item(),
        psnr_1_to_10=psnr_at(psnr, range(1, 11)),
        psnr_100=psnr_at(psnr, [100]),
        psnr_300=psnr_at(psnr, [300]),
        psnr_600=psnr_at(psnr, [600]),
    )


def checkpoint_of(config: Config) -> str:
    """Returns in words which checkpoint is evaluated and how it was chosen."""
    if config.evaluation.checkpoint == "last":
        return "last"
    return f"best by the validations on {'the takes held out' if config.training.held_out_takes else 'this take'}"


def drift(validation: TakeValidation, model: PoseModel, psnr: Tensor) -> float | None:
    """Returns how many dB late frames lose because they come late in a rollout; None if the take is too short.

    The late frames are the last scored frame and the `NUM_LATE` frames before it (competition: 500 to 600). The result
    is their mean PSNR as the first frames of a new rollout, minus their mean PSNR in the full rollout, `psnr` (T,). The
    new rollout has the same given frame. Its poses are those that the model sees around the late frames.
    """
    begin = validation.scored[1] - NUM_LATE
    stop = validation.scored[1] + 1
    if len(validation.poses) < stop or begin <= model.context:
        return None
    late = slice(begin, stop)
    around = slice(begin - model.context, stop + model.context)
    drawn = validation.draw(model, poses=torch.cat([validation.poses[:1], validation.poses[around]]))
    early = drawn[1 + model.context :][: stop - begin]
    return (psnr_per_frame(early, validation.frames[late]).mean() - psnr[late].to(early.device).mean()).item()


def psnr_between(samples: list[Tensor], poses: Tensor) -> tuple[float, float]:
    """Returns the PSNR in dB between samples of one sequence, (T, 3, H, W) uint8 each: the mean over pairs and frames.

    The second number is the same mean over the 10 % of the frames with the emptiest pose images.
    """
    pairs = torch.stack([psnr_per_frame(a, b)[1:] for a, b in combinations(samples, 2)]).mean(dim=0)
    darkness = (255 - poses[1:].float()).flatten(1).sum(dim=1)
    emptiest = darkness.argsort()[: max(1, len(darkness) // 10)]
    return pairs.mean().item(), pairs[emptiest].mean().item()


def baselines(data: DanceData, first: Tensor, poses: Tensor) -> dict[str, Tensor]:
    """Returns name -> clip (T, 3, H, W) uint8 for each baseline. A baseline needs no training.

    first: (3, H, W) uint8; poses: (T, 3, H, W) uint8.
    """
    frames = torch.from_numpy(np.array(data.train.frames))
    train_poses = torch.from_numpy(np.array(data.train.poses))
    return {
        "first frame": copy_first_frame(first, len(poses)),
        "median frame": copy_first_frame(median_frame(frames), len(poses)),
        "nearest pose": nearest_pose(frames, train_poses, poses, 1),
        "mean of 5 nearest poses": nearest_pose(frames, train_poses, poses, 5),
    }
