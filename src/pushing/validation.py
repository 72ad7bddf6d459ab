"""How good a model of robot pushing is on clips whose truth is known: the score of a free rollout, and the losses."""

import copy
from itertools import count
from typing import Self

import torch
from torch import Tensor

from src.base.randomness import keyed_seed
from src.config import Config, EvaluationConfig
from src.evaluation.rollout import predict
from src.evaluation.validation import mean_losses
from src.maths.metrics import channel_psnr_per_frame, quantise
from src.models.interface import VideoModel
from src.pushing.data import Clips, PushingBatch, PushingData, first_frames

NUM_ROLLOUT_CLIPS = 64  # clips that are rolled out, always the same
NUM_FUTURE = 10  # frames of a clip that are predicted, whatever window training has
CLIPS_AT_ONCE = 32  # in one rollout


class ClipValidation:
    """Known clips of pushing on the device, each from its first frame on, and what a model makes of them."""

    def __init__(
        self, config: Config, clips: Clips, *, device: torch.device, num_clips: int | None = NUM_ROLLOUT_CLIPS
    ) -> None:
        """Reads the given frames and the `NUM_FUTURE` after them of the first `num_clips` clips, or of all."""
        self.config, self.device, self.num_given = config, device, config.model.num_given
        chosen = range(min(num_clips or len(clips.frames), len(clips.frames)))
        length = min(self.num_given + NUM_FUTURE, clips.frames.shape[1])
        self.batch = first_frames(clips, length, chosen, device)

    def report(self, model: VideoModel, *, kl_weight: float, teacher_forcing_ratio: float) -> dict[str, float]:
        """Returns the score in dB and the losses, under the names that history.py explains."""
        weights = {"kl_weight": kl_weight, "teacher_forcing_ratio": teacher_forcing_ratio}
        score = self.psnr(self.draw(model, self.config.evaluation)).mean().item()
        return {"validation_score": score, **self.losses(model, weights)}

    def draw(self, model: VideoModel, settings: EvaluationConfig, *, number: int = 0) -> Tensor:
        """Returns rollouts of all clips from their given frames with latents from the prior, (N, T, 3, H, W).

        Each number has samples of its own.
        """
        frames, conditions = self.batch.frames, self.batch.conditions
        given = quantise(frames[:, : model.num_given])
        parts = zip(given.split(CLIPS_AT_ONCE), conditions.split(CLIPS_AT_ONCE), strict=True)
        seeds = (keyed_seed(self.config.seed, "rollout", number, part) for part in count())
        drawn = [predict(model, *part, settings, seed=seed) for part, seed in zip(parts, seeds, strict=False)]
        return torch.cat(drawn)

    def with_shuffled_conditions(self, num_shuffled: int) -> Self:
        """Returns the same clips, each with the first so many numbers of a condition from the clip before it."""
        own = self.batch.conditions
        others = own.roll(1, dims=0)
        shuffled = copy.copy(self)
        shuffled.batch = PushingBatch(
            self.batch.frames, torch.cat([others[..., :num_shuffled], own[..., num_shuffled:]], dim=-1)
        )
        return shuffled

    def psnr(self, drawn: Tensor) -> Tensor:
        """Returns the PSNR in dB of each predicted frame, mean over its channels, (N, T - num_given) float64."""
        return channel_psnr_per_frame(drawn[:, self.num_given :], self.batch.frames[:, self.num_given :])

    def losses(self, model: VideoModel, weights: dict[str, float]) -> dict[str, float]:
        """Returns the validation losses, mean over fixed clips with fixed draws."""

        def batch(clips: range) -> PushingBatch:
            return PushingBatch(
                self.batch.frames[clips.start : clips.stop], self.batch.conditions[clips.start : clips.stop]
            )

        return mean_losses(model, batch, self.config, weights, device=self.device, num_clips=len(self.batch.frames))


def validation_of(config: Config, data: PushingData, *, context: int, device: torch.device) -> ClipValidation:
    """Returns what training validates on: clips of the validation split."""
    return ClipValidation(config, data.validate, device=device)
