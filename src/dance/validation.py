"""How good a model of dancers is on takes whose truth is known: the score of a free rollout, and the losses."""

from collections.abc import Sequence
from functools import partial
from statistics import fmean

import torch
from torch import Tensor

from src.config import AugmentationConfig, Config, EvaluationConfig
from src.dance.augmentations import mirror_poses
from src.dataset import ClipSampler, DanceData, Footage, hold_out, to_unit, with_context
from src.evaluation.rollout import predict, rollout
from src.evaluation.validation import mean_losses
from src.intake.facts import SCORED_FRAMES
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
        scored: tuple[int, int] = SCORED_FRAMES,
        held_out: Sequence[Footage] = (),
    ) -> None:
        """Puts the take on the device, and each of the takes held out of training; scored: as in the manifest."""
        self.config, self.device, self.scored = config, device, scored
        self.sampler = ClipSampler(
            footage, window=config.training.window, context=context, augmentation=UNCHANGED, seed=0, device=device
        )
        self.frames, self.poses = footage.to(device)
        self.unshifted = config.evaluation.model_copy(update={"shift": 0})  # five times as fast, for comparisons
        self.held_out = [
            TakeValidation(config, take, context=context, device=device, scored=scored) for take in held_out
        ]

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
        settings: EvaluationConfig | None = None,
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
        return competition_score(psnr_per_frame(drawn, self.frames), self.scored)

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


def validation_of(config: Config, data: DanceData, *, context: int, device: torch.device) -> TakeValidation:
    """Returns what training validates on: the validation take, and the takes held out of training."""
    _, held_out = hold_out(data.train, config.training.held_out_takes)
    scored = data.manifest.scored_frames
    return TakeValidation(config, data.val, held_out=held_out, context=context, device=device, scored=scored)
