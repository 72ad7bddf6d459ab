"""Given frames and poses -> drawn frames. The only autoregressive loop outside training."""

import torch
from torch import Tensor

from src.config import Evaluation
from src.dataset import mirror_poses, to_unit, with_context
from src.distributed import keyed_generator
from src.models import VideoModel

PARALLEL_FRAMES = 256  # frames of all sequences drawn at once by a model that does not feed back its own


@torch.no_grad()
def rollout(model: VideoModel, given: Tensor, poses: Tensor, latents: Tensor) -> Tensor:
    """Returns whole sequences (B, T, 3, H, W) in [0, 1]; frame 0 is the given one.

    given: (B, 3, H, W); poses: (B, T, 3, H, W), both in [0, 1]; latents: (B, T, *latent_shape), that of frame 0 unused.
    """
    length, stride = poses.shape[1], max(1, PARALLEL_FRAMES // len(poses))
    assert given.shape == poses[:, 0].shape, f"one given frame per sequence: {given.shape} against {poses.shape}"
    assert latents.shape == (*poses.shape[:2], *model.latent_shape), f"latents {latents.shape} of {model.latent_shape}"
    state, padded, frames = model.start(given, poses[:, 0]), with_context(poses, model.context), [given[:, None]]
    for first in range(1, length, stride):
        times = slice(first, min(first + stride, length))
        conditions = model.encode_conditions(padded[:, first : times.stop + 2 * model.context])
        if model.autoregressive:
            for condition, latent in zip(conditions.unbind(1), latents[:, times].unbind(1), strict=True):
                frame, state = model.step(state, condition, latent)
                frames.append(frame[:, None])
        else:
            states = state[:, None].expand(-1, conditions.shape[1], *state.shape[1:])
            drawn, _ = model.step(states.flatten(0, 1), conditions.flatten(0, 1), latents[:, times].flatten(0, 1))
            frames.append(drawn.unflatten(0, conditions.shape[:2]))
    return torch.cat(frames, dim=1).float()


@torch.no_grad()
def predict(model: VideoModel, given: Tensor, poses: Tensor, settings: Evaluation, *, seed: int) -> Tensor:
    """Returns the prediction (B, T, 3, H, W) in [0, 1] that `settings` asks for; frame 0 is the given one.

    given: (B, 3, H, W) uint8; poses: (B, T, 3, H, W) uint8, on the model's device. The latents come from the prior: its
    mean, one sample, or the mean picture of K samples. With `mirror`, mirrored sequences are drawn too and averaged in.
    All sequences and mirror images go through the model as one batch.
    """
    assert given.dtype == poses.dtype == torch.uint8, "pixels come as uint8; dataset.to_unit scales them here"
    frames, conditions = to_unit(given), to_unit(poses)
    if settings.mirror:
        frames = torch.cat([frames, frames.flip(-1)])
        conditions = torch.cat([conditions, to_unit(mirror_poses(poses))])
    num_samples = settings.num_samples if settings.latent == "mean_of_samples" else 1
    total = torch.zeros_like(to_unit(poses))
    for sample in range(num_samples):  # one after the other: eight at once would need gigabytes
        latents = prior_latents(model, (len(given), poses.shape[1]), settings, seed=seed, sample=sample).to(
            given.device
        )
        drawn = rollout(model, frames, conditions, torch.cat([latents] * (2 if settings.mirror else 1)))
        total += (drawn[: len(given)] + drawn[len(given) :].flip(-1)) / 2 if settings.mirror else drawn
    return total / num_samples


def prior_latents(model: VideoModel, shape: tuple[int, int], settings: Evaluation, *, seed: int, sample: int) -> Tensor:
    """Returns latents of the prior N(0, I), (B, T, *latent_shape): zeros for its mean, else sample number `sample`."""
    if settings.latent == "mean":
        return torch.zeros(*shape, *model.latent_shape)
    return torch.randn(*shape, *model.latent_shape, generator=keyed_generator(seed, "prior", sample))
