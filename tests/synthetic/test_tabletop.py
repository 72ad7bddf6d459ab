"""Synthetic pushing: same seed, same bytes; the data set's layout; the mechanics; frames that show the positions."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.base.console import UserError
from src.synthetic import tabletop
from src.synthetic.tabletop import (
    ACTION_NOISE,
    EDGE,
    GRAVITY,
    REACH,
    Episode,
    Tabletop,
    make_episode,
    pushing_clip,
    write_pushing,
)
from src.synthetic.tabletop_drawing import LINK, SHOULDER, Thing, arm, draw_frames, project

SMALL = {"num_train": 5, "num_validate": 1, "num_test": 2}
FILES = {*(f"{t}.png" for t in range(30)), "actions.csv", "endeffector_positions.csv"}


def thing(corners: object = ((0.0, 0.0),), *, radius: float = 0.03, mass: float = 0.1, grip: float = 0.1) -> Thing:
    """Returns a black object, 4 cm tall; a disc, unless it has several corners."""
    return Thing(np.array(corners), radius, 0.04, np.zeros(3), np.zeros(3), mass, grip)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drive(table: Tabletop, start: tuple[float, ...], end: tuple[float, ...], frames: int = 10) -> np.ndarray:
    """Moves the gripper straight from start to end; returns the places of the objects after that."""
    for position in np.linspace(start, end, frames + 1)[1:]:
        table.move(position, table.angle)
    return table.places()


def picture(things: list[Thing], places: object, position: object) -> np.ndarray:
    """Returns one frame (64, 64, 3), always of the same table."""
    shaped = np.array(places, float).reshape(1, -1, 3)
    return draw_frames(things, shaped, np.array([position]), np.zeros(1), np.random.default_rng(0))[0].astype(float)


def centre(mask: np.ndarray) -> np.ndarray:
    """Returns x and y of the centre of a mask, in pixels from the picture's upper left corner."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()]) + 0.5


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return [make_episode(np.random.default_rng(number)) for number in range(40)]


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pushing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tabletop, "FOLDER_SIZE", 3)
        write_pushing(folder, seed=7, **SMALL)
    return folder


def test_layout_is_the_data_sets(data_set: Path) -> None:
    clips = {f"train/traj_0_to_2/{n}" for n in range(3)} | {f"train/traj_3_to_4/{n}" for n in (3, 4)}
    clips |= {"validate/traj_100000_to_100000/100000"}
    clips |= {f"test/traj_200000_to_200001/{n}" for n in (200000, 200001)}
    assert set(contents(data_set)) == {f"{clip}/{file}" for clip in clips for file in FILES}


def test_files_hold_the_clip_of_their_number(data_set: Path) -> None:
    frames, actions, positions = pushing_clip(seed=7, number=3)
    folder = data_set / "train/traj_3_to_4/3"
    for t in (0, 29):
        with Image.open(folder / f"{t}.png") as image:
            assert (image.mode, image.size) == ("RGB", (64, 64))
            assert np.array_equal(np.asarray(image), frames[t])
    for name, rows in (("actions", actions), ("endeffector_positions", positions)):
        lines = (folder / f"{name}.csv").read_text().splitlines()
        numbers = np.array([[float(number) for number in line.split(",")] for line in lines])
        assert np.array_equal(numbers.astype(np.float32), rows)


