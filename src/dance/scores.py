"""A trained model of dancers on the validation take: the competition's score, what stands beside it, the baselines."""

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
from src.dance.validation import TakeValidation, known_takes, to_pixels
from src.dataset import DanceData
from src.evaluation.rollout import mean_picture
from src.evaluation.trained import Trained, latent_of, origin_of
from src.maths.metrics import (
    FIRST_SCORED,
    LAST_SCORED,
    competition_score,
    copy_first_frame,
    median_frame,
    nearest_pose,
    psnr_at,
    psnr_per_frame,
    ssim_per_frame,
)
from src.models.interface import PoseModel

LATE = range(500, 601)  # frames whose drift is measured
NUM_SAMPLES = 3  # of one sequence, to see how far apart they are
PRIOR_MEAN = EvaluationConfig(latent="mean", mirror=False)  # a mean over mirror images would hide what a latent does
SAMPLE = EvaluationConfig(latent="sample", mirror=False)


class DanceRollouts(NamedTuple):
    """What a model makes of the validation take, (T, 3, H, W) uint8 each, on the device."""

    truth: Tensor
    poses: Tensor
    drawn: Tensor  # by the run's settings
    unshifted: Tensor  # with the prior's mean, without shifts
    posterior: Tensor  # the same with latents that have seen the truth
    samples: list[Tensor]  # of the prior, without mirror images and shifts
    mean_of_samples: Tensor
    prior_mean: Tensor  # with the prior's mean, without mirror images and shifts
    held_out_score: float | None  # dB
    seconds: float  # that `drawn` took
    psnr: dict[str, Tensor]  # of the run and of each baseline, (T,) in dB; empty until they are scored


def score(trained: Trained, data: DanceData) -> tuple[DanceScores, DanceRollouts]:
    """Rolls out the validation take and returns its scores, and the rollouts that they are of."""
    run, config = trained.folder.name, trained.config
    validation = known_takes(config, data, context=trained.model.context, device=trained.device)
    made = roll_out(trained, validation)
    truth = made.truth
    own_psnr = psnr_per_frame(made.drawn, truth)
    psnr = {run: own_psnr}
    baseline_scores = {}
    for name, clip in baselines(data, truth[0].cpu(), made.poses.cpu()).items():
        psnr[name] = psnr_per_frame(clip.to(truth.device), truth)
        baseline_scores[name] = rollout_scores(psnr[name], ssim_per_frame(clip.to(truth.device), truth))
    posterior = rollout_scores(psnr_per_frame(made.posterior, truth), ssim_per_frame(made.posterior, truth))
    between, between_vague = psnr_between(made.samples, made.poses)
    last = min(LAST_SCORED, len(truth) - 1)
    scores = DanceScores(
        run=run,
        **rollout_scores(own_psnr, ssim_per_frame(made.drawn, truth)).model_dump(),
        posterior_minus_prior_db=posterior.score - validation.score(made.unshifted),
        held_out_score=made.held_out_score,
        drift_db=drift(validation, trained.model, own_psnr),
        score_prior_mean=validation.score(made.prior_mean),
        score_single=validation.score(made.samples[0]),
        score_mean_of_samples=validation.score(made.mean_of_samples),
        num_samples_compared=NUM_SAMPLES,
        psnr_between_samples=between,
        psnr_between_samples_vague=between_vague,
        posterior_latent=posterior,
        baselines=baseline_scores,
        protocol=protocol_of(config, len(truth), last),
        num_given=trained.model.num_given,
        scored_frames=(FIRST_SCORED, last),
        psnr_by_frame=own_psnr.tolist(),
        rollout_seconds=made.seconds,
        **origin_of(trained),
    )
    return scores, made._replace(psnr=psnr)


def what_is_rolled_out(data: DanceData) -> str:
    """Returns in words what `score` rolls out."""
    return f"{len(data.val.frames)} frames of validation"


