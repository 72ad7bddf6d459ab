"""The dial of `make train RUN=... MINUTES=...`: a training time -> the best recipe of the default model for that time.

A law predicts the score from the width, the number of steps and the number of members. It was fitted to a study of 76
trainings on the real sample; docs/results.md shows both. The dial measures the time of a step for each width on this
machine. It chooses the recipe with the highest expected score.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from src.base.bfloat16 import autocast
from src.base.console import UserError, say
from src.base.distributed import world_size
from src.base.randomness import Draws
from src.base.systems import SYSTEMS
from src.config import Config, flatten, parse_config, replaced
from src.dataset import PackedData
from src.intake.facts import DataFacts
from src.models.configs import MODELS
from src.models.interface import build_model
from src.training.saved_config import read_config

WIDTHS = (8, 16, 24, 32, 48, 64)  # the widths of the study
MEMBERS_GAIN = {1: 0.0, 2: 0.18, 3: 0.24}  # {number of members: gain of their mean in dB}
MOST_EPOCHS = 100  # the study did not try more
BATCH_SIZE = 32  # clips of one frame
TRAINING_SHARE = 0.9  # share of the time that is for training; the rest is for the start and the last validation
TIMED_STEPS = 3
LONG_RUN = 10_000  # runs with at least so many steps average the weights over more steps


@dataclass(frozen=True)
class Recipe:
    """The settings that the dial chooses."""

    width: int
    num_members: int
    num_epochs: int
    learning_rate: float
    ema_decay: float

    def __str__(self) -> str:
        members = "1 member" if self.num_members == 1 else f"{self.num_members} members"
        return (
            f"{members} of width {self.width}, {self.num_epochs} epochs, batches of {BATCH_SIZE}, "
            f"learning rate {self.learning_rate:g}"
        )

    def settings(self) -> dict[str, dict[str, object]]:
        """Returns the settings of a run, by section."""
        return {
            "model": {"width": self.width, "num_members": self.num_members, "patch": 1, "num_levels": 4},
            "training": {
                "num_epochs": self.num_epochs,
                "clips_per_epoch": 0,
                "batch_size": BATCH_SIZE,
                "learning_rate": self.learning_rate,
                "ema_decay": self.ema_decay,
                "validate_every": self.num_epochs,
            },
        }


def expected_score(width: int, num_steps: float, num_members: int) -> float:
    """Returns the score in dB that the law predicts, the mean of a held-out take and the validation take.

    Two terms are power laws: the loss by a limited width and the loss by a limited number of steps. The last term is
    the gain by averaging members.
    """
    return 32.69 - 8.27 * width**-0.93 - 1.09 * (num_steps / 1000) ** -0.78 + MEMBERS_GAIN[num_members]


def learning_rate(width: int) -> float:
    """Returns the study's best learning rate: 4e-3 at width 8, 2e-3 at 16, 1e-3 at 64."""
    return round(2e-3 * (16 / width) ** (1.0 if width < 16 else 0.5), 5)


