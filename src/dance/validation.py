"""How good a model of dancers is on takes whose truth is known: the score of a free rollout, and the losses."""

from collections.abc import Sequence
from functools import cached_property, partial
from statistics import fmean

import torch
from torch import Tensor

from src.base.console import UserError
from src.config import AugmentationConfig, Config, EvaluationConfig
from src.dance.augmentations import mirror_poses
from src.dance.prediction import predict_dance
from src.dataset import ClipSampler, DanceData, Footage, hold_out, to_unit, with_context
from src.evaluation.rollout import rollout
from src.evaluation.validation import mean_losses, without_nan
from src.maths.metrics import competition_score, psnr_per_frame, quantise
from src.models.interface import PoseModel

POSTERIOR_FRAMES = 64  # true frames encoded at once
UNCHANGED = AugmentationConfig(mirror=False)


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
        self.config = config
        self.device = device
        self.context = context
        self.footage = footage
        self.frames, self.poses = footage.to(device)
        self.unshifted = config.evaluation.model_copy(update={"shift": 0})  # five times as fast, for comparisons
        self.held_out = [TakeValidation(config, take, context=context, device=device) for take in held_out]

    def check_window(self) -> None:
        """Raises UserError where the take is too short for a clip of training, on which losses are computed."""
        window = self.config.training.window
        longest = max(stop - start for start, stop in self.footage.takes)
        if longest < window:
            raise UserError(
                f"training.window = {window}, but the validation take has {longest} frames in one piece; "
                "needed: a shorter window, or a longer validation take"
            )

    @cached_property
    def loss_clips(self) -> ClipSampler:
        """The clips on which the losses of validation are computed; an evaluation needs none."""
        return ClipSampler(
            self.footage,
            window=self.config.training.window,
            context=self.context,
            augmentation=UNCHANGED,
            seed=0,
            device=self.device,
        )

    def report(self, model: PoseModel, *, kl_weight: float, teacher_forcing_ratio: float) -> dict[str, float]:
        """Returns the scores in dB and the losses, under the names of training/log.py."""
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
        settings: EvaluationConfig | None = None,
        seed: int | None = None,
        poses: Tensor | None = None,
    ) -> Tensor:
        """Returns a free rollout from the first frame with latents from the prior, (T, 3, H, W) uint8.

        Settings, seed and poses (T, 3, H, W) uint8 are those of the run and the take, unless others are given.
        """
        return to_pixels(self.draw_unrounded(model, settings=settings, seed=seed, poses=poses))

    def draw_unrounded(
        self,
        model: PoseModel,
        *,
        settings: EvaluationConfig | None = None,
        seed: int | None = None,
        poses: Tensor | None = None,
    ) -> Tensor:
        """Returns the same rollout before it is rounded, (T, 3, H, W) float32 in [0, 1]."""
        settings = settings or self.config.evaluation
        seed = self.config.seed if seed is None else seed
        followed = self.poses if poses is None else poses
        return predict_dance(model, self.frames[None, :1], followed[None], settings, seed=seed)[0]

    def draw_from_posterior(self, model: PoseModel) -> Tensor:
        """Returns the same rollout, but with the posterior's means as latents, which have seen the true frames."""
        drawn = self._posterior_rollout(model, self.frames, self.poses)
        if self.config.evaluation.mirror:
            mirrored = self._posterior_rollout(model, self.frames.flip(-1), mirror_poses(self.poses))
            drawn = (drawn + mirrored.flip(-1)) / 2
        return to_pixels(drawn)

    @torch.no_grad()
    def _posterior_rollout(self, model: PoseModel, true_frames: Tensor, pose_images: Tensor) -> Tensor:
        """Returns a rollout (T, 3, H, W) in [0, 1] whose latents are the posterior's means, from uint8 pictures."""
        frames = to_unit(true_frames)[None]
        poses = to_unit(pose_images)[None]
        conditions = model.encode_conditions(with_context(poses, model.context))
        state = model.start(frames[:, :1], poses[:, :1])
        parts = zip(frames.split(POSTERIOR_FRAMES, dim=1), conditions.split(POSTERIOR_FRAMES, dim=1), strict=True)
        means = [model.posterior(some_frames, some_conditions, state)[0] for some_frames, some_conditions in parts]
        return rollout(model, frames[:, :1], poses, torch.cat(means, dim=1))[0]

    def score(self, drawn: Tensor) -> float:
        """Returns the competition's score in dB of a rollout (T, 3, H, W) uint8."""
        return competition_score(psnr_per_frame(drawn, self.frames))

    def held_out_score(self, model: PoseModel) -> float:
        """Returns the mean score in dB of the takes held out of training."""
        return fmean(take.score(take.draw(model, settings=self.unshifted)) for take in self.held_out)

    def losses(self, model: PoseModel, weights: dict[str, float]) -> dict[str, float]:
        """Returns the validation losses, mean over fixed clips with fixed draws."""
        clips_of = partial(self.loss_clips.batch, 0, 0)
        return mean_losses(model, clips_of, self.config, weights, device=self.device)


def to_pixels(drawn: Tensor) -> Tensor:
    """Returns the uint8 pixels of a rollout in [0, 1]; NaN is black."""
    return quantise(without_nan(drawn))


def known_takes(config: Config, data: DanceData, *, context: int, device: torch.device) -> TakeValidation:
    """Returns the validation take, and with it the takes held out of training."""
    _, held_out = hold_out(data.train, config.training.held_out_takes)
    return TakeValidation(config, data.val, held_out=held_out, context=context, device=device)


def validation_of(config: Config, data: DanceData, *, context: int, device: torch.device) -> TakeValidation:
    """Returns what training validates on: the known takes, and clips of the validation take for the losses."""
    validation = known_takes(config, data, context=context, device=device)
    validation.check_window()
    return validation
