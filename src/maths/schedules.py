"""Schedules: functions that give a number for a step or an epoch. Steps and epochs count from 0."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from torch import Tensor

from src.base.console import UserError
from src.config import Config

KlKind = Literal["cyclical", "monotonic", "constant"]
KlPer = Literal["epoch", "run", "within_epoch"]
RateKind = Literal["cosine", "constant"]
CoinPer = Literal["batch", "step"]
Plan = Sequence[tuple[int, int]]  # (first step of the entry, step at which the run ends); the first is 0


def teacher_forcing_ratio(epoch: int, *, start: float, decay_from: int, decay_step: float) -> float:
    """The probability of feeding back a true frame: max(0, start - decay_step * max(0, epoch - decay_from))."""
    return max(0.0, start - decay_step * max(0, epoch - decay_from))


def late_teacher_forcing_ratio(epoch: int, *, begin: int, start: float, decay_from: int, decay_step: float) -> float:
    """The probability of feeding back a true frame: 0 before epoch `begin`, then `teacher_forcing_ratio`."""
    if epoch < begin:
        return 0.0
    return teacher_forcing_ratio(epoch, start=start, decay_from=decay_from, decay_step=decay_step)


def planned_teacher_forcing_ratio(epoch: int, *, num_epochs: int) -> float:
    """The ratio of the 300-epoch plan, scaled to `num_epochs`, in [0, 1].

    It is 1 in the first half, falls linearly, and is 0 in the last sixth. With N epochs it is
    clip((5N/6 - epoch) / (N/3 + 1), 0, 1). The +1 lets the line start at the last 1 and end at the first 0. So 300
    epochs have exactly 150 ones, 100 values between 0 and 1, and 50 zeros.
    """
    falling = (Fraction(5 * num_epochs, 6) - epoch) / (Fraction(num_epochs, 3) + 1)
    return float(min(Fraction(1), max(Fraction(0), falling)))


def teacher_forcing_coin(uniforms: Tensor, ratio: float, per: CoinPer) -> Tensor:
    """Whether each step gets the true frame, (T,) bool, from (T,) uniform numbers in [0, 1).

    per "step": uniforms[t] < ratio, decided for each step. per "batch": uniforms[0] < ratio, decided once for all.
    """
    tossed = uniforms < ratio
    return tossed if per == "step" else tossed[:1].expand_as(tossed)


def kl_progress(step: int, *, steps_per_epoch: int, num_epochs: int, per: KlPer) -> Fraction:
    """The progress of the KL schedule, in [0, 1).

    per "epoch": epoch / num_epochs, constant within an epoch.
    per "run": step / number of all steps.
    per "within_epoch": step within the epoch / steps per epoch, so the schedule repeats in each epoch.
    It is an exact fraction, because rounding (0.29 * 100 is 28.999999999999996) would shift the start of a cycle.
    """
    epoch, position = divmod(step, steps_per_epoch)
    if per == "epoch":
        return Fraction(epoch, num_epochs)
    if per == "within_epoch":
        return Fraction(position, steps_per_epoch)
    return Fraction(step, steps_per_epoch * num_epochs)


def kl_weight(
    progress: Fraction | float,
    *,
    kind: KlKind,
    start: float,
    stop: float,
    ratio: float,
    cycles: int,
    maximum: float,
) -> float:
    """The weight of the KL term at `progress` in [0, 1), at most `maximum`; Fu et al. 2019.

    cyclical: [0, 1) is divided into `cycles` equal periods, and tau in [0, 1) is the position within the period. The
    weight is start + (stop - start) * min(1, tau / ratio): it rises during the first `ratio` of the period and then
    stays at `stop`.
    monotonic: the same with one period. constant: always `stop`.
    Raises ValueError for a progress outside [0, 1).
    """
    if not 0 <= progress < 1:
        raise ValueError(f"progress {progress} is not in [0, 1)")
    if kind == "constant":
        return min(stop, maximum)
    tau = progress * (cycles if kind == "cyclical" else 1) % 1
    risen = 1.0 if tau >= ratio else float(tau / ratio)
    return min(start + (stop - start) * risen, maximum)


def schedule(config: Config, step: int, steps_per_epoch: int) -> dict[str, float]:
    """Returns the KL weight and the teacher-forcing ratio of a step, as keyword arguments of a model's loss."""
    num_epochs = config.training.num_epochs
    kl = config.kl_weight
    assert kl.stop is not None, "resolution.resolved has put a number here"
    weight = kl_weight(
        kl_progress(step, steps_per_epoch=steps_per_epoch, num_epochs=num_epochs, per=kl.per),
        kind=kl.kind,
        start=kl.start,
        stop=kl.stop,
        ratio=kl.ratio,
        cycles=kl.cycles,
        maximum=math.inf if kl.maximum is None else kl.maximum,
    )
    ratio = 0.0
    forcing = config.teacher_forcing
    epoch = step // steps_per_epoch
    if forcing is not None:
        start = forcing.start
        decay_from = forcing.decay_from
        decay_step = forcing.decay_step
        if forcing.kind == "decay":
            ratio = teacher_forcing_ratio(epoch, start=start, decay_from=decay_from, decay_step=decay_step)
        elif forcing.kind == "late":
            ratio = late_teacher_forcing_ratio(
                epoch, begin=forcing.begin, start=start, decay_from=decay_from, decay_step=decay_step
            )
        else:
            ratio = planned_teacher_forcing_ratio(epoch, num_epochs=num_epochs)
    return {"kl_weight": weight, "teacher_forcing_ratio": ratio}


