"""How good a model is on footage whose truth is known: the score of a free rollout, and the losses."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from statistics import fmean
from typing import Self

import torch
from torch import Tensor

from src.config import SVG, Augmentation, Config, ConvSVG, Evaluation
from src.dataset import (
    Batch,
    Clips,
    ClipSampler,
    DanceData,
    Footage,
    PushingBatch,
    PushingData,
    first_frames,
    hold_out,
    to_unit,
    with_context,
)
from src.distributed import Draws, keyed_seed
from src.metrics import channel_psnr_per_frame, competition_score, psnr_per_frame, quantise
from src.models import PoseModel, VideoModel
from src.rollout import predict, rollout
from src.symmetries import mirror_poses

POSTERIOR_FRAMES = 64  # true frames encoded at once
NUM_LOSS_CLIPS = 16  # clips of the validation footage on which the losses are computed, always the same
NUM_ROLLOUT_CLIPS = 64  # clips of pushing that are rolled out, always the same
NUM_FUTURE = 10  # frames of a clip of pushing that are predicted, whatever window training has
CLIPS_AT_ONCE = 32  # of pushing, in one rollout
UNCHANGED = Augmentation(mirror=False)


class TakeValidation:
    """A known take on the device, frames and poses (T, 3, H, W) uint8, and what a pose model makes of it."""

    def __init__(
        self,
        config: Config,
        footage: Footage,
        *,
        context: int,
        device: torch.device,
        held_out: Sequence[Footage] = (),
    ) -> None:
        """Puts the take on the device, and each of the takes held out of training."""
        self.config, self.device = config, device
        self.sampler = ClipSampler(
            footage, window=config.training.window, context=context, augmentation=UNCHANGED, seed=0, device=device
        )
        self.frames, self.poses = footage.to(device)
        self.unshifted = config.evaluation.model_copy(update={"shift": 0})  # five times as fast, for comparisons
        self.held_out = [TakeValidation(config, take, context=context, device=device) for take in held_out]

    def report(self, model: PoseModel, *, kl_weight: float, teacher_forcing_ratio: float) -> dict[str, float]:
        """Returns the scores in dB and the losses, under the names that history.py explains."""
        return {
            "validation_score": self.score(self.draw(model, settings=self.unshifted)),
            "validation_score_posterior": self.score(self.draw_from_posterior(model)),
            **({"held_out_score": self.held_out_score(model)} if self.held_out else {}),
            **self.losses(model, {"kl_weight": kl_weight, "teacher_forcing_ratio": teacher_forcing_ratio}),
        }

    def draw(
        self,
        model: PoseModel,
        *,
        settings: Evaluation | None = None,
        seed: int | None = None,
        poses: Tensor | None = None,
    ) -> Tensor:
        """Returns a free rollout from the first frame with latents from the prior, (T, 3, H, W) uint8.

        Settings, seed and poses (T, 3, H, W) uint8 are those of the run and the take, unless others are given.
        """
        settings, seed = settings or self.config.evaluation, self.config.seed if seed is None else seed
        followed = self.poses if poses is None else poses
        drawn = predict(model, self.frames[None, :1], followed[None], settings, seed=seed)[0]
        return _to_pixels(drawn)

    def draw_from_posterior(self, model: PoseModel) -> Tensor:
        """Returns the same rollout, but with the posterior's means as latents, which have seen the true frames."""
        drawn = self._informed_rollout(model, self.frames, self.poses)
        if self.config.evaluation.mirror:
            mirrored = self._informed_rollout(model, self.frames.flip(-1), mirror_poses(self.poses))
            drawn = (drawn + mirrored.flip(-1)) / 2
        return _to_pixels(drawn)

    @torch.no_grad()
    def _informed_rollout(self, model: PoseModel, true_frames: Tensor, pose_images: Tensor) -> Tensor:
        frames, poses = to_unit(true_frames)[None], to_unit(pose_images)[None]
        conditions = model.encode_conditions(with_context(poses, model.context))
        state = model.start(frames[:, :1], poses[:, :1])
        parts = zip(frames.split(POSTERIOR_FRAMES, dim=1), conditions.split(POSTERIOR_FRAMES, dim=1), strict=True)
        means = [model.posterior(some_frames, some_conditions, state)[0] for some_frames, some_conditions in parts]
        return rollout(model, frames[:, :1], poses, torch.cat(means, dim=1))[0]

    def score(self, drawn: Tensor) -> float:
        """Returns the competition's score of a rollout in dB."""
        return competition_score(psnr_per_frame(drawn, self.frames))

    def held_out_score(self, model: PoseModel) -> float:
        """Returns the mean score in dB of the takes held out of training."""
        return fmean(take.score(take.draw(model, settings=self.unshifted)) for take in self.held_out)

    def losses(self, model: PoseModel, weights: dict[str, float]) -> dict[str, float]:
        """Returns the validation losses, mean over fixed clips with fixed draws."""
        clips_of = partial(self.sampler.batch, 0, 0)
        return mean_losses(model, clips_of, self.config, weights, device=self.device)


