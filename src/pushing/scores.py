"""Scores of a robot pushing model on the test clips: by protocol, with shuffled actions, and of the baselines."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.base.console import UserError, progress_bar
from src.config import Config, EvaluationConfig
from src.dataset import to_unit
from src.evaluation.scores import RolloutScores
from src.evaluation.trained import Trained, latent_of, origin_of
from src.intake.manifest import PushingManifest
from src.maths.metrics import best_of, quantise, ssim_per_frame
from src.pushing.data import PushingData
from src.pushing.schema import PushingScores
from src.pushing.validation import ClipValidation

PRIOR_MEAN = EvaluationConfig(latent="mean", mirror=False)
SINGLE_SAMPLE = EvaluationConfig(latent="sample", mirror=False)
CHECKPOINTS = {"best": "best by validations on other clips", "last": "last"}  # these words are in stored protocols
SHUFFLED = ("actions", "conditions")  # taken from another clip: only the actions, or actions and positions
NUM_SHOWN = 3  # samples that the pictures show
MEAN_FRAME_CLIPS = 512  # about this many training clips are averaged for the mean frame


class ShownClip(NamedTuple):
    """A test clip that the pictures show."""

    number: int  # among the test clips
    layers: list[Tensor]  # truth, prior's mean, then samples; each (T, 3, H, W) uint8
    psnr: list[Tensor]  # of the predicted frames of each layer but the truth, (T - num_given,) in dB


class PushingRollouts(NamedTuple):
    """The rollouts of the test clips, on the device."""

    psnr: dict[str, Tensor]  # {protocol or baseline: PSNR of each clip and predicted frame, (N, T) in dB}
    chosen: Tensor  # rollouts with the run's evaluation settings, (N, T, 3, H, W) in [0, 1]
    shown: dict[str, ShownClip]  # best, median and worst clip by the PSNR of the prior's mean


def score(trained: Trained, data: PushingData) -> tuple[PushingScores, PushingRollouts]:
    """Rolls out all test clips from their first frames, and returns the scores and the rollouts.

    Raises UserError if there is only one test clip, because the actions of another clip are needed.
    """
    config = trained.config
    if len(data.test.frames) < 2:
        raise UserError(
            f"{config.dataset} has only one test clip, but each clip is also drawn with the actions of another; "
            "needed: at least 2 test clips"
        )
    test = ClipValidation(config, data.test, device=trained.device, num_clips=None)
    num_given, num_frames = test.num_given, test.frames.shape[1]
    rollouts = _roll_out(test, trained, data.manifest)
    still = baselines(data, test)
    by_protocol: dict[str, Any] = {name: levels.mean().item() for name, levels in rollouts.psnr.items()}
    own_psnr = test.psnr(rollouts.chosen)
    own_ssim = _ssim(rollouts.chosen, test)
    scores = PushingScores(
        run=trained.folder.name,
        score=own_psnr.mean().item(),
        mean_ssim=own_ssim.mean().item(),
        **by_protocol,
        num_samples_compared=config.evaluation.num_samples,
        num_clips=len(test.frames),
        baselines={
            name: RolloutScores(score=test.psnr(clip).mean().item(), mean_ssim=_ssim(clip, test).mean().item())
            for name, clip in still.items()
        },
        protocol=protocol_of(config, len(test.frames), num_given, num_frames - num_given),
        num_given=num_given,
        scored_frames=(num_given, num_frames - 1),
        psnr_by_frame=[float("inf")] * num_given + own_psnr.mean(0).tolist(),
        psnr_by_protocol={name: levels.mean(0).tolist() for name, levels in rollouts.psnr.items()},
        ssim_by_frame=own_ssim.mean(0).tolist(),
        **origin_of(trained),
    )
    psnr = rollouts.psnr | {name: test.psnr(clip) for name, clip in still.items()}
    return scores, rollouts._replace(psnr=psnr)


def what_is_rolled_out(data: PushingData) -> str:
    """Describes what `score` rolls out."""
    return f"{len(data.test.frames)} test clips"


def protocol_of(config: Config, num_clips: int, num_given: int, num_predicted: int) -> str:
    """Describes how the scores are computed."""
    return (
        f"{num_clips} test clips of {config.dataset}, from the first frame on, {num_given} -> {num_predicted} frames; "
        f"PSNR per frame and channel; latent: {latent_of(config)} of the prior; "
        f"checkpoint: {CHECKPOINTS[config.evaluation.checkpoint]}"
    )


def _roll_out(test: ClipValidation, trained: Trained, manifest: PushingManifest) -> PushingRollouts:
    """Draws all clips by each protocol, one sample after the other, because all of them together need gigabytes."""
    model = trained.model
    settings = trained.config.evaluation
    with progress_bar("rollouts of all clips", 2 + len(SHUFFLED) + settings.num_samples) as advance:
        mean = test.draw(model, PRIOR_MEAN)
        advance()
        psnr = {"score_prior_mean": test.psnr(mean)}
        shown = {
            name: ShownClip(index, [test.frames[index], quantise(mean[index])], [psnr["score_prior_mean"][index]])
            for name, index in best_median_worst(psnr["score_prior_mean"]).items()
        }
        psnr_of_samples = []
        for number in range(settings.num_samples):
            drawn = test.draw(model, SINGLE_SAMPLE, number=number)
            psnr_of_samples.append(test.psnr(drawn))
            for clip in shown.values() if number < NUM_SHOWN else ():
                clip.layers.append(quantise(drawn[clip.number]))
                clip.psnr.append(psnr_of_samples[-1][clip.number])
            advance()
        psnr |= {"score_single": psnr_of_samples[0], "score_best_of_n": best_of(psnr_of_samples)}
        numbers = {"actions": manifest.num_action, "conditions": manifest.num_action + manifest.num_position}
        for name in SHUFFLED:
            drawn = test.with_shuffled_conditions(numbers[name]).draw(model, PRIOR_MEAN)
            psnr[f"score_shuffled_{name}"] = test.psnr(drawn)
            advance()
        chosen = mean if settings.latent == "mean" else test.draw(model, settings)
        advance()
    return PushingRollouts(psnr, chosen, shown)


def best_median_worst(psnr: Tensor) -> dict[str, int]:
    """Returns the clips with the highest, the middle and the lowest mean PSNR. psnr: (N, T) in dB."""
    order = psnr.mean(dim=1).argsort(descending=True).tolist()
    chosen = {"best test clip": order[0], "median test clip": order[len(order) // 2], "worst test clip": order[-1]}
    if len(order) < 3:  # of two clips, none is called median
        del chosen["median test clip"]
    return chosen


def baselines(data: PushingData, test: ClipValidation) -> dict[str, Tensor]:
    """Returns {name: predictions without training}, each (N, T, 3, H, W) in [0, 1]."""
    last = to_unit(test.frames[:, test.num_given - 1 : test.num_given])
    average = mean_frame(data).to(test.device)
    return {
        "copy of the last frame": last.expand(test.frames.shape),
        "mean training frame": average.expand(test.frames.shape),
    }


def mean_frame(data: PushingData) -> Tensor:
    """Returns the mean of the frames of about `MEAN_FRAME_CLIPS` training clips, (3, H, W) in [0, 1]."""
    step = max(1, len(data.train.frames) // MEAN_FRAME_CLIPS)
    sums = [torch.from_numpy(clip.astype("float32")).mean(dim=0) for clip in data.train.frames[::step]]
    return torch.stack(sums).mean(dim=0) / 255


def _ssim(drawn: Tensor, test: ClipValidation) -> Tensor:
    """Returns the SSIM of each predicted frame, (N, T - num_given). drawn: (N, T, 3, H, W) in [0, 1]."""
    return ssim_per_frame(quantise(drawn[:, test.num_given :]), test.frames[:, test.num_given :])
