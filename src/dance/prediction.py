"""A first frame and pose images -> the predicted clip. It may be a mean over samples, mirror images and shifts."""

from collections.abc import Iterator

import torch
from torch import Tensor

from src.base.console import activity
from src.config import EvaluationConfig
from src.dance.augmentations import mirror_poses, shift_pictures
from src.dance.skeleton import WHITE
from src.dataset import to_unit
from src.evaluation.rollout import mean_picture, num_rollouts, predict, prior_noises, rollout
from src.models.interface import PoseModel

OFFSETS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))  # (down, right) in units of settings.shift pixels


@torch.no_grad()
@activity("drawing")
def predict_dance(model: PoseModel, given: Tensor, poses: Tensor, settings: EvaluationConfig, *, seed: int) -> Tensor:
    """Returns the prediction (B, T, 3, H, W) in [0, 1]. Its first frame is the given one.

    given: (B, 1, 3, H, W) uint8; poses: (B, T, 3, H, W) uint8; both on the model's device.
    settings.latent: the latent is the prior's mean or one sample, or the result is the mean picture of K samples.
    settings.mirror: the result is the mean with the prediction of the mirrored sequence.
    settings.shift: the result is the mean over the predictions of sequences shifted by that many pixels.
    """
    assert given.dtype == poses.dtype == torch.uint8, "pixels must be uint8; this function scales them"
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
    """Returns the mean picture over samples and mirror images. A sequence and its mirror image form one batch."""
    assert settings.mirror is not None, "resolution.resolved sets it to true or false"
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
