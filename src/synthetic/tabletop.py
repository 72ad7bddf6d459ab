"""Writes synthetic robot pushing in the layout of the BAIR data set: a robot arm pushes objects on a table.

Lengths are in metres, times in seconds, angles in radians. World axes: x to the right of the picture, y down the
picture, z up from the table. The mass and the friction of an object cannot be seen, so the effect of a push is
uncertain. All random numbers are keyed by (seed, number of the clip), so any number of processes writes the same bytes.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pymunk
from numpy.typing import NDArray
from PIL import Image

from src.base.console import UserError
from src.intake.facts import CLIP_LENGTH
from src.synthetic.rasteriser import Array
from src.synthetic.tabletop_drawing import FINGER, OPENING, Picture, Thing, draw_frames
from src.synthetic.writing import check_empty, write_all

LENGTH = CLIP_LENGTH  # frames
INTERVAL = 0.2  # seconds between two frames
SUBSTEPS = 10  # steps of the physics for each frame
GRAVITY = 9.81  # m / s^2
EDGE = 0.265  # |x| and |y| of the inner side of the table's rim, which objects cannot cross
START_RANGE = 0.19  # objects start with |x| and |y| below it, where the arm can reach them
REACH = np.array([[-0.18, -0.16, 0.0], [0.18, 0.18, 0.12]])  # lowest and highest x, y and z of the fingertips
ACTION_NOISE = np.array([0.003, 0.003, 0.0015])  # standard deviation of the movement around the action
SPEED = (0.02, 0.055)  # metres per frame
PUSHES = 0.75  # probability that the next goal is an object

FIRST_NUMBER = {
    "train": 0,
    "validate": 100_000,
    "test": 200_000,
}  # far apart, so that more clips of a split do not change the others
FOLDER_SIZE = 16  # clips in each traj_A_to_B
HUFFMAN_ONLY = 2  # zlib's strategy without a search for repetitions, which noisy pictures do not have
MIN_JOBS = 40  # clips; a process needs about as long as these to start


class Tabletop:
    """Objects on a table and a gripper, which pushes the objects that are taller than the gripper is high."""

    def __init__(self, things: Sequence[Thing], places: Array, position: Array, angle: float = 0.0) -> None:
        self.position = np.array(position, float)
        self.angle = angle
        self.heights = [thing.height for thing in things]
        self.space = pymunk.Space()
        self.space.collision_slop = 1e-4  # the default is meant for lengths in pixels
        for corner, turned in (((-1, -1), (1, -1)), ((1, -1), (1, 1)), ((1, 1), (-1, 1)), ((-1, 1), (-1, -1))):
            start, end = (tuple((EDGE + 0.1) * np.array(point)) for point in (corner, turned))
            rim = pymunk.Segment(self.space.static_body, start, end, 0.1)  # thick, so that nothing is pushed through
            rim.friction = 0.4
            rim.elasticity = 0.4
            self.space.add(rim)
        self.gripper = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self.gripper.position = tuple(self.position[:2])
        self.gripper.angle = angle
        self.fingers = pymunk.Segment(self.gripper, (-OPENING, 0), (OPENING, 0), radius=FINGER)
        self.fingers.friction = 0.6
        self.space.add(self.gripper, self.fingers)
        self.bodies = [self._put(k, thing, place) for k, (thing, place) in enumerate(zip(things, places, strict=True))]

    def _put(self, k: int, thing: Thing, place: Array) -> pymunk.Body:
        """Adds object number `k` at `place`: x, y and angle."""
        disc = len(thing.corners) == 1
        corners = [tuple(corner) for corner in thing.corners]
        moment = (
            pymunk.moment_for_circle(thing.mass, 0, thing.radius)
            if disc
            else pymunk.moment_for_poly(thing.mass, corners)
        )
        body = pymunk.Body(thing.mass, moment)
        body.position = tuple(place[:2])
        body.angle = place[2]
        shape = pymunk.Circle(body, thing.radius) if disc else pymunk.Poly(body, corners)
        shape.friction = 0.5
        shape.elasticity = 0.4
        shape.filter = pymunk.ShapeFilter(categories=1 << k)
        # Dry friction with the table: two joints whose force is limited and which never pull the object back.
        slide = pymunk.PivotJoint(self.space.static_body, body, (0, 0), (0, 0))
        spin = pymunk.GearJoint(self.space.static_body, body, 0, 1)
        slide.max_bias = 0
        spin.max_bias = 0
        slide.max_force = thing.grip * thing.mass * GRAVITY
        spin.max_force = slide.max_force * thing.radius / 5  # small, because an object that slides turns more easily
        self.space.add(body, shape, slide, spin)
        return body

    def move(self, position: Array, angle: float) -> None:
        """Moves the gripper to `position` (3,) and `angle` within one frame, and simulates the objects."""
        start = self.position
        self.gripper.velocity = tuple((position[:2] - start[:2]) / INTERVAL)
        self.gripper.angular_velocity = (angle - self.angle) / INTERVAL
        for substep in range(1, SUBSTEPS + 1):
            height = start[2] + (position[2] - start[2]) * substep / SUBSTEPS
            touched = sum(1 << k for k, tall in enumerate(self.heights) if tall > height)
            self.fingers.filter = pymunk.ShapeFilter(categories=1 << 31, mask=touched)
            self.space.step(INTERVAL / SUBSTEPS)
        self.position = np.array(position, float)
        self.angle = angle

    def places(self) -> Array:
        """Returns x, y and angle of each object, (K, 3)."""
        return np.array([(*body.position, body.angle) for body in self.bodies])


class Policy:
    """Chooses the actions. The arm moves to one goal after another; most goals are just behind an object."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.goal = np.zeros(3)
        self.speed = 0.0
        self.frames_left = 0  # until the next goal
        self.action = np.zeros(4)

    def act(self, position: Array, places: Array) -> Array:
        """Returns the next action (4,) for fingertips at `position` (3,) and objects at `places` (K, 3)."""
        way = self.goal - position
        if self.frames_left == 0 or np.hypot(*way[:2]) < self.speed:
            self._choose_goal(position, places)
            way = self.goal - position
        self.frames_left -= 1
        wanted = np.array([*self.speed * way[:2] / (np.hypot(*way[:2]) + 1e-6), np.clip(0.6 * way[2], -0.05, 0.05), 0])
        inertia = np.array([0.4, 0.4, 0.2, 0.7])
        jitter = self.rng.normal(0, (0.004, 0.004, 0.002, 0.08))
        self.action = inertia * self.action + (1 - inertia) * wanted + jitter
        return self.action

    def _choose_goal(self, position: Array, places: Array) -> None:
        self.speed = self.rng.uniform(*SPEED)
        self.frames_left = int(self.rng.integers(4, 10))
        if self.rng.random() < PUSHES:
            thing = places[self.rng.integers(len(places)), :2] + self.rng.normal(0, 0.01, 2)
            way = thing - position[:2]
            beyond = thing + self.rng.uniform(0.04, 0.14) * way / (np.hypot(*way) + 1e-6)
            goal = np.array([*beyond, self.rng.uniform(0, 0.015)])
        else:
            goal = self.rng.uniform(*REACH)
        self.goal = np.clip(goal, *REACH)


