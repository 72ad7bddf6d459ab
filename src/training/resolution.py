"""Settings that a configuration leaves open -> values from the data set: the KL weight, and whether to mirror."""

from typing import Any

from src.base.console import UserError
from src.config import Config
from src.intake.facts import DataFacts
from src.intake.manifest import Manifest
from src.models.configs import models_of


def bound_weight(height: int, width: int) -> float:
    """Returns the KL weight 2 / (3 H W), with four significant digits. With it, the log MSE loss is a bound (ELBO)."""
    return float(f"{2 / (3 * height * width):.4g}")


def resolved(config: Config, facts: DataFacts) -> Config:
    """Returns the configuration for a data set. Settings that are open (None) get values from the facts of the data.

    These settings are `kl_weight.stop` (see `bound_weight`), `augmentation.mirror` and `evaluation.mirror`. Other
    values stay, so a resolved configuration does not change. Raises UserError for a setting that does not fit the data.
    """
    _refuse_mirrors(config, facts)
    _refuse_shifts(config, facts)
    can_mirror = facts.cannot_mirror is None
    stop = config.kl_weight.stop
    changes: dict[str, Any] = {}
    for name, section in (("augmentation", config.augmentation), ("evaluation", config.evaluation)):
        if section.mirror is None:
            changes[name] = section.model_copy(update={"mirror": can_mirror})
    if stop is None:
        changes["kl_weight"] = config.kl_weight.model_copy(update={"stop": bound_weight(*facts.frame_size)})
    return config.model_copy(update=changes)


def left_unmirrored(config: Config, facts: DataFacts) -> str | None:
    """Returns in words why clips are not mirrored although no setting forbids it; None if the user need not know."""
    is_open = config.augmentation.mirror is None or config.evaluation.mirror is None
    return facts.cannot_mirror if is_open and facts.is_notable else None


def _refuse_mirrors(config: Config, facts: DataFacts) -> None:
    for name, section in (("augmentation", config.augmentation), ("evaluation", config.evaluation)):
        if section.mirror and facts.cannot_mirror:
            raise UserError(f"{name}.mirror = true: {facts.cannot_mirror}; set it to false, or leave it out")


def _refuse_shifts(config: Config, facts: DataFacts) -> None:
    height, width = facts.frame_size
    shifts = {
        "augmentation.shift_x": (config.augmentation.shift_x, width),
        "augmentation.shift_y": (config.augmentation.shift_y, height),
        "evaluation.shift": (config.evaluation.shift, min(height, width)),
    }
    for name, (shift, size) in shifts.items():
        if shift >= size:
            raise UserError(f"{name} = {shift}, but frames have {height} x {width} pixels; needed: less than {size}")


def resolved_for(config: Config, manifest: Manifest) -> Config:
    """Returns the configuration resolved for its data set; UserError if the data set is of another system."""
    if manifest.system != config.model.system:
        fitting = " or ".join(models_of(manifest.system))
        raise UserError(
            f"data/{config.dataset} is of the system {manifest.system}; its models are {fitting}, not "
            f"{config.model.name}; needed: another dataset or another model"
        )
    return resolved(config, manifest.facts)
