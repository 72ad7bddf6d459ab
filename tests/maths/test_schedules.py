import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.base.console import UserError
from src.maths.schedules import (
    change_plan,
    extended_learning_rate,
    kl_progress,
    kl_weight,
    late_teacher_forcing_ratio,
    learning_rate,
    planned_teacher_forcing_ratio,
    teacher_forcing_coin,
    teacher_forcing_ratio,
)

CYCLICAL = {"kind": "cyclical", "start": 0.0, "stop": 1.0, "ratio": 0.5, "cycles": 4, "maximum": math.inf}
RATE = {"base": 0.1, "warmup_steps": 10, "final_ratio": 0.01, "kind": "cosine"}
share = st.floats(0, 1)


# Teacher forcing


@pytest.mark.parametrize(("epoch", "expected"), [(0, 1), (9, 1), (10, 1), (11, 0.9), (15, 0.5), (20, 0), (29, 0)])
def test_teacher_forcing_ratio_by_hand(epoch: int, expected: float):
    assert teacher_forcing_ratio(epoch, start=1, decay_from=10, decay_step=0.1) == pytest.approx(expected)


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0), (14, 0), (15, 0.8), (20, 0.8), (21, 0.6), (24, 0), (99, 0)])
def test_late_teacher_forcing_ratio_by_hand(epoch: int, expected: float):
    ratio = late_teacher_forcing_ratio(epoch, begin=15, start=0.8, decay_from=20, decay_step=0.2)
    assert ratio == pytest.approx(expected)


def test_teacher_forcing_ratio_equals_the_loop_it_describes():
    start = 0.9
    decay_from = 3
    decay_step = 0.07
    ratio = start
    for epoch in range(40):
        assert teacher_forcing_ratio(epoch, start=start, decay_from=decay_from, decay_step=decay_step) == pytest.approx(
            ratio
        )
        if epoch >= decay_from:
            ratio = max(0.0, ratio - decay_step)


@given(start=share, decay_from=st.integers(0, 50), decay_step=share)
def test_teacher_forcing_ratio_is_bounded_and_never_rises(start: float, decay_from: int, decay_step: float):
    ratios = [teacher_forcing_ratio(e, start=start, decay_from=decay_from, decay_step=decay_step) for e in range(60)]
    assert all(0 <= later <= earlier <= start for earlier, later in pairwise(ratios))


def test_the_300_epoch_plan_has_150_ones_and_50_zeros():
    plan = [planned_teacher_forcing_ratio(epoch, num_epochs=300) for epoch in range(300)]
    assert plan.count(1.0) == 150
    assert plan.count(0.0) == 50
    assert plan[150] == pytest.approx(100 / 101)
    assert plan[249] == pytest.approx(1 / 101)


def test_the_plan_scaled_to_six_epochs_by_hand():
    plan = [planned_teacher_forcing_ratio(epoch, num_epochs=6) for epoch in range(6)]
    assert plan == pytest.approx([1, 1, 1, 2 / 3, 1 / 3, 0])


@given(num_epochs=st.integers(1, 400))
def test_the_plan_of_any_length_falls_from_one_in_even_steps(num_epochs: int):
    plan = [planned_teacher_forcing_ratio(epoch, num_epochs=num_epochs) for epoch in range(num_epochs)]
    ones = num_epochs // 2
    zeros = num_epochs // 6
    assert plan[:ones] == [1.0] * ones
    assert plan[num_epochs - zeros :] == [0.0] * zeros
    between = [value for value in plan if 0 < value < 1]
    falls = [a - b for a, b in pairwise(between)]
    assert falls == pytest.approx([1 / (num_epochs / 3 + 1)] * len(falls))


def test_a_coin_per_step_and_a_coin_per_batch():
    uniforms = torch.tensor([0.3, 0.0, 0.99, 0.5])
    assert teacher_forcing_coin(uniforms, 0.5, per="step").tolist() == [True, True, False, False]
    assert teacher_forcing_coin(uniforms, 0.5, per="batch").tolist() == [True] * 4
    assert teacher_forcing_coin(uniforms, 0.3, per="batch").tolist() == [False] * 4


@pytest.mark.parametrize("per", ["step", "batch"])
def test_coins_with_a_ratio_of_zero_or_one(per: str):
    uniforms = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert teacher_forcing_coin(uniforms, 1.0, per=per).all()
    assert not teacher_forcing_coin(uniforms, 0.0, per=per).any()
    if per == "step":
        assert teacher_forcing_coin(uniforms, 0.3, per=per).float().mean().item() == pytest.approx(0.3, abs=0.05)


