"""A trained model of robot pushing on known clips: scores by protocol, the action test, the baselines."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.base.console import UserError, progress_bar
from src.config import Config, EvaluationConfig
from src.dataset import to_unit
from src.evaluation.scores import RolloutScores
from src.evaluation.trained import Trained, latent_of, origin_of
from src.intake.manifest import NUM_ACTION, NUM_POSITION
from src.maths.metrics import quantise, ssim_per_frame
from src.pushing.data import PushingData
from src.pushing.schema import PushingScores
from src.pushing.validation import ClipValidation

PRIOR_MEAN = EvaluationConfig(latent="mean", mirror=False)
SINGLE_SAMPLE = EvaluationConfig(latent="sample", mirror=False)
CHECKPOINTS = {"best": "best by validations on other clips", "last": "last"}
SHUFFLED = {"actions": NUM_ACTION, "conditions": NUM_ACTION + NUM_POSITION}  # numbers taken from another clip
NUM_SHOWN = 3  # samples that are kept to be shown, beside the truth
MEAN_FRAME_CLIPS = 512  # training clips whose frames make the mean frame


class PushingRollouts(NamedTuple):
    """What a model makes of the test clips, on the device."""

    psnr: dict[str, Tensor]  # by protocol and baseline, of each clip and predicted frame, (N, T) in dB
    chosen: Tensor  # by the run's settings, (N, T, 3, H, W) in [0, 1]
    shown: list[Tensor]  # (T, 3, H, W) uint8 of the clip with the highest PSNR: truth, prior's mean, then samples


def score(trained: Trained, data: PushingData) -> tuple[PushingScores, PushingRollouts]:
    """Rolls out the first frames of all test clips and returns the scores, and the rollouts that they are of.

    UserError where there is no other clip, whose actions a clip could be drawn with.
    """
    config = trained.config
    if len(data.test.frames) < 2:
        raise UserError(
            f"{config.dataset} has one test clip alone, but each is also drawn with the actions of another; "
            "needed: at least 2 test clips"
        )
    test = ClipValidation(config, data.test, device=trained.device, num_clips=None)
    num_given, num_frames = test.num_given, test.frames.shape[1]
    made = _roll_out(test, trained)
    still = baselines(data, test)
    by_protocol: dict[str, Any] = {name: levels.mean().item() for name, levels in made.psnr.items()}
    own_psnr = test.psnr(made.chosen)
    own_ssim = _ssim(made.chosen, test)
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
        psnr_by_protocol={name: levels.mean(0).tolist() for name, levels in made.psnr.items()},
        ssim_by_frame=own_ssim.mean(0).tolist(),
        **origin_of(trained),
    )
    return scores, made._replace(psnr=made.psnr | {name: test.psnr(clip) for name, clip in still.items()})


def what_is_rolled_out(data: PushingData) -> str:
    """Returns in words what `score` rolls out."""
    return f"{len(data.test.frames)} test clips"


def protocol_of(config: Config, num_clips: int, num_given: int, num_predicted: int) -> str:
    """Returns in words how the scores are made."""
    return (
        f"{num_clips} test clips of {config.dataset}, from the first frame on, {num_given} -> {num_predicted} frames; "
        f"PSNR per frame and channel; latent: {latent_of(config)} of the prior; "
        f"checkpoint: {CHECKPOINTS[config.evaluation.checkpoint]}"
    )


def _roll_out(test: ClipValidation, trained: Trained) -> PushingRollouts:
    """Draws all clips by each protocol; all samples of all clips at once would need gigabytes."""
    model, settings = trained.model, trained.config.evaluation
    with progress_bar("rollouts of all clips", 2 + len(SHUFFLED) + settings.num_samples) as advance:
        mean = test.draw(model, PRIOR_MEAN)
        advance()
        psnr = {"score_prior_mean": test.psnr(mean)}
        best = int(psnr["score_prior_mean"].mean(dim=1).argmax())
        shown = [test.frames[best], quantise(mean[best])]
        of_samples = []
        for number in range(settings.num_samples):
            drawn = test.draw(model, SINGLE_SAMPLE, number=number)
            of_samples.append(test.psnr(drawn))
            shown += [quantise(drawn[best])] if number < NUM_SHOWN else []
            advance()
        psnr |= {"score_single": of_samples[0], "score_best_of_n": best_of(of_samples)}
        for name, numbers in SHUFFLED.items():
            drawn = test.with_shuffled_conditions(numbers).draw(model, PRIOR_MEAN)
            psnr[f"score_shuffled_{name}"] = test.psnr(drawn)
            advance()
        chosen = mean if settings.latent == "mean" else test.draw(model, settings)
        advance()
    return PushingRollouts(psnr, chosen, shown)


def baselines(data: PushingData, test: ClipValidation) -> dict[str, Tensor]:
    """Returns clips (N, T, 3, H, W) in [0, 1] that need no training."""
    last = to_unit(test.frames[:, test.num_given - 1 : test.num_given])
    average = mean_frame(data).to(test.device)
    return {
        "copy of the last frame": last.expand(test.frames.shape),
        "mean training frame": average.expand(test.frames.shape),
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


def _ssim(drawn: Tensor, test: ClipValidation) -> Tensor:
    """Returns the SSIM of each predicted frame, (N, T - num_given), of clips in [0, 1]."""
    return ssim_per_frame(quantise(drawn[:, test.num_given :]), test.frames[:, test.num_given :])