def recipes(seconds: float, num_frames: int, width: int, step_seconds: float) -> Iterator[Recipe]:
    """Yields a recipe of this width for each number of members, if it fits into so many seconds of training.

    num_frames: frames of the training set. step_seconds: time of one step of one member.
    """
    steps_per_epoch = max(1, num_frames // BATCH_SIZE)
    for members in MEMBERS_GAIN:
        epochs = min(MOST_EPOCHS, int(seconds / (members * step_seconds * steps_per_epoch)))
        if epochs >= 1:
            steps = epochs * steps_per_epoch
            decay = 0.998 if steps < LONG_RUN else 0.9995
            yield Recipe(width, members, epochs, learning_rate(width), decay)


def choose(seconds: float, num_frames: int, step_seconds: Iterator[tuple[int, float]]) -> Recipe:
    """Returns the recipe with the highest expected score for so many seconds of training.

    step_seconds: pairs of a width and the seconds of a step, in order of width. Reading stops at the first width that
    is not better, because timing wide networks takes long. Raises UserError if not even one epoch of the smallest width
    fits.
    """
    best: Recipe | None = None
    best_score = -math.inf
    steps_per_epoch = max(1, num_frames // BATCH_SIZE)

    def score_of(recipe: Recipe) -> float:
        return expected_score(recipe.width, recipe.num_epochs * steps_per_epoch, recipe.num_members)

    for width, each in step_seconds:
        fitting = list(recipes(seconds, num_frames, width, each))
        if not fitting and best is None:
            minutes = each * steps_per_epoch / TRAINING_SHARE / 60
            raise UserError(
                f"not one epoch of {num_frames:,} training frames fits into the time; "
                f"needed: MINUTES={minutes + 0.05:.1f} or more"
            )
        found = max(fitting, key=score_of, default=None)
        if found is None or score_of(found) <= best_score:
            break
        best = found
        best_score = score_of(found)
    assert best is not None, "at least one width is timed"
    return best


def with_minutes(overrides: str, minutes: str) -> str:
    """Returns the text of SET with MINUTES added; UserError if SET has a setting that MINUTES chooses."""
    if not minutes:
        return overrides
    for section, settings in Recipe(8, 1, 1, 1.0, 0.0).settings().items():
        for name in settings:
            if f"{section}.{name}=" in overrides:
                raise UserError(f"SET has {section}.{name}, but MINUTES chooses it; leave one of them out")
    return f"{overrides} minutes={minutes}".strip()


def as_started(config: Config, folder: Path, overrides: str) -> Config:
    """Returns the configuration with the recipe that the run was started with; unchanged for all other runs.

    A run keeps its recipe, also on another machine. The words of SET still count, so a run can be extended. Raises
    UserError if the command asks for other minutes than the run was started with.
    """
    begun = read_config(folder) if (folder / "config.json").is_file() else None
    if begun is None or config.minutes == begun.minutes is None:
        return config
    if begun.minutes is not None and config.minutes in (None, begun.minutes):
        return replaced(with_recipe(config, recipe_of(begun), begun.minutes), overrides)
    found = f"with MINUTES={begun.minutes:g}" if begun.minutes is not None else "without MINUTES"
    raise UserError(
        f"{folder} was started {found}, but now the command has MINUTES={config.minutes:g}; resume it as it was "
        f"started, or delete {folder} and start again"
    )


def dialled(config: Config, folder: Path, data: PackedData, device: torch.device) -> Config:
    """Returns the configuration with the recipe for `config.minutes`; unchanged without minutes or for a begun run."""
    if config.minutes is None or (folder / "config.json").is_file():
        return config
    if world_size() > 1:
        raise UserError(f"MINUTES={config.minutes:g} works only with one process; leave GPUS out, or leave MINUTES out")
    num_clips, _ = SYSTEMS[config.model.system].part("cost").clips_of_an_epoch(config, data.manifest)
    recipe = recipe_for(config, config.minutes, num_clips, data.frame_size, device)
    say(f"{folder}: for {config.minutes:g} minutes on this machine: {recipe}")
    return with_recipe(config, recipe, config.minutes)


def recipe_of(config: Config) -> Recipe:
    """Returns the recipe in the configuration of a run that was started with MINUTES."""
    values = flatten(config)
    return Recipe(
        values["model.width"],
        values["model.num_members"],
        values["training.num_epochs"],
        values["training.learning_rate"],
        values["training.ema_decay"],
    )


def with_recipe_of(chosen: Config, config: Config) -> Config:
    """Returns a configuration with the recipe of another one; unchanged if that was not chosen by MINUTES."""
    return config if chosen.minutes is None else with_recipe(config, recipe_of(chosen), chosen.minutes)


def recipe_for(config: Config, minutes: float, num_frames: int, size: tuple[int, int], device: torch.device) -> Recipe:
    """Returns the recipe for so many minutes of training on this device, after timing steps on it.

    size: height and width of a frame. Raises UserError if the run's model has no dial.
    """
    if not config.model.has_dial:
        able = " or ".join(name for name, kind in MODELS.items() if kind.has_dial)
        raise UserError(
            f"MINUTES={minutes:g} chooses the recipe of {able}, but this run's model is {config.model.name}; "
            "leave MINUTES out, or name a run of that model"
        )
    if config.training.window > 1:
        raise UserError(
            f"MINUTES={minutes:g} is for clips of one frame, but training.window = {config.training.window}; leave "
            "MINUTES out, or set training.window = 1"
        )
    timed = ((width, time_step(at_width(config, width), size, device)) for width in WIDTHS)
    return choose(60 * minutes * TRAINING_SHARE, num_frames, timed)


def at_width(config: Config, width: int) -> Config:
    """Returns the configuration with one member of this width."""
    return with_recipe(config, Recipe(width, 1, 1, learning_rate(width), 0.998), None)


def with_recipe(config: Config, recipe: Recipe, minutes: float | None) -> Config:
    """Returns the configuration with the settings of a recipe, and with its minutes."""
    table = config.model_dump(mode="json") | {"minutes": minutes}
    for section, settings in recipe.settings().items():
        table[section] |= settings
    return parse_config(table, "MINUTES")


def time_step(config: Config, size: tuple[int, int], device: torch.device) -> float:
    """Returns the seconds of a training step on noise: the median of `TIMED_STEPS` steps after a warm-up step."""
    height, width = size
    model = build_model(config, height=height, width=width).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    facts = DataFacts({"height": height, "width": width})
    batch = SYSTEMS[config.model.system].part("cost").noise_batch(config, model, config.training.batch_size, facts)
    batch = type(batch)(**{name: value.to(device) for name, value in vars(batch).items()})
    draws = Draws(0, 0, range(config.training.batch_size), device)
    seconds = []
    for _ in range(1 + TIMED_STEPS):
        started = time.perf_counter()
        with autocast(device, config.training.precision):
            loss = model(batch, draws, kl_weight=1e-4, teacher_forcing_ratio=0.0)
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds[1:])[TIMED_STEPS // 2]
