"""A first frame and pose images -> the predicted clip, averaged over samples, mirror images and shifts."""

from collections.abc import Iterator

import torch
from torch import Tensor

from src.config import EvaluationConfig
from src.dance.augmentations import WHITE, mirror_poses, shift_pictures
from src.dataset import to_unit
from src.evaluation.rollout import mean_picture, num_rollouts, predict, prior_noises, rollout
from src.models.interface import PoseModel

OFFSETS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))  # down and right, in steps of settings.shift pixels


@torch.no_grad()
def predict_dance(model: PoseModel, given: Tensor, poses: Tensor, settings: EvaluationConfig, *, seed: int) -> Tensor:
    """Returns the prediction (B, T, 3, H, W) in [0, 1] that `settings` asks for; it begins with the given frame.

    given: (B, 1, 3, H, W) uint8; poses: (B, T, 3, H, W) uint8; both on the model's device. The latents come from the
    prior: its mean, one sample, or the mean picture of K samples. With `mirror`, mirrored sequences are drawn too and
    averaged in, and with `shift` sequences moved by so many pixels.
    """
    assert given.dtype == poses.dtype == torch.uint8, "pixels come as uint8; dataset.to_unit scales them here"
    step = settings.shift
    if not step:
        return _predict_unshifted(model, given, poses, settings, seed=seed)
    total = torch.zeros((), device=given.device)
    weight = torch.zeros((), device=given.device)
    for rows, columns in OFFSETS:
        down, right = step * rows, step * columns
        moved_given = shift_pictures(given, down, right, beyond=None)
        moved_poses = shift_pictures(poses, down, right, beyond=WHITE)
        drawn = _predict_unshifted(model, moved_given, moved_poses, settings, seed=seed)
        total = total + shift_pictures(drawn, -down, -right, beyond=0)
        weight = weight + shift_pictures(torch.ones_like(drawn[:, :1]), -down, -right, beyond=0)
    return total / weight


def _predict_unshifted(
    model: PoseModel, given: Tensor, poses: Tensor, settings: EvaluationConfig, *, seed: int
) -> Tensor:
    """Returns the mean picture over samples and mirror images; a sequence and its mirror image are one batch."""
    if not settings.mirror:
        return predict(model, to_unit(given), to_unit(poses), settings, seed=seed)
    frames = to_unit(torch.cat([given, given.flip(-1)]))
    conditions = to_unit(torch.cat([poses, mirror_poses(poses)]))

    def drawn() -> Iterator[Tensor]:
        for noise in prior_noises(model, (len(given), poses.shape[1]), settings, seed=seed):
            both = torch.cat([noise, noise.flip(-1)]).to(given.device)
            original, mirrored = rollout(model, frames, conditions, both).chunk(2)
            yield (original + mirrored.flip(-1)) / 2

    return mean_picture(drawn(), num_rollouts(settings))
