"""Given frames and conditions -> predicted frames. This is the only rollout loop outside training."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from src.base.console import progress_bar
from src.base.cuda_graphs import Recording
from src.base.randomness import keyed_generator
from src.config import EvaluationConfig
from src.dataset import with_context
from src.models.interface import VideoModel

RECORDED_FRAMES = 64  # a rollout of at least this many frames is worth a recording of its step on a GPU
PARALLEL_FRAMES = 256  # frames, over all sequences, that a model without recurrence draws at once


@torch.no_grad()
def rollout(model: VideoModel, given: Tensor, conditions: Tensor, noise: Tensor, *, records: bool = True) -> Tensor:
    """Returns sequences (B, T, 3, H, W) in [0, 1]. The first G = num_given frames are the given frames.

    given: (B, G, 3, H, W) in [0, 1].
    conditions: (B, T, ...), pose images in [0, 1] or numbers.
    noise: (B, T, *latent_shape); the noise of the given frames is not used.
    records: on a GPU, the step of a long recurrent rollout is recorded as a CUDA graph. The frames are the same.
    """
    num_given = model.num_given
    length = conditions.shape[1]
    stride = max(1, PARALLEL_FRAMES // len(given))
    assert given.shape[:2] == (len(conditions), num_given), f"{num_given} given frames per sequence: {given.shape}"
    assert noise.shape == (*conditions.shape[:2], *model.latent_shape), f"noise {noise.shape} of {model.latent_shape}"
    state = model.start(given, conditions[:, :num_given])
    padded = with_context(conditions, model.context)
    frames = [given]
    step: Callable[..., tuple[Tensor, Any]] = model.step
    with progress_bar("frames", (length - num_given) * len(given)) as advance:
        for first in range(num_given, length, stride):
            times = slice(first, min(first + stride, length))
            encoded = model.encode_conditions(padded[:, first : times.stop + 2 * model.context])
            if model.recurrent:
                if records and first == num_given and given.is_cuda and length >= RECORDED_FRAMES:
                    step = Recording(step, state, encoded[:, 0], noise[:, first])
                for condition, own_noise in zip(encoded.unbind(1), noise[:, times].unbind(1), strict=True):
                    frame, state = step(state, condition, own_noise)
                    frames.append(frame[:, None])
            else:
                states = state[:, None].expand(-1, encoded.shape[1], *state.shape[1:])
                drawn, _ = model.step(states.flatten(0, 1), encoded.flatten(0, 1), noise[:, times].flatten(0, 1))
                frames.append(drawn.unflatten(0, encoded.shape[:2]))
            advance((times.stop - times.start) * len(given))
    return torch.cat(frames, dim=1).float()


@torch.no_grad()
def predict(model: VideoModel, given: Tensor, conditions: Tensor, settings: EvaluationConfig, *, seed: int) -> Tensor:
    """Returns the prediction (B, T, 3, H, W) in [0, 1], the mean of one or more rollouts as `settings` say.

    given: (B, num_given, 3, H, W) in [0, 1]; the prediction begins with these frames.
    conditions: (B, T, ...), pose images in [0, 1] or numbers. Both are on the model's device.
    """
    noises = prior_noises(model, (len(given), conditions.shape[1]), settings, seed=seed)
    drawn = (rollout(model, given, conditions, noise.to(given.device)) for noise in noises)
    return mean_picture(drawn, num_rollouts(settings))


def mean_picture(pictures: Iterable[Tensor], count: int) -> Tensor:
    """Returns the mean of `count` pictures or clips in [0, 1], float32.

    It adds them one by one, because all of them together would need gigabytes.
    """
    total: Tensor | float = 0.0
    for picture in pictures:
        total = total + picture / count
    assert isinstance(total, Tensor), "at least one picture"
    return total


def num_rollouts(settings: EvaluationConfig) -> int:
    """Returns the number of rollouts that are averaged: one per sample for "mean_of_samples", else one."""
    return settings.num_samples if settings.latent == "mean_of_samples" else 1


def prior_noises(
    model: VideoModel, shape: tuple[int, int], settings: EvaluationConfig, *, seed: int
) -> Iterator[Tensor]:
    """Yields the noise (B, T, *latent_shape) of each rollout that is averaged; `shape` is (B, T)."""
    for sample in range(num_rollouts(settings)):
        yield prior_noise(model, shape, settings, seed=seed, sample=sample)


def prior_noise(
    model: VideoModel, shape: tuple[int, int], settings: EvaluationConfig, *, seed: int, sample: int
) -> Tensor:
    """Returns noise (B, T, *latent_shape): zeros for the prior mean, else sample number `sample` of N(0, I)."""
    if settings.latent == "mean":
        return torch.zeros(*shape, *model.latent_shape)
    return torch.randn(*shape, *model.latent_shape, generator=keyed_generator(seed, "prior", sample))