def test_two_processes_write_the_same_bytes_as_one(
    data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabletop, "FOLDER_SIZE", 3)
    monkeypatch.setattr(tabletop, "MIN_JOBS", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    write_pushing(tmp_path / "pushing", seed=7, **SMALL)
    assert contents(tmp_path / "pushing") == contents(data_set)


def test_seed_and_number_each_change_the_clip() -> None:
    first, again, *others = (pushing_clip(seed=s, number=n) for s, n in ((1, 4), (1, 4), (2, 4), (1, 5)))
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    for other in others:
        assert not any(np.array_equal(*pair) for pair in zip(first, other, strict=True))


@given(seed=st.integers(0, 2**32), number=st.integers(0, 10**6))
@settings(max_examples=5, deadline=None)
def test_any_clip_has_its_shapes_and_ranges(seed: int, number: int) -> None:
    frames, actions, positions = pushing_clip(seed=seed, number=number)
    assert (frames.shape, frames.dtype) == ((30, 64, 64, 3), np.uint8)
    assert (actions.shape, actions.dtype) == ((30, 4), np.float32)
    assert (positions.shape, positions.dtype) == ((30, 3), np.float32)
    assert np.all(positions >= REACH[0].astype(np.float32))
    assert np.all(positions <= REACH[1].astype(np.float32))
    assert np.abs(actions[:, :3]).max() < 0.1
    assert 10 < frames.mean() < 245


def test_an_action_moves_the_arm_from_its_frame_to_the_next(episodes: list[Episode]) -> None:
    before, after, action = (
        np.concatenate(rows)
        for rows in zip(*((e.positions[:-1], e.positions[1:], e.actions[:-1]) for e in episodes), strict=True)
    )
    noise_of_all = after - before - action[:, :3]
    free = (after > REACH[0]) & (after < REACH[1])
    assert 0.5 < free[:, :2].mean() < 1
    for axis in range(3):
        noise = noise_of_all[free[:, axis], axis]
        assert np.abs(noise).max() < 6 * ACTION_NOISE[axis]
        if axis < 2:  # the table stops a lowered gripper, so downward noise is cut off
            assert noise.std() == pytest.approx(ACTION_NOISE[axis], rel=0.15)
    turns = np.concatenate([np.diff(e.angles) - e.actions[:-1, 3] for e in episodes])
    assert np.abs(turns).max() < 1e-9


def test_actions_persist_and_change_direction(episodes: list[Episode]) -> None:
    actions = np.stack([e.actions[:, :2] for e in episodes])
    same = (actions[:, 1:] * actions[:, :-1]).sum() / (actions[:, :-1] ** 2).sum()
    later = (actions[:, 12:] * actions[:, :-12]).sum() / (actions[:, :-12] ** 2).sum()
    assert same > 0.6
    assert later < 0.2


def test_a_lowered_gripper_pushes_a_thing_ahead_of_it() -> None:
    table = Tabletop([thing()], np.zeros((1, 3)), np.array([-0.1, 0, 0]), np.pi / 2)
    x, y, _ = drive(table, (-0.1, 0, 0), (0.06, 0, 0))[0]
    assert x >= 0.06 + tabletop.FINGER + 0.03 - 1e-3  # the disc touches the gripper or is farther away
    assert y == pytest.approx(0, abs=2e-3)


def test_a_push_beside_the_middle_turns_a_box() -> None:
    box = thing(((-0.03, -0.03), (0.03, -0.03), (0.03, 0.03), (-0.03, 0.03)), radius=0.043)
    table = Tabletop([box], np.zeros((1, 3)), np.array([-0.1, 0.02, 0]), 0.0)
    x, _, angle = drive(table, (-0.1, 0.02, 0), (0, 0.02, 0))[0]
    assert x > 0.02
    assert angle < -0.2  # a push to the right below the middle turns the box from y to x, which is negative


def test_a_lifted_gripper_leaves_things_alone() -> None:
    table = Tabletop([thing()], np.zeros((1, 3)), np.array([-0.1, 0, 0.05]))
    assert np.array_equal(drive(table, (-0.1, 0, 0.05), (0.1, 0, 0.05))[0], np.zeros(3))


def test_a_thing_slides_as_far_as_dry_friction_lets_it() -> None:
    one_substep = 0.4 * tabletop.INTERVAL / tabletop.SUBSTEPS
    for grip in (0.04, 0.1):
        table = Tabletop([thing(grip=grip)], np.zeros((1, 3)), np.array([0, 0.19, 0.1]))
        table.bodies[0].velocity = (0.4, 0)
        x, y, _ = drive(table, (0, 0.19, 0.1), (0, 0.19, 0.1))[0]
        assert x == pytest.approx(0.4**2 / (2 * grip * GRAVITY), abs=one_substep)
        assert y == pytest.approx(0)


def test_a_thing_that_hits_another_hands_its_momentum_on() -> None:
    hitting, hit = thing(mass=0.3, grip=1e-6), thing(mass=0.1, grip=1e-6)
    table = Tabletop([hitting, hit], np.array([[-0.1, 0, 0], [0, 0, 0]]), np.array([0, 0.19, 0.1]))
    table.bodies[0].velocity = (0.2, 0)
    drive(table, (0, 0.19, 0.1), (0, 0.19, 0.1), frames=2)
    bounce = 0.4 * 0.4
    expected = 0.2 * np.array([0.3 - bounce * 0.1, 0.3 * (1 + bounce)]) / 0.4
    assert [body.velocity.x for body in table.bodies] == pytest.approx(expected, rel=0.02)


def test_an_object_that_nothing_touches_stays_still_and_none_leaves_the_table(episodes: list[Episode]) -> None:
    num_still = 0
    for episode in episodes:
        places = episode.places[..., :2]
        assert np.abs(places).max() < EDGE
        for k, this in enumerate(episode.things):
            others = [
                np.hypot(*(places[:, k] - places[:, j]).T).min() - other.radius
                for j, other in enumerate(episode.things)
                if j != k
            ]
            gripper = np.hypot(*(places[:, k] - episode.positions[:, :2]).T).min()
            gripper -= 0.06  # its radius and its movement between two frames
            if min(gripper, *others) > this.radius + 0.01:
                num_still += 1
                assert np.ptp(episode.places[:, k], axis=0).max() < 1e-9
    assert num_still > 10


def test_most_clips_hold_a_push_that_can_be_seen(episodes: list[Episode]) -> None:
    moved = [np.hypot(*(e.places[11] - e.places[1])[:, :2].T).max() > 1 / 116 for e in episodes]
    assert np.mean(moved) > 0.5


def test_camera_shows_what_is_higher_farther_up() -> None:
    points = np.array([[0.0, 0.0, 0.0], [0.1, 0.05, 0.0], [0.1, 0.05, 0.12]])
    assert project(points) == pytest.approx(np.array([[32, 32], [43.6, 37.8], [43.6, 37.8 - 6.96]]))


def test_links_keep_their_length_wherever_the_arm_goes() -> None:
    grid = np.stack(np.meshgrid(*REACH.T), axis=-1).reshape(-1, 3)
    points = arm(grid, np.zeros(len(grid)))
    for start, end in (("shoulder", "elbow"), ("elbow", "wrist")):
        assert np.hypot(*(points[start] - points[end])[:, :2].T) == pytest.approx(LINK)
    assert points["shoulder"] == pytest.approx(np.tile(SHOULDER, (len(grid), 1)))
    assert (points["left_tip"] + points["right_tip"]) / 2 == pytest.approx(grid)


def test_drawn_gripper_is_where_its_position_says() -> None:
    found, expected = [], []
    for position in ((0.0, 0.1, 0.0), (-0.15, 0.05, 0.0), (0.1, 0.15, 0.0), (0.0, 0.1, 0.1)):
        frame = picture([], [], position)
        bluish = frame[..., 2] > frame[..., 0]  # the gripper is bluish, and the elbow at the upper edge
        bluish[:20] = False
        found.append(centre(bluish))
        expected.append(project(np.array(position)))
    found, expected = np.array(found), np.array(expected)
    assert found[:, 0] == pytest.approx(expected[:, 0], abs=0.7)
    assert found - found[0] == pytest.approx(expected - expected[0], abs=1.0)


@pytest.mark.parametrize("corners", [((0.0, 0.0),), ((-0.04, -0.03), (0.04, -0.03), (0.04, 0.03), (-0.04, 0.03))])
def test_drawn_thing_is_where_its_place_says_and_as_large(corners: tuple[tuple[float, float], ...]) -> None:
    away = (-0.18, -0.16, 0.1)
    empty = picture([], [], away)
    black = picture([thing(corners)], [0.08, 0.1, 0.0], away).max(axis=2) < 0.5 * empty.max(axis=2)
    top = np.pi * 0.03**2 if len(corners) == 1 else 0.08 * 0.06
    side = (0.06 if len(corners) == 1 else 0.08) * 0.02
    assert centre(black) == pytest.approx(project(np.array([0.08, 0.1, 0.02])), abs=0.6)
    assert black.sum() == pytest.approx(116**2 * (top + side), rel=0.12)


def test_a_copy_of_the_last_given_frame_scores_as_on_the_real_data() -> None:
    scores = []
    for number in range(12):
        frames = pushing_clip(seed=0, number=number)[0] / 255
        error = ((frames[2:12] - frames[1]) ** 2).mean(axis=(1, 2))
        scores.append(-10 * np.log10(error).mean())
    assert 17 < np.mean(scores) < 22


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"seed": -1}, "seed"),
        ({"num_train": 0}, "train clips"),
        ({"num_validate": 0}, "validate clips"),
        ({"num_test": 100_001}, "test clips"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, int], named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=named):
        write_pushing(tmp_path / "pushing", **SMALL | wrong)
    assert not (tmp_path / "pushing").exists()


def test_folders_that_are_not_empty_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UserError, match="not an empty folder"):
            write_pushing(folder, **SMALL)
    assert set(contents(tmp_path)) == {"mine.txt"}
