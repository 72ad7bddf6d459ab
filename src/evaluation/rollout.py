"""Given frames and poses -> drawn frames. The only autoregressive loop outside training."""

import torch
from torch import Tensor

from src.base.randomness import keyed_generator
from src.config import EvaluationConfig
from src.dance.augmentations import mirror_poses, shift_pictures
from src.dance.skeleton import WHITE
from src.dataset import to_unit, with_context
from src.models.interface import VideoModel

PARALLEL_FRAMES = 256  # frames of all sequences drawn at once by a model that does not feed back its own
OFFSETS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))  # down and right, in steps of settings.shift pixels


@torch.no_grad()
def rollout(model: VideoModel, given: Tensor, conditions: Tensor, noise: Tensor) -> Tensor:
    """Returns whole sequences (B, T, 3, H, W) in [0, 1]; the first G = num_given frames are the given ones.

    given: (B, G, 3, H, W) in [0, 1]; conditions: (B, T, ...), pose images in [0, 1] or numbers; noise: (B, T,
    *latent_shape), that of given frames unused.
    """
    num_given, length, stride = model.num_given, conditions.shape[1], max(1, PARALLEL_FRAMES // len(given))
    assert given.shape[:2] == (len(conditions), num_given), f"{num_given} given frames a sequence: {given.shape}"
    assert noise.shape == (*conditions.shape[:2], *model.latent_shape), f"noise {noise.shape} of {model.latent_shape}"
    state, padded = model.start(given, conditions[:, :num_given]), with_context(conditions, model.context)
    frames = [given]
    for first in range(num_given, length, stride):
        times = slice(first, min(first + stride, length))
        encoded = model.encode_conditions(padded[:, first : times.stop + 2 * model.context])
        if model.autoregressive:
            for condition, latent in zip(encoded.unbind(1), noise[:, times].unbind(1), strict=True):
                frame, state = model.step(state, condition, latent)
                frames.append(frame[:, None])
        else:
            states = state[:, None].expand(-1, encoded.shape[1], *state.shape[1:])
            drawn, _ = model.step(states.flatten(0, 1), encoded.flatten(0, 1), noise[:, times].flatten(0, 1))
            frames.append(drawn.unflatten(0, encoded.shape[:2]))
    return torch.cat(frames, dim=1).float()


@torch.no_grad()
def predict(model: VideoModel, given: Tensor, conditions: Tensor, settings: EvaluationConfig, *, seed: int) -> Tensor:
    """Returns the prediction (B, T, 3, H, W) in [0, 1] that `settings` asks for; it begins with the given frames.

    given: (B, num_given, 3, H, W) uint8; conditions: poses (B, T, 3, H, W) uint8 or numbers (B, T, N) float32, on the
    model's device. The latents come from the prior: its mean, one sample, or the mean picture of K samples. With
    `mirror`, mirrored sequences are drawn too and averaged in, and with `shift` sequences moved by so many pixels. All
    sequences and mirror images of one shift go through the model as one batch.
    """
    assert given.dtype == torch.uint8, "pixels come as uint8; dataset.to_unit scales them here"
    step = settings.shift
    if not step:
        return _mean_over_samples(model, given, conditions, settings, seed=seed)
    total, weight = torch.zeros((), device=given.device), torch.zeros((), device=given.device)
    for rows, columns in OFFSETS:
        down, right = step * rows, step * columns
        seen = shift_pictures(given, down, right, beyond=None)
        drawn = _mean_over_samples(
            model, seen, shift_pictures(conditions, down, right, beyond=WHITE), settings, seed=seed
        )
        total = total + shift_pictures(drawn, -down, -right, beyond=0)
        weight = weight + shift_pictures(torch.ones_like(drawn[:, :1]), -down, -right, beyond=0)
    return total / weight


def _mean_over_samples(
    model: VideoModel, given: Tensor, conditions: Tensor, settings: EvaluationConfig, *, seed: int
) -> Tensor:
    """Returns the mean picture over the samples and the mirror image that `settings` asks for."""
    assert settings.mirror is not None, "resolution.resolved has decided"
    if settings.mirror:
        given = torch.cat([given, given.flip(-1)])
        conditions = torch.cat([conditions, mirror_poses(conditions)])
    frames, known = to_unit(given), to_unit(conditions) if conditions.dtype == torch.uint8 else conditions
    num_copies, num_samples = 1 + settings.mirror, settings.num_samples if settings.latent == "mean_of_samples" else 1
    shape, mean = (len(given) // num_copies, conditions.shape[1]), torch.zeros((), device=given.device)
    for sample in range(num_samples):  # one after the other: eight at once would need gigabytes
        noise = prior_noise(model, shape, settings, seed=seed, sample=sample).to(given.device)
        drawn = rollout(model, frames, known, torch.cat([noise, noise.flip(-1)]) if settings.mirror else noise)
        if settings.mirror:
            original, mirrored = drawn.chunk(2)
            drawn = (original + mirrored.flip(-1)) / 2
        mean = mean + drawn / num_samples
    return mean


def prior_noise(
    model: VideoModel, shape: tuple[int, int], settings: EvaluationConfig, *, seed: int, sample: int
) -> Tensor:
    """Returns noise (B, T, *latent_shape): zeros for the prior's mean, else sample number `sample` of N(0, I)."""
    if settings.latent == "mean":
        return torch.zeros(*shape, *model.latent_shape)
    return torch.randn(*shape, *model.latent_shape, generator=keyed_generator(seed, "prior", sample))