# KL weight


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(0, 0), (0.0625, 0.5), (0.125, 1), (0.2, 1), (0.25, 0), (0.3125, 0.5), (0.5, 0), (0.99, 1)],
)
def test_cyclical_kl_weight_by_hand(progress: float, expected: float):
    assert kl_weight(progress, **CYCLICAL) == pytest.approx(expected)


def test_kinds_of_kl_weight_by_hand():
    ramp = CYCLICAL | {"start": 0.2, "stop": 0.6, "ratio": 0.8}
    assert kl_weight(0.4, **ramp | {"kind": "monotonic"}) == pytest.approx(0.4)
    assert kl_weight(0.4, **ramp | {"kind": "monotonic", "maximum": 0.3}) == 0.3
    assert kl_weight(0.9, **ramp | {"kind": "monotonic"}) == 0.6
    assert kl_weight(0.0, **ramp | {"kind": "constant"}) == 0.6
    assert kl_weight(0.0, **ramp | {"kind": "constant", "maximum": 0.5}) == 0.5
    assert kl_weight(0.0, **ramp | {"ratio": 0.0}) == 0.6


def published_cycle(num_steps: int, start: float, stop: float, cycles: int, ratio: float) -> list[float]:
    """Returns the weights of Fu et al. 2019 by a loop: constant increments during `ratio` of a period, then `stop`."""
    weights = []
    period = num_steps / cycles
    increment = (stop - start) / (period * ratio)
    for cycle in range(cycles):
        value = start
        for _ in range(round(cycle * period), round((cycle + 1) * period)):
            weights.append(min(value, stop))
            value += increment
    return weights


@pytest.mark.parametrize(("num_epochs", "cycles", "ratio"), [(30, 10, 0.5), (100, 4, 0.8), (60, 1, 1.0), (35, 7, 0.4)])
def test_kl_weight_per_epoch_equals_the_loop(num_epochs: int, cycles: int, ratio: float):
    settings = CYCLICAL | {"start": 0.1, "stop": 0.9, "cycles": cycles, "ratio": ratio}
    steps = [(epoch * 5 + position) for epoch in range(num_epochs) for position in range(5)]
    weights = [
        kl_weight(kl_progress(s, steps_per_epoch=5, num_epochs=num_epochs, per="epoch"), **settings) for s in steps
    ]
    assert weights[::5] == weights[4::5]
    assert weights[::5] == pytest.approx(published_cycle(num_epochs, 0.1, 0.9, cycles, ratio))


def test_three_rises_inside_each_epoch():
    settings = CYCLICAL | {"cycles": 3}
    progress = [kl_progress(step, steps_per_epoch=30, num_epochs=2, per="within_epoch") for step in range(60)]
    weights = [kl_weight(p, **settings) for p in progress]
    rise = [0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1]
    assert weights == pytest.approx(rise * 6)


def test_progress_over_the_run_is_exact():
    assert kl_progress(29, steps_per_epoch=10, num_epochs=10, per="run") == Fraction(29, 100)
    periods = [
        kl_weight(kl_progress(step, steps_per_epoch=10, num_epochs=10, per="run"), **CYCLICAL | {"cycles": 100})
        for step in range(100)
    ]
    assert periods == [0.0] * 100  # in floating point, 0.29 * 100 would lie in the previous period


@given(
    progress=st.floats(0, 1, exclude_max=True),
    settings=st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["cyclical", "monotonic", "constant"]),
            "start": share,
            "stop": share,
            "ratio": share,
            "cycles": st.integers(1, 20),
            "maximum": share,
        }
    ),
)
def test_kl_weight_stays_between_its_ends_and_below_its_maximum(progress: float, settings: dict):
    low, high = sorted([settings["start"], settings["stop"]])
    weight = kl_weight(progress, **settings)
    assert min(low, settings["maximum"]) - 1e-12 <= weight <= min(high + 1e-12, settings["maximum"])


@given(step=st.integers(0, 99), cycle=st.integers(1, 9))
def test_kl_weight_is_periodic(step: int, cycle: int):
    settings = CYCLICAL | {"cycles": 10}
    first, later = (kl_weight(Fraction(s, 1000), **settings) for s in (step, step + 100 * cycle))
    assert first == later


@pytest.mark.parametrize("progress", [-0.01, 1, 1.5, math.nan])
def test_progress_outside_the_run_is_refused(progress: float):
    with pytest.raises(ValueError, match="progress"):
        kl_weight(progress, **CYCLICAL)


