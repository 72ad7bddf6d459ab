"""The dial of `make train RUN=... MINUTES=...`: a time -> the recipe of the default model that makes the most of it.

The rule comes from a study of 117 trainings on the real sample; docs/results.md shows it. In short: a wider network pays
only where it sees enough frames, many passes pay up to a hundred, and then a second member pays.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from src.base.console import UserError
from src.base.randomness import Draws
from src.base.systems import SYSTEMS
from src.config import Config, parse_config
from src.models.configs import ReferenceCVAEConfig
from src.models.interface import build_model

LEAST_FRAMES = {8: 0, 16: 30_000, 24: 100_000, 32: 200_000, 48: 400_000, 64: 800_000}  # seen in training, by width
MOST_EPOCHS = 100
MOST_MEMBERS = 4
BATCH_SIZE = 32
LEARNING_RATE = 2e-3
TRAINING_SHARE = 0.85  # of the time; the rest is for the last validation and the start
TIMED_STEPS = 3


@dataclass(frozen=True)
class Recipe:
    """What the dial chooses."""

    width: int
    num_members: int
    num_epochs: int

    def settings(self) -> dict[str, dict[str, object]]:
        """Returns the settings of a run, by section."""
        return {
            "model": {"width": self.width, "num_members": self.num_members},
            "training": {
                "num_epochs": self.num_epochs,
                "batch_size": BATCH_SIZE,
                "learning_rate": LEARNING_RATE,
                "validate_every": self.num_epochs,
            },
        }


def choose(seconds: float, num_frames: int, seconds_per_frame: Callable[[int], float]) -> Recipe:
    """Returns the recipe for so many seconds of training on a set of `num_frames` frames.

    seconds_per_frame: of one member of a width, for one frame seen in training. A width is taken where the time
    suffices for the frames that it needs, the widest first. Raises UserError where not even one epoch fits.
    """
    for width in sorted(LEAST_FRAMES, reverse=True):
        needed = min(LEAST_FRAMES[width], MOST_EPOCHS * num_frames)
        frames_in_time = seconds / seconds_per_frame(width)
        if LEAST_FRAMES[width] <= MOST_EPOCHS * num_frames and frames_in_time >= max(needed, num_frames):
            epochs = int(frames_in_time // num_frames)
            members = min(MOST_MEMBERS, max(1, epochs // MOST_EPOCHS))
            return Recipe(width, members, min(MOST_EPOCHS, epochs // members))
    least = num_frames * seconds_per_frame(min(LEAST_FRAMES)) / TRAINING_SHARE / 60
    raise UserError(
        f"not one pass over the {num_frames:,} training frames fits into the time; needed: MINUTES={least:.0f} or more"
    )


def recipe_for(config: Config, minutes: float, num_frames: int, size: tuple[int, int], device: torch.device) -> Recipe:
    """Returns the recipe for so many minutes of training on this device; it is timed here, for each width it asks.

    size: height and width of a frame. Raises UserError for a model that is not the default one.
    """
    if config.model.name != ReferenceCVAEConfig().name:
        raise UserError(
            f"MINUTES={minutes:g} chooses the recipe of {ReferenceCVAEConfig().name}, this run's model is "
            f"{config.model.name}; leave MINUTES out, or name a run of the default model"
        )

    def seconds_per_frame(width: int) -> float:
        return time_step(with_recipe(config, Recipe(width, 1, 1)), size, device) / BATCH_SIZE

    return choose(60 * minutes * TRAINING_SHARE, num_frames, seconds_per_frame)


def with_recipe(config: Config, recipe: Recipe) -> Config:
    """Returns the configuration with the settings of a recipe."""
    table = config.model_dump(mode="json")
    for section, settings in recipe.settings().items():
        table[section] |= settings
    return parse_config(table, "MINUTES")


def time_step(config: Config, size: tuple[int, int], device: torch.device) -> float:
    """Returns the seconds of a training step on noise, the median of `TIMED_STEPS` after one that warms up."""
    height, width = size
    model = build_model(config, height=height, width=width).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = SYSTEMS[config.model.system].part("cost").noise_batch(config, model, config.training.batch_size)
    batch = type(batch)(**{name: value.to(device) for name, value in vars(batch).items()})
    draws = Draws(0, 0, range(config.training.batch_size), device)
    seconds = []
    for _ in range(1 + TIMED_STEPS):
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.training.precision == "bfloat16"):
            loss = model(batch, draws, kl_weight=1e-4, teacher_forcing_ratio=0.0)
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds[1:])[TIMED_STEPS // 2]
