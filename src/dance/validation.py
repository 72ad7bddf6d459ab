"""Validates a dance model on takes with known true frames: the score of a free rollout, and the losses."""

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
from src.intake.facts import SCORED_FRAMES
from src.maths.metrics import competition_score, psnr_per_frame, quantise
from src.models.interface import PoseModel

POSTERIOR_FRAMES = 64  # true frames encoded at once
UNCHANGED = AugmentationConfig(mirror=False)


class TakeValidation:
    """A validation take on the device, frames and poses (T, 3, H, W) uint8. It draws rollouts and scores them."""

    def __init__(
        self,
        config: Config,
        footage: Footage,
        *,
        context: int,
        device: torch.device,
        scored: tuple[int, int] = SCORED_FRAMES,
        held_out: Sequence[Footage] = (),
    ) -> None:
        """Puts the take, and each take held out of training, on the device. scored: as in the manifest."""
        self.config = config
        self.device = device
        self.context = context
        self.scored = scored
        self.footage = footage
        self.frames, self.poses = footage.to(device)
        # Rollouts that are only compared with each other use no shifts, which makes them five times as fast.
        self.unshifted = config.evaluation.model_copy(update={"shift": 0})
        self.held_out = [
            TakeValidation(config, take, context=context, device=device, scored=scored) for take in held_out
        ]

    def check_window(self) -> None:
        """Raises UserError if the take is shorter than a training clip. The validation losses need such clips."""
        window = self.config.training.window
        longest = max(stop - start for start, stop in self.footage.takes)
        if longest < window:
            raise UserError(
                f"training.window = {window}, but the validation take has {longest} frames without a cut; "
                "needed: a shorter window, or a longer validation take"
            )

    @cached_property
    def loss_clips(self) -> ClipSampler:
        """The clips for the validation losses. Only training needs them, so they are made on first use."""
        return ClipSampler(
            self.footage,
            window=self.config.training.window,
            context=self.context,
            augmentation=UNCHANGED,
            seed=0,
            device=self.device,
        )

    def report(self, model: PoseModel, *, kl_weight: float, teacher_forcing_ratio: float) -> dict[str, float]:
        """Returns the scores in dB and the losses. training/log.py explains their names."""
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
        """Returns a free rollout (T, 3, H, W) uint8 from the first frame, with latents from the prior.

        settings, seed: by default those of the run. poses: (T, 3, H, W) uint8, by default those of the take.
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
        """Returns the rollout of `draw` before rounding, (T, 3, H, W) float32 in [0, 1]."""
        settings = settings or self.config.evaluation
        seed = self.config.seed if seed is None else seed
        followed = self.poses if poses is None else poses
        return predict_dance(model, self.frames[None, :1], followed[None], settings, seed=seed)[0]

    def draw_from_posterior(self, model: PoseModel) -> Tensor:
        """Returns a rollout (T, 3, H, W) uint8 with the posterior's means as latents, which have seen the truth."""
        drawn = self._posterior_rollout(model, self.frames, self.poses)
        if self.config.evaluation.mirror:
            mirrored = self._posterior_rollout(model, self.frames.flip(-1), mirror_poses(self.poses))
            drawn = (drawn + mirrored.flip(-1)) / 2
        return to_pixels(drawn)

    @torch.no_grad()
    def _posterior_rollout(self, model: PoseModel, true_frames: Tensor, pose_images: Tensor) -> Tensor:
        """Returns that rollout, (T, 3, H, W) in [0, 1], from uint8 frames and poses."""
        frames = to_unit(true_frames)[None]
        poses = to_unit(pose_images)[None]
        conditions = model.encode_conditions(with_context(poses, model.context))
        state = model.start(frames[:, :1], poses[:, :1])
        parts = zip(frames.split(POSTERIOR_FRAMES, dim=1), conditions.split(POSTERIOR_FRAMES, dim=1), strict=True)
        means = [model.posterior(some_frames, some_conditions, state)[0] for some_frames, some_conditions in parts]
        return rollout(model, frames[:, :1], poses, torch.cat(means, dim=1))[0]

    def score(self, drawn: Tensor) -> float:
        """Returns the competition's score in dB of a rollout (T, 3, H, W) uint8."""
        return competition_score(psnr_per_frame(drawn, self.frames), self.scored)

    def held_out_score(self, model: PoseModel) -> float:
        """Returns the mean score in dB of the takes held out of training."""
        return fmean(take.score(take.draw(model, settings=self.unshifted)) for take in self.held_out)

    def losses(self, model: PoseModel, weights: dict[str, float]) -> dict[str, float]:
        """Returns the validation losses: means over fixed clips with fixed random numbers."""
        clips_of = partial(self.loss_clips.batch, 0, 0)
        return mean_losses(model, clips_of, self.config, weights, device=self.device)


def to_pixels(drawn: Tensor) -> Tensor:
    """Returns the uint8 pixels of a rollout in [0, 1]. NaN becomes black."""
    return quantise(without_nan(drawn))


def validation_takes(config: Config, data: DanceData, *, context: int, device: torch.device) -> TakeValidation:
    """Returns the validation take together with the takes held out of training."""
    _, held_out = hold_out(data.train, config.training.held_out_takes)
    return TakeValidation(
        config, data.val, held_out=held_out, context=context, device=device, scored=data.manifest.scored_frames
    )


def validation_of(config: Config, data: DanceData, *, context: int, device: torch.device) -> TakeValidation:
    """Returns the validation of a training run. UserError if the validation take is too short for its losses."""
    validation = validation_takes(config, data, context=context, device=device)
    validation.check_window()
    return validation
