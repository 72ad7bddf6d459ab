"""Settings that a run would never read, refused when it starts.

config.py refuses what is wrong by itself. Here stands what depends on several settings, or on the length of the run.
Only a new run is checked: one that has begun goes on, whatever an earlier version accepted.
"""

from collections.abc import Iterator

from src.base.console import UserError, say
from src.base.distributed import rank
from src.base.settings import Section
from src.config import Config, KLWeightConfig, TrainingConfig


def refuse_idle_settings(config: Config, num_steps: int) -> None:
    """Raises UserError with the first setting that would have no effect in a run of so many steps."""
    for reason in _reasons(config):
        raise UserError(reason)
    warmup = config.training.warmup_steps
    if warmup <= num_steps:
        return
    line = f"training.warmup_steps = {warmup}, but the run has {num_steps} steps: it never reaches the learning rate"
    if warmup != TrainingConfig().warmup_steps:
        raise UserError(f"{line}; set fewer warmup_steps, or more epochs")
    if rank() == 0:
        say(f"note: {line}")


def _reasons(config: Config) -> Iterator[str]:
    yield from _idle_clips(config.training)
    yield from _idle_teacher_forcing(config)
    yield from _idle_kl_weight(config)


def _idle_clips(training: TrainingConfig) -> Iterator[str]:
    clips, at_once = training.clips_per_epoch, training.batch_size
    if clips % at_once:
        taken = max(1, clips // at_once) * at_once
        yield (
            f"training.clips_per_epoch = {clips}, but batches of {at_once} take {taken} clips an epoch; "
            f"needed: a multiple of training.batch_size, {taken} say"
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


def _idle_kl_weight(config: Config) -> Iterator[str]:
    weight = config.kl_weight
    if getattr(config.model, "prior_probability", 0) == 1:  # no frame is drawn from the posterior
        names = tuple(KLWeightConfig.model_fields)
        yield from _without_effect("kl_weight", weight, names, "model.prior_probability = 1")
    if weight.maximum is not None and weight.maximum >= max(weight.start, weight.stop):
        yield f"kl_weight.maximum = {weight.maximum:g} is never reached; remove it, or set it below kl_weight.stop"
    if weight.kind != "constant" and weight.start == weight.stop:
        yield (
            f'kl_weight.start = kl_weight.stop = {weight.stop:g} with kind = "{weight.kind}": the weight never '
            'changes; set another start, or kind = "constant"'
        )


def _without_effect(place: str, section: Section, names: tuple[str, ...], why: str) -> Iterator[str]:
    """Yields a line where one of these settings has another value than its default."""
    fields = type(section).model_fields
    changed = [f"{place}.{name}" for name in names if getattr(section, name) != fields[name].default]
    if changed:
        yield f"{', '.join(changed)} would have no effect with {why}; remove it"
