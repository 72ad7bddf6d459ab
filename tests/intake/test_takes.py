"""Cuts: declared cuts are read and checked. Unknown cuts are found exactly where takes are joined."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.base.console import UserError
from src.intake.takes import find_cuts, parse_cuts, takes_between
from src.synthetic.dancers import dance_take


@given(st.lists(st.integers(0, 10**9 - 1), min_size=1))
def test_declared_cuts_are_read_back(cuts: list[int]) -> None:
    assert parse_cuts(",".join(map(str, cuts))) == tuple(cuts)


def test_no_cuts_can_be_declared() -> None:
    assert parse_cuts("none") == ()
    assert takes_between((), 7) == ((0, 7),)


@given(
    st.text(alphabet="0123456789, -.x", max_size=12).filter(lambda text: not re.fullmatch(r"\d{1,9}(,\d{1,9})*", text))
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"CUTS=.*; needed: frame numbers such as 630,1260"):
        parse_cuts(text)


@given(st.sets(st.integers(1, 98)).map(sorted))
def test_takes_follow_each_other_from_first_to_last_frame(cuts: list[int]) -> None:
    takes = takes_between(tuple(cuts), 99)
    assert [frame for start, stop in takes for frame in range(start, stop)] == list(range(99))
    assert [start for start, _ in takes] == [0, *cuts]


@pytest.mark.parametrize("cuts", [(0,), (9,), (10,), (3, 3), (5, 2)])
def test_cuts_out_of_order_or_range_are_refused(cuts: tuple[int, ...]) -> None:
    if cuts == (9,):  # valid: the last take has one frame
        assert takes_between(cuts, 10) == ((0, 9), (9, 10))
        return
    with pytest.raises(UserError, match="needed: ascending numbers from 1 to 9"):
        takes_between(cuts, 10)


def swing(length: int, *, period: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns frames and poses (T, 3, 32, 64) uint8: a bar that swings before a wall; the pose is a line on white."""
    rng = np.random.default_rng(seed)
    wall = rng.integers(60, 160, (1, 32, 64))
    columns = np.arange(64)[None, None, :]
    rows = np.arange(32)[None, :, None]
    centre = 32 + 25 * np.sin(2 * np.pi * (np.arange(length) / period + 0.45 * seed))[:, None, None] + 0 * rows
    bar = np.clip(4.5 - np.abs(columns - centre), 0, 1)
    line = np.clip(1.5 - np.abs(columns - centre), 0, 1)
    frames = wall * (1 - bar) + (30 + 10 * seed) * bar + rng.normal(0, 0.5, (length, 32, 64))
    poses = 255 * (1 - line)
    return tuple(np.repeat(x.clip(0, 255).round().astype(np.uint8)[:, None], 3, axis=1) for x in (frames, poses))


def joined(*takes: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    frames, poses = zip(*takes, strict=True)
    return np.concatenate(frames), np.concatenate(poses)


@pytest.mark.parametrize("period", [15, 40, 200, 3000])
def test_smooth_motion_has_no_cuts_at_any_speed(period: float) -> None:
    assert find_cuts(*swing(600, period=period, seed=1)) == ()


def test_stillness_and_short_takes_have_no_cuts() -> None:
    frames, poses = swing(2, period=40, seed=1)
    assert find_cuts(np.repeat(frames[:1], 50, axis=0), np.repeat(poses[:1], 50, axis=0)) == ()
    for length in range(1, 8):
        assert find_cuts(*swing(length, period=40, seed=1)) == ()


def test_joined_takes_are_cut_where_they_were_joined() -> None:
    takes = [swing(length, period=300, seed=seed) for seed, length in enumerate((90, 120, 70))]
    assert find_cuts(*joined(*takes)) == (90, 210)


def test_a_take_that_continues_another_is_found_by_its_repeated_first_pose() -> None:
    frames, poses = swing(300, period=100, seed=2)
    poses = poses.copy()
    assert find_cuts(frames, poses) == ()
    poses[120] = poses[121]
    poses[203] = poses[204]
    assert find_cuts(frames, poses) == (120, 203)


def test_missing_poses_are_no_cuts() -> None:
    frames, poses = swing(300, period=100, seed=3)
    poses = poses.copy()
    poses[100:102] = 255
    poses[150:180] = 255
    assert find_cuts(frames, poses) == ()


def test_synthetic_dancers_are_cut_between_takes_only() -> None:
    takes = []
    for number in range(2):
        pairs = zip(*dance_take(seed=5, number=number, length=120), strict=True)
        takes.append(tuple(np.array(list(images)).astype(np.uint8).transpose(0, 3, 1, 2) for images in pairs))
    assert [find_cuts(*take) for take in takes] == [(), ()]
    assert find_cuts(*joined(*takes)) == (120,)