# Learning rate


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.01), (4, 0.05), (9, 0.1), (10, 0.1), (60, 0.0505), (110, 0.001), (200, 0.001)]
)
def test_learning_rate_by_hand(step: int, expected: float):
    assert learning_rate(step, num_steps=110, **RATE) == pytest.approx(expected)


def test_cosine_agrees_with_torch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.001)
    for step in range(51):
        assert learning_rate(step, num_steps=50, **RATE | {"warmup_steps": 0}) == pytest.approx(
            scheduler.get_last_lr()[0]
        )
        optimizer.step()
        scheduler.step()


def test_constant_learning_rate_warms_up_and_stays():
    rates = [learning_rate(step, num_steps=40, **RATE | {"kind": "constant"}) for step in range(60)]
    assert rates[:10] == pytest.approx([0.01 * (step + 1) for step in range(10)])
    assert rates[10:] == [0.1] * 50


@given(
    num_steps=st.integers(1, 300), warmup=st.integers(0, 50), final=share, kind=st.sampled_from(["cosine", "constant"])
)
def test_learning_rate_rises_then_falls_within_its_bounds(num_steps: int, warmup: int, final: float, kind: str):
    settings = {"base": 2.0, "num_steps": num_steps, "warmup_steps": warmup, "final_ratio": final, "kind": kind}
    rates = [learning_rate(step, **settings) for step in range(num_steps + 2)]
    assert all(0 <= rate <= 2 for rate in rates)
    peak = min(warmup, len(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(rates[peak:]))


def test_a_run_of_unchanged_length_follows_the_plain_schedule():
    for step in range(120):
        assert extended_learning_rate(step, plan=((0, 110),), **RATE) == learning_rate(step, num_steps=110, **RATE)


def test_an_extended_finished_run_continues_at_its_final_rate():
    plan = change_plan(((0, 110),), step=110, num_steps=200)
    assert plan == ((0, 110), (110, 200))
    assert [extended_learning_rate(step, plan=plan, **RATE) for step in (110, 150, 199)] == pytest.approx([0.001] * 3)


def test_a_run_extended_halfway_anneals_from_its_present_rate():
    plan = change_plan(((0, 110),), step=60, num_steps=160)
    assert extended_learning_rate(60, plan=plan, **RATE) == pytest.approx(0.0505)
    assert extended_learning_rate(110, plan=plan, **RATE) == pytest.approx((0.0505 + 0.001) / 2)
    assert extended_learning_rate(160, plan=plan, **RATE) == pytest.approx(0.001)
    assert extended_learning_rate(59, plan=plan, **RATE) == learning_rate(59, num_steps=110, **RATE)


def test_a_change_during_the_warm_up_only_moves_the_end():
    plan = change_plan(((0, 110),), step=4, num_steps=210)
    for step in range(210):
        assert extended_learning_rate(step, plan=plan, **RATE) == learning_rate(step, num_steps=210, **RATE)


@given(
    changes=st.lists(st.tuples(st.integers(1, 120), st.integers(1, 150)), max_size=4),
    kind=st.sampled_from(["cosine", "constant"]),
    first=st.integers(1, 150),
)
def test_no_change_of_length_makes_the_rate_jump(changes: list[tuple[int, int]], kind: str, first: int):
    settings = RATE | {"kind": kind}
    plan = change_plan((), step=0, num_steps=first)
    step = 0
    for advance, more in changes:
        step += advance
        before = extended_learning_rate(step, plan=plan, **settings)
        plan = change_plan(plan, step=step, num_steps=step + more)
        assert extended_learning_rate(step, plan=plan, **settings) == pytest.approx(before)
    rates = [extended_learning_rate(s, plan=plan, **settings) for s in range(step + 160)]
    assert all(0 < rate <= 0.1 for rate in rates)
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(rates[10:]))


def test_a_plan_keeps_the_past_and_drops_a_change_that_never_ran():
    assert change_plan((), step=0, num_steps=100) == ((0, 100),)
    assert change_plan(((0, 100),), step=50, num_steps=100) == ((0, 100),)
    assert change_plan(((0, 100), (50, 200)), step=50, num_steps=300) == ((0, 100), (50, 300))
    assert change_plan([[0, 100]], step=100, num_steps=150) == ((0, 100), (100, 150))  # as a checkpoint returns it


def test_extending_a_run_that_ended_at_rate_zero_is_refused():
    with pytest.raises(UserError, match="final_ratio"):
        extended_learning_rate(120, plan=((0, 110), (110, 200)), **RATE | {"final_ratio": 0.0})
