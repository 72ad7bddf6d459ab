"""Writes synthetic robot pushing in the layout of the BAIR data set: an arm above a table pushes things about.

Lengths are in metres, times in seconds, angles in radians. World axes: x to the right of the picture, y down the
picture, z up from the table. How heavy and how slippery a thing is cannot be seen, so what a push does is uncertain.
Everything random is keyed by (seed, number of the clip), so any number of processes writes the same bytes.
"""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pymunk
from numpy.typing import NDArray
from PIL import Image

from src.base.console import UserError, track
from src.intake.facts import CLIP_LENGTH
from src.synthetic.tabletop_drawing import FINGER, OPENING, Array, Picture, Thing, draw_frames

LENGTH = CLIP_LENGTH  # frames
INTERVAL = 0.2  # from one frame to the next
SUBSTEPS = 10  # of the physics, for each frame
GRAVITY = 9.81
EDGE = 0.265  # the table's rim, which things cannot cross: |x| and |y| of its inner side
LAID = 0.19  # things begin with |x| and |y| below it, where the arm can get at them
REACH = np.array([[-0.18, -0.16, 0.0], [0.18, 0.18, 0.12]])  # the least and greatest position of the fingertips
SLIP = np.array([0.003, 0.003, 0.0015])  # standard deviation of what the arm does beside what it is told
SPEED = (0.02, 0.055)  # metres a frame
PUSHES = 0.75  # the share of plans that aim at a thing

FIRST_NUMBER = {"train": 0, "validate": 100_000, "test": 200_000}  # far apart: more of one leaves the others the same
FOLDER_SIZE = 16  # clips in each traj_A_to_B
HUFFMAN_ONLY = 2  # zlib's strategy for noise: noisy pictures hold no repetitions worth looking for
WORTH_A_PROCESS = 40  # clips: about as long as a process takes to start


class Table:
    """Things on a table with a gripper above them, which pushes those that are taller than it is high."""

    def __init__(self, things: Sequence[Thing], places: Array, position: Array, angle: float = 0.0) -> None:
        self.position, self.angle, self.heights = np.array(position, float), angle, [thing.height for thing in things]
        self.space = pymunk.Space()
        self.space.collision_slop = 1e-4  # the library's own is meant for pixels
        for corner, turned in (((-1, -1), (1, -1)), ((1, -1), (1, 1)), ((1, 1), (-1, 1)), ((-1, 1), (-1, -1))):
            start, end = (tuple((EDGE + 0.1) * np.array(point)) for point in (corner, turned))
            rim = pymunk.Segment(self.space.static_body, start, end, 0.1)  # thick, so that nothing is pushed through
            rim.friction, rim.elasticity = 0.4, 0.4
            self.space.add(rim)
        self.gripper = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self.gripper.position, self.gripper.angle = tuple(self.position[:2]), angle
        self.fingers = pymunk.Segment(self.gripper, (-OPENING, 0), (OPENING, 0), radius=FINGER)
        self.fingers.friction = 0.6
        self.space.add(self.gripper, self.fingers)
        self.bodies = [self._put(k, thing, place) for k, (thing, place) in enumerate(zip(things, places, strict=True))]

    def _put(self, k: int, thing: Thing, place: Array) -> pymunk.Body:
        disc, corners = len(thing.corners) == 1, [tuple(corner) for corner in thing.corners]
        moment = (
            pymunk.moment_for_circle(thing.mass, 0, thing.radius)
            if disc
            else pymunk.moment_for_poly(thing.mass, corners)
        )
        body = pymunk.Body(thing.mass, moment)
        body.position, body.angle = tuple(place[:2]), place[2]
        shape = pymunk.Circle(body, thing.radius) if disc else pymunk.Poly(body, corners)
        shape.friction, shape.elasticity, shape.filter = 0.5, 0.4, pymunk.ShapeFilter(categories=1 << k)
        # Joints to the table that are far too weak to hold and never pull back: exactly what dry friction is.
        slide = pymunk.PivotJoint(self.space.static_body, body, (0, 0), (0, 0))
        spin = pymunk.GearJoint(self.space.static_body, body, 0, 1)
        slide.max_bias = spin.max_bias = 0
        slide.max_force = thing.grip * thing.mass * GRAVITY
        spin.max_force = slide.max_force * thing.radius / 5  # what slides turns more easily than what only turns
        self.space.add(body, shape, slide, spin)
        return body

    def move(self, position: Array, angle: float) -> None:
        """Takes the gripper to a position (3,) and angle within one frame, and lets the things do what they will."""
        start, height = self.position, self.position[2]
        self.gripper.velocity = tuple((position[:2] - start[:2]) / INTERVAL)
        self.gripper.angular_velocity = (angle - self.angle) / INTERVAL
        for substep in range(1, SUBSTEPS + 1):
            height = start[2] + (position[2] - start[2]) * substep / SUBSTEPS
            touched = sum(1 << k for k, tall in enumerate(self.heights) if tall > height)
            self.fingers.filter = pymunk.ShapeFilter(categories=1 << 31, mask=touched)
            self.space.step(INTERVAL / SUBSTEPS)
        self.position, self.angle = np.array(position, float), angle

    def places(self) -> Array:
        """x, y and angle of each thing, (K, 3)."""
        return np.array([(*body.position, body.angle) for body in self.bodies])


