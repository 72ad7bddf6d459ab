"""The losses of known clips, which every system validates beside its score."""

from collections.abc import Callable
from typing import Any

import torch

from src.base.randomness import Draws
from src.config import Config
from src.models.interface import VideoModel

NUM_LOSS_CLIPS = 16  # clips on which the losses are computed, always the same


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
    """Returns the losses of `NUM_LOSS_CLIPS` clips, or of as many as there are, with fixed draws."""
    num_used = min(num_clips, NUM_LOSS_CLIPS)
    at_once, sums = min(num_used, config.training.batch_size), dict.fromkeys(("total", "reconstruction", "kl"), 0.0)
    for first in range(0, num_used, at_once):
        clips = range(first, min(first + at_once, num_used))
        loss = model.forward(batch_of(clips), Draws(0, 0, clips, device), **weights)
        for name in sums:
            sums[name] += len(clips) * getattr(loss, name).item()
    return {f"validation_{name}": value / num_used for name, value in sums.items()}
