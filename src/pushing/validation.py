"""Validation of a robot pushing model on known clips: the score of a free rollout, and the losses."""

import copy
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from src.base.console import UserError
from src.base.randomness import keyed_seed
from src.config import Config, EvaluationConfig
from src.dataset import to_unit
from src.evaluation.rollout import predict
from src.evaluation.validation import NUM_LOSS_CLIPS, mean_losses, without_nan
from src.maths.metrics import channel_psnr_per_frame
from src.models.interface import VideoModel
from src.pushing.data import Clips, PushingBatch, PushingData, first_frames

NUM_ROLLOUT_CLIPS = 64  # the same clips are rolled out in every validation
NUM_FUTURE = 10  # predicted frames of a clip; it does not depend on training.window
CLIPS_AT_ONCE = 32  # clips in one rollout


class ClipValidation:
    """Known clips of robot pushing from their first frame on, and the scores of a model on them.

    frames: (N, T, 3, H, W) uint8 on the device, the given frames and `NUM_FUTURE` frames after them.
    conditions: (N, T, 7).
    """

    def __init__(
        self, config: Config, clips: Clips, *, device: torch.device, num_clips: int | None = NUM_ROLLOUT_CLIPS
    ) -> None:
        """Reads the first `num_clips` clips; None: all. Raises UserError if they have too few frames."""
        self.config = config
        self.device = device
        self.clips = clips
        self.num_given = config.model.num_given
        length = clips.frames.shape[1]
        if length < self.num_given + NUM_FUTURE:
            raise UserError(
                f"model.num_given = {self.num_given}, and {NUM_FUTURE} frames after them are scored, but clips have "
                f"{length} frames; needed: a model.num_given of {length - NUM_FUTURE} or less"
            )
        num_read = min(num_clips or len(clips.frames), len(clips.frames))
        self.frames, self.conditions = first_frames(clips, self.num_given + NUM_FUTURE, num_read, device)

    @cached_property
    def loss_clips(self) -> PushingBatch:
        """The clips on which the losses are computed, each as long as a training clip."""
        num_clips = min(len(self.clips.frames), NUM_LOSS_CLIPS)
        frames, conditions = first_frames(self.clips, self.config.training.window, num_clips, self.device)
        return PushingBatch(to_unit(frames), conditions)

    def report(self, model: VideoModel, *, kl_weight: float, teacher_forcing_ratio: float) -> dict[str, float]:
        """Returns the score in dB and the losses, with the names of training/log.py."""
        weights = {"kl_weight": kl_weight, "teacher_forcing_ratio": teacher_forcing_ratio}
        score = self.psnr(self.draw(model, self.config.evaluation)).mean().item()
        return {"validation_score": score, **self.losses(model, weights)}

    def draw(self, model: VideoModel, settings: EvaluationConfig, *, number: int = 0) -> Tensor:
        """Returns rollouts of all clips with latents from the prior, (N, T, 3, H, W) in [0, 1].

        number: each number gives other samples.
        """
        given = self.frames[:, : model.num_given].split(CLIPS_AT_ONCE)
        conditions = self.conditions.split(CLIPS_AT_ONCE)
        drawn = []
        for part, (some_given, some_conditions) in enumerate(zip(given, conditions, strict=True)):
            seed = keyed_seed(self.config.seed, "rollout", number, part)
            drawn.append(predict(model, to_unit(some_given), some_conditions, settings, seed=seed))
        return without_nan(torch.cat(drawn))

    def with_shuffled_conditions(self, num_shuffled: int) -> Self:
        """Returns the same clips with the first `num_shuffled` condition values taken from the previous clip."""
        own = self.conditions
        others = own.roll(1, dims=0)
        shuffled = copy.copy(self)
        shuffled.conditions = torch.cat([others[..., :num_shuffled], own[..., num_shuffled:]], dim=-1)
        return shuffled

    def psnr(self, drawn: Tensor) -> Tensor:
        """Returns the PSNR in dB of each predicted frame, mean over channels, (N, T - num_given) float64."""
        return channel_psnr_per_frame(drawn[:, self.num_given :], to_unit(self.frames[:, self.num_given :]))

    def losses(self, model: VideoModel, weights: dict[str, float]) -> dict[str, float]:
        """Returns the mean validation losses of fixed clips with fixed random numbers."""
        known = self.loss_clips

        def batch(clips: range) -> PushingBatch:
            return PushingBatch(known.frames[clips.start : clips.stop], known.conditions[clips.start : clips.stop])

        return mean_losses(model, batch, self.config, weights, device=self.device, num_clips=len(known.frames))


def validation_of(config: Config, data: PushingData, *, context: int, device: torch.device) -> ClipValidation:
    """Returns the validation of a training run, on clips of the validation split."""
    return ClipValidation(config, data.validate, device=device)