class Driver:
    """Chooses the actions: goes to one goal after another, mostly through a thing and beyond, at changing heights."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.goal, self.speed, self.left = rng, np.zeros(3), 0.0, 0
        self.action = np.zeros(4)

    def act(self, position: Array, places: Array) -> Array:
        """The next action (4,) for fingertips at a position (3,) and things at `places` (K, 3)."""
        way = self.goal - position
        if self.left == 0 or np.hypot(*way[:2]) < self.speed:
            self._plan(position, places)
            way = self.goal - position
        self.left -= 1
        wanted = np.array([*self.speed * way[:2] / (np.hypot(*way[:2]) + 1e-6), np.clip(0.6 * way[2], -0.05, 0.05), 0])
        inertia = np.array([0.4, 0.4, 0.2, 0.7])
        jitter = self.rng.normal(0, (0.004, 0.004, 0.002, 0.08))
        self.action = inertia * self.action + (1 - inertia) * wanted + jitter
        return self.action

    def _plan(self, position: Array, places: Array) -> None:
        self.speed, self.left = self.rng.uniform(*SPEED), int(self.rng.integers(4, 10))
        if self.rng.random() < PUSHES:
            thing = places[self.rng.integers(len(places)), :2] + self.rng.normal(0, 0.01, 2)
            way = thing - position[:2]
            beyond = thing + self.rng.uniform(0.04, 0.14) * way / (np.hypot(*way) + 1e-6)
            goal = np.array([*beyond, self.rng.uniform(0, 0.015)])
        else:
            goal = self.rng.uniform(*REACH)
        self.goal = np.clip(goal, *REACH)


class Story(NamedTuple):
    """What happens in a clip."""

    things: list[Thing]
    places: Array  # (30, K, 3): x, y and angle of each thing
    positions: Array  # (30, 3) of the fingertips
    angles: Array  # (30,) of the gripper
    actions: Array  # (30, 4)


def make_story(rng: np.random.Generator) -> Story:
    """A clip before it is drawn: two to five things laid out at random, and an arm that goes among them."""
    position, angle = rng.uniform(*REACH), rng.uniform(-np.pi / 2, np.pi / 2)
    things, starts = _lay(rng, position)
    table, driver = Table(things, starts, position, angle), Driver(rng)
    frames = []
    for _ in range(LENGTH):
        action = driver.act(position, table.places())
        frames.append((table.places(), position, angle, action))
        position = np.clip(position + action[:3] + rng.normal(0, SLIP), *REACH)
        angle = angle + action[3]
        table.move(position, angle)
    return Story(things, *(np.array(record) for record in zip(*frames, strict=True)))


def pushing_clip(*, seed: int, number: int) -> tuple[Picture, NDArray[np.float32], NDArray[np.float32]]:
    """One clip: frames (30, 64, 64, 3) in 0..255, actions (30, 4) and positions of the fingertips (30, 3).

    Frame t shows the arm at positions[t], which is x, y and z in metres within `REACH`; actions[t] = (dx, dy, dz,
    turn), in metres and radians, takes it to the next frame: positions[t + 1] = positions[t] + actions[t, :3] + noise
    of standard deviation `SLIP`, held within `REACH`. Fingers lower than a thing is tall push it, others pass over it.
    """
    story = make_story(np.random.default_rng((seed, number, 0)))
    rng = np.random.default_rng((seed, number, 1))
    frames = draw_frames(story.things, story.places, story.positions, story.angles, rng)
    return frames, story.actions.astype(np.float32), story.positions.astype(np.float32)


def _lay(rng: np.random.Generator, position: Array) -> tuple[list[Thing], Array]:
    """Two to five things and their places (K, 3) on the table, apart from each other and from the gripper."""
    things: list[Thing] = []
    places: list[Array] = []
    wanted = rng.integers(2, 6)
    while len(things) < wanted:
        thing = _make_thing(rng)
        place = np.array([*rng.uniform(-LAID, LAID, 2), rng.uniform(0, 2 * np.pi)])
        others = [(position, 0.03), *((other, known.radius) for other, known in zip(places, things, strict=True))]
        if all(np.hypot(*(place - other)[:2]) > thing.radius + radius + 0.005 for other, radius in others):
            things.append(thing)
            places.append(place)
    return things, np.array(places)


def _make_thing(rng: np.random.Generator) -> Thing:
    """A disc, or a polygon with three to six corners on an ellipse; half of the polygons are boxes."""
    radius, num_corners = rng.uniform(0.03, 0.054), rng.choice([1, 1, 3, 4, 4, 4, 5, 6])
    corners = np.zeros((1, 2))
    if num_corners > 1:
        turns = 2 * np.pi * (np.arange(num_corners) + 0.5) / num_corners
        corners = radius * np.stack([np.cos(turns), rng.uniform(0.55, 1) * np.sin(turns)], axis=1)
    hue, vividness = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1)
    tint = 1 + vividness * np.cos(hue + np.array([0, 2, 4]) * np.pi / 3)
    colour = np.clip(rng.uniform(70, 150) * tint, 12, 245)
    lid = np.clip(colour * rng.choice([0.6, 1.0, 1.35]) + rng.choice([0, 60]), 0, 250)
    mass, grip = np.exp(rng.uniform(np.log((0.05, 0.015)), np.log((0.6, 0.3))))
    return Thing(corners, radius, rng.uniform(0.025, 0.045), colour, lid, mass, grip)


def write_pushing(
    folder: Path, *, num_train: int = 1024, num_validate: int = 64, num_test: int = 128, seed: int = 0
) -> None:
    """Writes clips to `folder` as `SPLIT/traj_A_to_B/N/`: `0.png` .. `29.png`, `actions.csv` (30 rows of 4 numbers)
    and `endeffector_positions.csv` (30 rows of 3), as `pushing_clip(seed=seed, number=N)` says.

    Raises `UserError` for numbers out of range and for a folder that holds something.
    """
    counts = dict(zip(FIRST_NUMBER, (num_train, num_validate, num_test), strict=True))
    for split, count in counts.items():
        if not 1 <= count <= 100_000:
            raise UserError(f"the number of {split} clips is {count}, but must be in 1..100000")
    if seed < 0:
        raise UserError(f"the seed is {seed}, but must be at least 0")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; name a new one, or empty it first")
    jobs = []
    for split, count in counts.items():
        numbers = range(FIRST_NUMBER[split], FIRST_NUMBER[split] + count)
        for start in range(0, count, FOLDER_SIZE):
            together = numbers[start : start + FOLDER_SIZE]
            group = folder / split / f"traj_{together[0]}_to_{together[-1]}"
            jobs += [(group / str(number), number) for number in together]
    processes = min(os.cpu_count() or 1, -(-len(jobs) // WORTH_A_PROCESS))
    write = partial(_write_clip, seed)
    if processes == 1:
        deque(track(map(write, jobs), "drawing", len(jobs)), maxlen=0)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        deque(track(pool.map(write, jobs, chunksize=FOLDER_SIZE), "drawing", len(jobs)), maxlen=0)


def _write_clip(seed: int, job: tuple[Path, int]) -> None:
    folder, number = job
    frames, actions, positions = pushing_clip(seed=seed, number=number)
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{t}.png", compress_type=HUFFMAN_ONLY)
    for name, rows in (("actions", actions), ("endeffector_positions", positions)):
        np.savetxt(folder / f"{name}.csv", rows, fmt="%.9g", delimiter=",")  # nine digits bring a float32 back whole
