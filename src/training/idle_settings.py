"""Refuses settings without effect when a run starts.

config.py refuses settings that are wrong on their own. The checks here depend on several settings, or on the length of
the run. Only new runs are checked. A run that an earlier version started can be resumed with any settings.
"""

from collections.abc import Iterator

from src.base.console import UserError, say
from src.base.distributed import rank
from src.base.settings import Section
from src.config import Config, KLWeightConfig, TrainingConfig


def refuse_idle_settings(config: Config, num_steps: int, *, stop: float | None = None) -> None:
    """Raises UserError for the first setting that would have no effect in a run of so many steps.

    config: as the user wrote it. stop: the value of `kl_weight.stop` if the user left it open.
    """
    for reason in _reasons(config, stop):
        raise UserError(reason)
    warmup = config.training.warmup_steps
    if warmup <= num_steps:
        return
    line = f"training.warmup_steps = {warmup}, but the run has {num_steps} steps: it never reaches its learning rate"
    if warmup != TrainingConfig().warmup_steps:
        raise UserError(f"{line}; set fewer warmup_steps, or more epochs")
    if rank() == 0:
        say(f"note: {line}")


def _reasons(config: Config, stop: float | None) -> Iterator[str]:
    yield from _idle_clips(config.training)
    yield from _idle_teacher_forcing(config)
    yield from _idle_kl_weight(config, stop)


def _idle_clips(training: TrainingConfig) -> Iterator[str]:
    clips = training.clips_per_epoch
    batch_size = training.batch_size
    if clips % batch_size:
        used = max(1, clips // batch_size) * batch_size
        yield (
            f"training.clips_per_epoch = {clips}, but batches of {batch_size} use {used} clips per epoch; "
            f"needed: a multiple of training.batch_size, for example {used}"
        )


def _idle_teacher_forcing(config: Config) -> Iterator[str]:
    forcing = config.teacher_forcing
    if forcing is None or forcing.kind == "plan":
        return
    if forcing.start == 0:
        yield from _without_effect("model.teacher_forcing", forcing, ("decay_from", "decay_step", "coin"), "start = 0")
    if forcing.decay_step == 0:
        yield from _without_effect("model.teacher_forcing", forcing, ("decay_from",), "decay_step = 0")
    if forcing.kind == "decay" and forcing.start == 1 and forcing.decay_step == 0:
        yield from _without_effect("model.teacher_forcing", forcing, ("coin",), "start = 1 and decay_step = 0")


def _idle_kl_weight(config: Config, stop: float | None) -> Iterator[str]:
    weight = config.kl_weight
    stop = stop if weight.stop is None else weight.stop
    if getattr(config.model, "prior_probability", 0) == 1:  # no frame is drawn from the posterior
        names = tuple(KLWeightConfig.model_fields)
        yield from _without_effect("kl_weight", weight, names, "model.prior_probability = 1")
    if stop is None:
        return
    if weight.maximum is not None and weight.maximum >= max(weight.start, stop):
        yield f"kl_weight.maximum = {weight.maximum:g} is never reached; remove it, or set it below kl_weight.stop"
    if weight.kind != "constant" and weight.start == stop:
        yield (
            f'kl_weight.start = kl_weight.stop = {stop:g} with kind = "{weight.kind}": the weight never '
            'changes; set another start, or kind = "constant"'
        )


def _without_effect(place: str, section: Section, names: tuple[str, ...], why: str) -> Iterator[str]:
    """Yields a line if one of these settings does not have its default value."""
    fields = type(section).model_fields
    changed = [f"{place}.{name}" for name in names if getattr(section, name) != fields[name].default]
    if changed:
        yield f"{', '.join(changed)} would have no effect with {why}; remove it"