def protocol_of(config: Config, num_frames: int, last_scored: int) -> str:
    """Returns in words how the scores are made."""
    evaluation = config.evaluation
    return (
        f"free rollout of {num_frames} frames from frame 0 of the validation take of {config.dataset}; "
        f"checkpoint: {checkpoint_of(config)}; latent: {latent_of(config)} of the prior; "
        f"mirror: {evaluation.mirror}; shift: {evaluation.shift}; samples compared: {NUM_SAMPLES}; "
        f"score: mean PSNR of frames {FIRST_SCORED}-{last_scored}"
    )


def roll_out(trained: Trained, validation: TakeValidation) -> DanceRollouts:
    """Returns the rollouts of the validation take that its scores need, and says how far it is."""
    model, settings = trained.model, trained.config.evaluation
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
        psnr={},
    )


def rollout_scores(psnr: Tensor, ssim: Tensor) -> DanceRolloutScores:
    """Returns the numbers of a rollout, from PSNR in dB and SSIM per frame, (T,) each, with frame 0 the given one."""
    return DanceRolloutScores(
        score=competition_score(psnr),
        mean_psnr=psnr[..., FIRST_SCORED:].double().mean().item(),
        mean_ssim=ssim[..., FIRST_SCORED:].double().mean().item(),
        psnr_1_to_10=psnr_at(psnr, range(1, 11)),
        psnr_100=psnr_at(psnr, [100]),
        psnr_300=psnr_at(psnr, [300]),
        psnr_600=psnr_at(psnr, [600]),
    )


def checkpoint_of(config: Config) -> str:
    """Returns in words which checkpoint is evaluated, and what it was chosen by."""
    if config.evaluation.checkpoint == "last":
        return "last"
    return f"best by the validations on {'the takes held out' if config.training.held_out_takes else 'this take'}"


def drift(validation: TakeValidation, model: PoseModel, psnr: Tensor) -> float | None:
    """Returns by how many dB frames 500 to 600 are better in a fresh rollout; None where the take is too short.

    The mean PSNR of these frames, drawn as the first ones of a fresh rollout, minus their mean PSNR in the full one,
    `psnr` (T,). The fresh rollout follows the given frame and the poses that the model sees around those frames.
    """
    if len(validation.poses) < LATE.stop:
        return None
    late, around = slice(LATE.start, LATE.stop), slice(LATE.start - model.context, LATE.stop + model.context)
    drawn = validation.draw(model, poses=torch.cat([validation.poses[:1], validation.poses[around]]))
    early = drawn[1 + model.context :][: len(LATE)]
    return (psnr_per_frame(early, validation.frames[late]).mean() - psnr[late].to(early.device).mean()).item()


def psnr_between(samples: list[Tensor], poses: Tensor) -> tuple[float, float]:
    """Returns how near samples of one sequence are, (T, 3, H, W) uint8 each, in dB: the mean over pairs and frames.

    The second number is over the tenth of the frames whose pose images are emptiest.
    """
    pairs = torch.stack([psnr_per_frame(a, b)[1:] for a, b in combinations(samples, 2)]).mean(dim=0)
    darkness = (255 - poses[1:].float()).flatten(1).sum(dim=1)
    emptiest = darkness.argsort()[: max(1, len(darkness) // 10)]
    return pairs.mean().item(), pairs[emptiest].mean().item()


def baselines(data: DanceData, first: Tensor, poses: Tensor) -> dict[str, Tensor]:
    """Returns clips (T, 3, H, W) uint8 that need no training, for a first frame (3, H, W) and poses (T, 3, H, W)."""
    frames, known = (torch.from_numpy(np.array(pixels)) for pixels in (data.train.frames, data.train.poses))
    return {
        "first frame": copy_first_frame(first, len(poses)),
        "median frame": copy_first_frame(median_frame(frames), len(poses)),
        "nearest pose": nearest_pose(frames, known, poses, 1),
        "mean of 5 nearest poses": nearest_pose(frames, known, poses, 5),
    }
