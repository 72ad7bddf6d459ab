"""Schedules: a step or an epoch in, a number out. Steps and epochs count from 0; nothing here keeps state."""

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
Plan = Sequence[tuple[int, int]]  # (step from which on, step at which the run then ends), first entry from step 0


def teacher_forcing_ratio(epoch: int, *, start: float, decay_from: int, decay_step: float) -> float:
    """The share of true frames fed back, in [0, start]: max(0, start - decay_step * max(0, epoch - decay_from))."""
    return max(0.0, start - decay_step * max(0, epoch - decay_from))


def late_teacher_forcing_ratio(epoch: int, *, begin: int, start: float, decay_from: int, decay_step: float) -> float:
    """The share of true frames fed back, in [0, start]: 0 before epoch `begin`, then `teacher_forcing_ratio`."""
    if epoch < begin:
        return 0.0
    return teacher_forcing_ratio(epoch, start=start, decay_from=decay_from, decay_step=decay_step)


def planned_teacher_forcing_ratio(epoch: int, *, num_epochs: int) -> float:
    """The 300-epoch plan for any length, in [0, 1]: 1 in the first half, falling linearly, 0 in the last sixth.

    With N epochs: clip((5N/6 - epoch) / (N/3 + 1), 0, 1). The +1 makes the line run from the last epoch of ones to the
    first of zeros, so that 300 epochs hold exactly 150 ones, 100 values between, and 50 zeros.
    """
    falling = (Fraction(5 * num_epochs, 6) - epoch) / (Fraction(num_epochs, 3) + 1)
    return float(min(Fraction(1), max(Fraction(0), falling)))


def teacher_forcing_coin(uniforms: Tensor, ratio: float, per: CoinPer) -> Tensor:
    """Which steps are fed the true frame, (T,) bool, from (T,) uniform numbers in [0, 1).

    per "step": uniforms[t] < ratio, a coin for each step; per "batch": uniforms[0] < ratio, one coin for all steps.
    """
    tossed = uniforms < ratio
    return tossed if per == "step" else tossed[:1].expand_as(tossed)


def kl_progress(step: int, *, steps_per_epoch: int, num_epochs: int, per: KlPer) -> Fraction:
    """How far the KL schedule has come, in [0, 1), as an exact fraction.

    per "epoch": epoch / num_epochs, constant within an epoch; per "run": step / all steps; per "within_epoch": the
    position within the epoch, so that `cycles` rises fall inside each epoch. A fraction, because 0.29 * 100 is
    28.999999999999996 and a period must start where it starts.
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
    """The weight of the KL term at `progress` in [0, 1), never above `maximum`; Fu et al. 2019.

    cyclical: [0, 1) is cut into `cycles` equal periods; with tau in [0, 1) the position within the present one,
    start + (stop - start) * min(1, tau / ratio): it ramps over the first `ratio` of the period, then holds.
    monotonic: the same with one period. constant: stop. Raises ValueError for a progress outside [0, 1).
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
    num_epochs, kl = config.training.num_epochs, config.kl_weight
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
    ratio, forcing, epoch = 0.0, config.teacher_forcing, step // steps_per_epoch
    if forcing is not None:
        start, decay_from, decay_step = forcing.start, forcing.decay_from, forcing.decay_step
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
    """The rate at `step` of a run of `num_steps`, in (0, base].

    Warm-up: base * (step + 1) / warmup_steps. Then, cosine: from base at `warmup_steps` down to final_ratio * base at
    `num_steps`, and that rate afterwards; constant: base.
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    return _annealed(step, base, final_ratio * base, (warmup_steps, num_steps), kind)


def extended_learning_rate(
    step: int, *, plan: Plan, base: float, warmup_steps: int, final_ratio: float, kind: RateKind
) -> float:
    """The rate at `step` of a run whose length was changed on the way, in (0, base]; it never jumps.

    Each change opens a new entry (from, end) of `plan`, and the rate anneals from the value it has at `from` to
    final_ratio * base at `end`. So a run stopped halfway and lengthened goes on from its present rate, more slowly, and
    a run that had finished goes on at its final rate. The warm-up knows no end, so a change during it only moves the
    end. With one entry this is `learning_rate`. Raises UserError where an extension would train at rate 0.
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
            f"the run had ended at learning rate 0 at step {start} and would learn nothing until step {end}: "
            "extend a run whose final_ratio is above 0, or start a new one with the length you want"
        )
    return _annealed(step, present, final_ratio * base, (start, end), kind)


def change_plan(plan: Plan, *, step: int, num_steps: int) -> tuple[tuple[int, int], ...]:
    """The plan of a run that stands at `step` and shall now end at `num_steps`; unchanged where it already does."""
    kept = tuple((start, end) for start, end in plan)
    if kept and kept[-1][1] == num_steps:
        return kept
    return (*(entry for entry in kept if entry[0] < step), (step if kept else 0, num_steps))


def _annealed(step: int, first: float, last: float, span: tuple[int, int], kind: RateKind) -> float:
    if kind == "constant":
        return first
    start, end = span
    position = min(1.0, (step - start) / (end - start)) if end > start else 0.0  # no room to anneal in
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * position))