def _to_pixels(drawn: Tensor) -> Tensor:
    """Returns the uint8 pixels of a rollout; one that is not a number is black: a bad model scores badly, not never."""
    return quantise(drawn.nan_to_num(nan=0.0, posinf=1.0, neginf=0.0))


class ClipValidation:
    """Known clips of pushing on the device, each from its first frame on, and what a model makes of them."""

    def __init__(
        self, config: Config, clips: Clips, *, device: torch.device, num_clips: int | None = NUM_ROLLOUT_CLIPS
    ) -> None:
        """Reads the given frames and the `NUM_FUTURE` after them of the first `num_clips` clips, or of all."""
        assert isinstance(config.model, SVG | ConvSVG), "clips of pushing are drawn by the SVG family"
        self.config, self.device, self.num_given = config, device, config.model.num_given
        chosen = range(min(num_clips or len(clips.frames), len(clips.frames)))
        self.batch = first_frames(clips, self.num_given + NUM_FUTURE, chosen, device)

    def report(self, model: VideoModel, *, kl_weight: float, teacher_forcing_ratio: float) -> dict[str, float]:
        """Returns the score in dB and the losses, under the names that history.py explains."""
        weights = {"kl_weight": kl_weight, "teacher_forcing_ratio": teacher_forcing_ratio}
        score = self.psnr(self.draw(model, self.config.evaluation)).mean().item()
        return {"validation_score": score, **self.losses(model, weights)}

    def draw(self, model: VideoModel, settings: Evaluation, *, number: int = 0) -> Tensor:
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


Validation = TakeValidation | ClipValidation


def validation_of(config: Config, data: DanceData | PushingData, *, context: int, device: torch.device) -> Validation:
    """Returns what training validates on."""
    if isinstance(data, PushingData):
        return ClipValidation(config, data.validate, device=device)
    _, held_out = hold_out(data.train, config.training.held_out_takes)
    return TakeValidation(config, data.val, held_out=held_out, context=context, device=device)


@torch.no_grad()
def mean_losses(
    model: VideoModel,
    batch_of: Callable[[range], Batch | PushingBatch],
    config: Config,
    weights: dict[str, float],
    *,
    device: torch.device,
    num_clips: int = NUM_LOSS_CLIPS,
) -> dict[str, float]:
    """Returns the losses of `NUM_LOSS_CLIPS` clips, or of as many as there are, with fixed draws."""
    num_used = min(num_clips, NUM_LOSS_CLIPS)
    at_once, sums = min(num_used, config.training.batch_size), dict.fromkeys(("total", "reconstruction", "kl"), 0.0)
    for first in range(0, num_used, at_once):
        clips = range(first, min(first + at_once, num_used))
        loss = model.forward(batch_of(clips), Draws(0, 0, clips, device), **weights)
        for name in sums:
            sums[name] += len(clips) * getattr(loss, name).item()
    return {f"validation_{name}": value / num_used for name, value in sums.items()}