class Episode(NamedTuple):
    """All that a clip shows, before it is drawn."""

    things: list[Thing]
    places: Array  # (30, K, 3): x, y and angle of each object
    positions: Array  # (30, 3), of the fingertips
    angles: Array  # (30,), of the gripper
    actions: Array  # (30, 4)


def make_episode(rng: np.random.Generator) -> Episode:
    """Returns a random episode: two to five objects at random places, and an arm that pushes them."""
    position = rng.uniform(*REACH)
    angle = rng.uniform(-np.pi / 2, np.pi / 2)
    things, starts = _place_things(rng, position)
    table = Tabletop(things, starts, position, angle)
    policy = Policy(rng)
    frames = []
    for _ in range(LENGTH):
        action = policy.act(position, table.places())
        frames.append((table.places(), position, angle, action))
        position = np.clip(position + action[:3] + rng.normal(0, ACTION_NOISE), *REACH)
        angle = angle + action[3]
        table.move(position, angle)
    return Episode(things, *(np.array(record) for record in zip(*frames, strict=True)))


def pushing_clip(*, seed: int, number: int) -> tuple[Picture, NDArray[np.float32], NDArray[np.float32]]:
    """Returns one clip: frames (30, 64, 64, 3) in 0..255, actions (30, 4) and positions of the fingertips (30, 3).

    Frame t shows the arm at positions[t]: x, y and z in metres, within `REACH`. actions[t] = (dx, dy, dz, turn), in
    metres and radians, moves it to the next frame: positions[t + 1] = positions[t] + actions[t, :3] + noise, clipped to
    `REACH`. The noise has standard deviation `ACTION_NOISE`. Fingers push an object if they are lower than its top.
    """
    episode = make_episode(np.random.default_rng((seed, number, 0)))
    rng = np.random.default_rng((seed, number, 1))
    frames = draw_frames(episode.things, episode.places, episode.positions, episode.angles, rng)
    return frames, episode.actions.astype(np.float32), episode.positions.astype(np.float32)