def learning_rate(
    step: int, *, base: float, num_steps: int, warmup_steps: int, final_ratio: float, kind: RateKind
) -> float:
    """The learning rate at `step` of a run of `num_steps`, in [0, base].

    Warm-up: base * (step + 1) / warmup_steps.
    After it, cosine: from base at `warmup_steps` down to final_ratio * base at `num_steps`, then that rate.
    After it, constant: base.
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    return _annealed(step, base, final_ratio * base, (warmup_steps, num_steps), kind)


def extended_learning_rate(
    step: int, *, plan: Plan, base: float, warmup_steps: int, final_ratio: float, kind: RateKind
) -> float:
    """The learning rate at `step` of a run whose length has been changed, in (0, base]. It never jumps.

    Each change adds an entry (from, end) to `plan`. In it the rate falls from its value at `from` to
    final_ratio * base at `end`. A run that is extended halfway continues at its present rate, which then falls more
    slowly. A finished run continues at its final rate. The warm-up does not depend on the end, so a change during the
    warm-up only moves the end. With one entry the result is that of `learning_rate`.
    Raises UserError if an extension would train at rate 0.
    """
    index = max(i for i, (start, _) in enumerate(plan) if start <= step)
    start, end = plan[index]
    if index == 0 or start <= warmup_steps:
        return learning_rate(
            step, base=base, num_steps=end, warmup_steps=warmup_steps, final_ratio=final_ratio, kind=kind
        )
    present = extended_learning_rate(
        start, plan=plan[:index], base=base, warmup_steps=warmup_steps, final_ratio=final_ratio, kind=kind
    )
    if present <= 0:
        raise UserError(
            f"the run ended with learning rate 0 at step {start}, so it would learn nothing until step {end}; "
            "extend a run whose final_ratio is above 0, or start a new run of the wanted length"
        )
    return _annealed(step, present, final_ratio * base, (start, end), kind)


def change_plan(plan: Plan, *, step: int, num_steps: int) -> tuple[tuple[int, int], ...]:
    """The plan of a run that is at `step` and now ends at `num_steps`; unchanged if it already ends there."""
    kept = tuple((start, end) for start, end in plan)
    if kept and kept[-1][1] == num_steps:
        return kept
    return (*(entry for entry in kept if entry[0] < step), (step if kept else 0, num_steps))


def _annealed(step: int, first: float, last: float, span: tuple[int, int], kind: RateKind) -> float:
    """The rate between `first` and `last` at `step` of a cosine over `span`; always `first` for "constant"."""
    if kind == "constant":
        return first
    start, end = span
    position = min(1.0, (step - start) / (end - start)) if end > start else 0.0  # nothing is left to anneal
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * position))
