"""What a configuration leaves open -> numbers, by the facts of the data set: the KL weight, and whether to mirror."""

from typing import Any

from src.base.console import UserError
from src.config import Config
from src.intake.facts import DataFacts
from src.intake.manifest import Manifest
from src.models.configs import models_of


def bound_weight(height: int, width: int) -> float:
    """Returns the KL weight 2 / (3 H W) that makes log MSE a bound for frames of H x W, to four significant digits."""
    return float(f"{2 / (3 * height * width):.4g}")


def resolved(config: Config, facts: DataFacts) -> Config:
    """Returns the configuration for a data set: what was left open follows from the facts. Raises UserError.

    That is `kl_weight.stop` (`bound_weight`), `augmentation.mirror` and `evaluation.mirror`; what is set stays, so a
    resolved configuration comes back as it is. An error is a setting that does not fit the facts.
    """
    _refuse_mirrors(config, facts)
    _refuse_shifts(config, facts)
    can_mirror, stop = facts.cannot_mirror is None, config.kl_weight.stop
    changes: dict[str, Any] = {}
    for name, section in (("augmentation", config.augmentation), ("evaluation", config.evaluation)):
        if section.mirror is None:
            changes[name] = section.model_copy(update={"mirror": can_mirror})
    if stop is None:
        changes["kl_weight"] = config.kl_weight.model_copy(update={"stop": bound_weight(*facts.frame_size)})
    return config.model_copy(update=changes)


def left_unmirrored(config: Config, facts: DataFacts) -> str | None:
    """Returns in words why clips are not mirrored though no setting forbids it; None where that needs no words."""
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
            raise UserError(f"{name} = {shift}: frames have {height} x {width} pixels; needed: less than {size}")


def resolved_for(config: Config, manifest: Manifest) -> Config:
    """Returns the configuration with what follows from its data set; UserError where that is of another system."""
    if manifest.system != config.model.system:
        fitting = " or ".join(models_of(manifest.system))
        raise UserError(
            f"data/{config.dataset} is of the system {manifest.system}, whose models are {fitting}, not "
            f"{config.model.name}; needed: another dataset or another model"
        )
    return resolved(config, manifest.facts)
