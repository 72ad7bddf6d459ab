"""The parts of validation that all systems share: losses of fixed clips, and rollouts of a diverged model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from src.base.randomness import Draws
from src.config import Config
from src.models.interface import VideoModel

NUM_LOSS_CLIPS = 16  # the losses are always computed on the same clips


@torch.no_grad()
def mean_losses(
    model: VideoModel,
    batch_of: Callable[[range], Any],
    config: Config,
    weights: dict[str, float],
    *,
    device: torch.device,
    num_clips: int = NUM_LOSS_CLIPS,
) -> dict[str, float]:
    """Returns the mean losses of `NUM_LOSS_CLIPS` clips, or of all if there are fewer, with fixed random numbers."""
    num_used = min(num_clips, NUM_LOSS_CLIPS)
    at_once = min(num_used, config.training.batch_size)
    sums = dict.fromkeys(("total", "reconstruction", "kl"), 0.0)
    for first in range(0, num_used, at_once):
        clips = range(first, min(first + at_once, num_used))
        loss = model.forward(batch_of(clips), Draws(0, 0, clips, device), **weights)
        for name in sums:
            sums[name] += len(clips) * getattr(loss, name).item()
    return {f"validation_{name}": value / num_used for name, value in sums.items()}


def without_nan(drawn: Tensor) -> Tensor:
    """Returns a rollout in [0, 1] with NaN as black, so that a diverged model gets a low score and not an error."""
    return drawn.nan_to_num(nan=0.0, posinf=1.0, neginf=0.0)