def _place_things(rng: np.random.Generator, position: Array) -> tuple[list[Thing], Array]:
    """Returns two to five objects and their places (K, 3); they touch neither each other nor the gripper."""
    things: list[Thing] = []
    places: list[Array] = []
    wanted = rng.integers(2, 6)
    while len(things) < wanted:
        thing = _make_thing(rng)
        place = np.array([*rng.uniform(-START_RANGE, START_RANGE, 2), rng.uniform(0, 2 * np.pi)])
        others = [
            (position, 0.03),
            *((other_place, other.radius) for other_place, other in zip(places, things, strict=True)),
        ]
        if all(np.hypot(*(place - centre)[:2]) > thing.radius + radius + 0.005 for centre, radius in others):
            things.append(thing)
            places.append(place)
    return things, np.array(places)


def _make_thing(rng: np.random.Generator) -> Thing:
    """Returns a random object: a disc, or a polygon with 3 to 6 corners on an ellipse; half the polygons are boxes."""
    radius = rng.uniform(0.03, 0.054)
    num_corners = rng.choice([1, 1, 3, 4, 4, 4, 5, 6])
    corners = np.zeros((1, 2))
    if num_corners > 1:
        turns = 2 * np.pi * (np.arange(num_corners) + 0.5) / num_corners
        corners = radius * np.stack([np.cos(turns), rng.uniform(0.55, 1) * np.sin(turns)], axis=1)
    hue = rng.uniform(0, 2 * np.pi)
    saturation = rng.uniform(0.3, 1)
    tint = 1 + saturation * np.cos(hue + np.array([0, 2, 4]) * np.pi / 3)
    colour = np.clip(rng.uniform(70, 150) * tint, 12, 245)
    lid = np.clip(colour * rng.choice([0.6, 1.0, 1.35]) + rng.choice([0, 60]), 0, 250)
    mass, grip = np.exp(rng.uniform(np.log((0.05, 0.015)), np.log((0.6, 0.3))))
    return Thing(corners, radius, rng.uniform(0.025, 0.045), colour, lid, mass, grip)


def write_pushing(
    folder: Path, *, num_train: int = 1024, num_validate: int = 64, num_test: int = 128, seed: int = 0
) -> None:
    """Writes clip N of `pushing_clip` to the folder `SPLIT/traj_A_to_B/N/` in `folder`.

    A clip has `0.png` .. `29.png`, `actions.csv` (30 rows of 4 numbers) and `endeffector_positions.csv` (30 rows of 3).
    Raises `UserError` for numbers out of range and for a folder that is not empty.
    """
    counts = dict(zip(FIRST_NUMBER, (num_train, num_validate, num_test), strict=True))
    for split, count in counts.items():
        if not 1 <= count <= 100_000:
            raise UserError(f"the number of {split} clips is {count}, but must be in 1..100000")
    if seed < 0:
        raise UserError(f"the seed is {seed}, but must be at least 0")
    check_empty(folder)
    jobs = []
    for split, count in counts.items():
        numbers = range(FIRST_NUMBER[split], FIRST_NUMBER[split] + count)
        for start in range(0, count, FOLDER_SIZE):
            members = numbers[start : start + FOLDER_SIZE]
            group = folder / split / f"traj_{members[0]}_to_{members[-1]}"
            jobs += [(group / str(number), number) for number in members]
    write_all(partial(_write_clip, seed), jobs, min_jobs=MIN_JOBS, chunk_size=FOLDER_SIZE)


def _write_clip(seed: int, job: tuple[Path, int]) -> None:
    folder, number = job
    frames, actions, positions = pushing_clip(seed=seed, number=number)
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{t}.png", compress_type=HUFFMAN_ONLY)
    for name, rows in (("actions", actions), ("endeffector_positions", positions)):
        np.savetxt(folder / f"{name}.csv", rows, fmt="%.9g", delimiter=",")  # nine digits restore a float32 exactly
