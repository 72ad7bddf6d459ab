"""How good a model is on footage whose truth is known: the score of a free rollout, and the losses."""

import torch
from torch import Tensor

from src.config import Augmentation, Config
from src.dataset import ClipSampler, Footage, mirror_poses, to_unit, with_context
from src.distributed import Draws
from src.metrics import competition_score, psnr_per_frame, quantise
from src.models import VideoModel
from src.rollout import predict, rollout

POSTERIOR_FRAMES = 64  # true frames encoded at once
NUM_LOSS_CLIPS = 16  # clips of the validation footage on which the losses are computed, always the same
UNCHANGED = Augmentation(mirror=False)


class Validation:
    """A known take on the device, frames and poses (T, 3, H, W) uint8, and what a model makes of it."""

    def __init__(self, config: Config, footage: Footage, *, context: int, device: torch.device) -> None:
        self.config, self.device = config, device
        self.sampler = ClipSampler(
            footage, window=config.training.window, context=context, augmentation=UNCHANGED, seed=0, device=device
        )
        self.frames, self.poses = self.sampler.frames, self.sampler.poses

    def report(self, model: VideoModel, *, kl_weight: float, teacher_forcing_ratio: float) -> dict[str, float]:
        """Returns the scores in dB and the losses, under the names that history.py explains."""
        return {
            "validation_score": self.score(self.draw(model)),
            "validation_score_posterior": self.score(self.draw_from_posterior(model)),
            **self.losses(model, kl_weight=kl_weight, teacher_forcing_ratio=teacher_forcing_ratio),
        }

    def draw(self, model: VideoModel) -> Tensor:
        """Returns a free rollout from the first frame with latents from the prior, (T, 3, H, W) uint8."""
        settings, seed = self.config.evaluation, self.config.seed
        return quantise(predict(model, self.frames[:1], self.poses[None], settings, seed=seed)[0])

    def draw_from_posterior(self, model: VideoModel) -> Tensor:
        """Returns the same rollout, but with the posterior's means as latents, which have seen the true frames."""
        drawn = self._informed_rollout(model, self.frames, self.poses)
        if self.config.evaluation.mirror:
            mirrored = self._informed_rollout(model, self.frames.flip(-1), mirror_poses(self.poses))
            drawn = (drawn + mirrored.flip(-1)) / 2
        return quantise(drawn)

    @torch.no_grad()
    def _informed_rollout(self, model: VideoModel, true_frames: Tensor, pose_images: Tensor) -> Tensor:
        frames, poses = to_unit(true_frames)[None], to_unit(pose_images)[None]
        conditions = model.encode_conditions(with_context(poses, model.context))
        state = model.start(frames[:, 0], poses[:, 0])
        parts = zip(frames.split(POSTERIOR_FRAMES, dim=1), conditions.split(POSTERIOR_FRAMES, dim=1), strict=True)
        means = [model.posterior(some_frames, some_conditions, state)[0] for some_frames, some_conditions in parts]
        return rollout(model, frames[:, 0], poses, torch.cat(means, dim=1))[0]

    def score(self, drawn: Tensor) -> float:
        """Returns the competition's score of a rollout in dB."""
        return competition_score(psnr_per_frame(drawn, self.frames))

    @torch.no_grad()
    def losses(self, model: VideoModel, *, kl_weight: float, teacher_forcing_ratio: float) -> dict[str, float]:
        """Returns the validation losses, mean over fixed clips with fixed draws."""
        names, at_once = ("total", "reconstruction", "kl"), min(NUM_LOSS_CLIPS, self.config.training.batch_size)
        sums = dict.fromkeys(names, 0.0)
        for first in range(0, NUM_LOSS_CLIPS, at_once):
            clips = range(first, min(first + at_once, NUM_LOSS_CLIPS))
            batch, draws = self.sampler.batch(0, 0, clips), Draws(0, 0, clips, self.device)
            loss = model.forward(batch, draws, kl_weight=kl_weight, teacher_forcing_ratio=teacher_forcing_ratio)
            for name in names:
                sums[name] += len(clips) * getattr(loss, name).item()
        return {f"validation_{name}": value / NUM_LOSS_CLIPS for name, value in sums.items()}
