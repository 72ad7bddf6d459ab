"""Writes synthetic dancers in the layout of the Kaggle competition: a person walks, turns, lunges and lifts his arms.

    python -m src.synthetic.dancers dance FOLDER --seed 0 --takes 3

Everything random is keyed by (seed, split, number of the take), so any number of processes writes the same bytes.
"""

import argparse
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from src.base.console import UserError, run_main, track
from src.intake.facts import TEST_LENGTH
from src.synthetic import dancer_drawing
from src.synthetic.dancer_drawing import BODY_25, HEIGHT, INDEX, PARTS, WIDTH, Array, Mask, Motion, Picture, Scene, View

SPLITS = ("train", "val", "test")
MARK = (-0.15, 3.9)  # metres: the place on the floor where most takes are danced
REST = {"spread": 0.05, "raise_right": 0.25, "raise_left": 0.25, "bend_right": 0.3, "bend_left": 0.3}
PLACE = ("x", "z", "heading")  # what stays as it is until an act changes it; all else goes back to rest
SWAYING = tuple(name for name in Motion._fields if name not in (*PLACE, "phase", "stride", "lunge", "squat", "lift"))
CHUNK = 30  # frames drawn together, with noise of their own
WORTH_A_PROCESS = 10  # chunks: about as long as a process takes to start


class Style(NamedTuple):
    """How a take begins, and how often each act of a `Script` comes up in it."""

    start: float  # metres to the right of the mark
    first: str
    acts: dict[str, float]


STYLES = {  # of the takes of a split, in turn
    "train": (
        Style(0, "arms", {"stand": 3, "turn": 3, "arms": 4, "squat": 1, "knees": 1, "shift": 1}),
        Style(0, "leave", {"stand": 1, "turn": 3, "cross": 6, "lunge": 1, "leave": 1}),
        Style(0, "approach", {"stand": 3, "turn": 3, "arms": 1, "shift": 1, "approach": 1}),
    ),
    "val": (Style(0.3, "lunge", {"turn": 1, "cross": 3, "lunge": 5, "leave": 0.5}),),
    "test": (
        Style(1.4, "shift", {"stand": 1, "turn": 2, "arms": 4, "squat": 2, "shift": 3}),
        Style(0, "step_up", {"turn": 2, "arms": 1, "knees": 1, "shift": 2, "step_up": 3}),
    ),
}


class Script:
    """The controls of a `Motion` at key frames, written act by act; between key frames they change evenly."""

    def __init__(self, rng: np.random.Generator, x: float) -> None:
        self.rng, self.between = rng, rng.uniform
        self.times = [0]
        self.keys = [{name: REST.get(name, 0.0) for name in Motion._fields} | {"x": x, "z": rng.normal(MARK[1], 0.1)}]

    def motion(self, length: int) -> Motion:
        """The controls frame by frame: corners rounded, a gait that fits the way covered, and a little sway."""
        controls = {}
        for name in Motion._fields:
            controls[name] = _smooth(np.interp(np.arange(length), self.times, [key[name] for key in self.keys]), 13)
        speed = np.hypot(np.gradient(controls["x"]), np.gradient(controls["z"]))
        controls["phase"] = np.cumsum(speed * (4.2 - 1.1 * controls["lunge"]))
        controls["stride"] = np.tanh(speed / 0.008)
        for name in SWAYING:
            controls[name] = controls[name] + 0.06 * _drift(self.rng, (length,), 41)
        return Motion(**controls)

    def move(self, frames: float, **targets: float) -> None:
        """Takes the named controls to their targets within `frames`; the limbs that are not named go to rest."""
        key = {name: REST.get(name, value if name in PLACE else 0.0) for name, value in self.keys[-1].items()}
        self.keys.append(key | targets)
        self.times.append(self.times[-1] + max(2, round(frames)))

    def hold(self, frames: float) -> None:
        self.move(frames, **self.keys[-1])

    def face(self, heading: float, frames: float) -> None:
        """Turns the shorter way round to a heading."""
        now = self.keys[-1]["heading"]
        self.move(frames, heading=now + (heading - now + np.pi) % (2 * np.pi) - np.pi)

    def go(self, x: float, z: float, speed: float = 0.022, **posture: float) -> None:
        """Turns towards a place on the floor and goes there at `speed`, in metres a frame."""
        across, away = x - self.keys[-1]["x"], z - self.keys[-1]["z"]
        self.face(np.arctan2(across, -away), 9)
        self.move(np.hypot(across, away) / speed, x=x, z=z, **posture)

    def visit(self, z: float) -> None:
        """Goes from the mark towards the camera and back."""
        self.go(self.rng.normal(MARK[0], 0.1), z)
        self.hold(self.between(5, 40))
        self.go(*MARK)
        self.face(0, 15)

    def stand(self) -> None:
        self.move(self.between(8, 15))
        self.hold(self.between(20, 50))

    def turn(self) -> None:
        self.face(self.rng.integers(-1, 3) * np.pi / 2, self.between(15, 30))
        self.hold(self.between(10, 40))

    def arms(self) -> None:
        posture = {"spread": self.between(0.05, 0.25), "gaze": self.between(-0.4, 0.4)}
        for side in self.rng.permutation(["right", "left"])[: self.rng.integers(1, 4)]:
            direction = self.rng.choice(["raise", "raise", "reach"])
            posture |= {f"{direction}_{side}": self.between(0.9, 2.6), f"bend_{side}": self.between(0.1, 1.3)}
        self.face(self.rng.normal(0, 0.3), 10)
        self.move(self.between(15, 30), **posture)
        self.hold(self.between(10, 50))
        self.move(self.between(15, 30))

    def squat(self) -> None:
        arms = {"reach_right": 0.9, "reach_left": 0.9, "bend_right": 1.5, "bend_left": 1.5}
        for _ in range(self.rng.integers(1, 4)):
            depth = self.between(0.6, 1)
            self.move(20, squat=depth, lean=0.5 * depth, spread=0.2, **arms)
            self.move(20)

    def knees(self) -> None:
        for side in (1, -1) * int(self.rng.integers(1, 4)):
            self.move(12, lift=side * self.between(0.7, 1))
            self.move(12)

    def shift(self) -> None:
        self.go(*self.rng.normal(MARK, (0.35, 0.2)))
        self.face(0, 12)

    def cross(self) -> None:
        self.go(self.between(-2, 2), self.rng.normal(MARK[1], 0.15), self.between(0.016, 0.03))

    def lunge(self) -> None:
        place = self.between(-1.9, 1.9), self.rng.normal(MARK[1], 0.1)
        self.go(*place, speed=0.016, lunge=1.0, lean=0.15, bend_right=1.0, bend_left=1.0)

    def leave(self) -> None:
        side = 1 if self.keys[-1]["x"] > 0 else -1
        self.go(side * 3.0, MARK[1])
        self.hold(self.between(0, 20))
        self.go(side * self.between(0, 1.5), MARK[1])

    def approach(self) -> None:
        self.visit(self.between(1.1, 1.9))

    def step_up(self) -> None:
        self.visit(self.between(2.8, 3.4))


@dataclass(frozen=True)
class Take:
    """One unbroken shot, ready to be drawn."""

    key: tuple[int, ...]
    view: View
    found: Array  # (T, P, 2) pixels: where the pose images put the points, a little beside the truth
    detected: Mask  # (T, P): which points the pose images know
    scene: Scene

    def draw(self, chunk: int) -> Iterator[tuple[Picture, Picture]]:
        """Yields (frame, pose), each (32, 64, 3) in 0..255, of up to `CHUNK` frames from `chunk * CHUNK` on."""
        span = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        rng = np.random.default_rng((*self.key, 1, chunk))
        scene = replace(self.scene, folds=self.scene.folds[span])
        frames = dancer_drawing.draw_frames(View(*(values[span] for values in self.view)), scene, rng)
        poses = dancer_drawing.draw_poses(self.found[span], self.detected[span])
        if chunk == 0:
            poses[0] = poses[1]  # as in the competition's own files
        yield from zip(frames, poses, strict=True)


@lru_cache(maxsize=1)
def make_take(seed: int, split: str, number: int, length: int) -> Take:
    """Take `number` of a split: who moves how, where the camera sees it, and what a pose detector makes of it."""
    key = (seed, SPLITS.index(split), number)
    rng = np.random.default_rng((*key, 0))
    style = STYLES[split][number % len(STYLES[split])]
    script = Script(rng, rng.normal(MARK[0] + style.start, 0.15))
    getattr(script, style.first)()
    while script.times[-1] < length:
        getattr(
            script, rng.choice(list(style.acts), p=np.array(list(style.acts.values())) / sum(style.acts.values()))
        )()
    scene = _scene(rng, length)
    view = dancer_drawing.project(dancer_drawing.body(script.motion(length), scene.stature))
    found = view.position + 0.05 * rng.standard_normal(view.position.shape) + 0.08 * _drift(rng, view.position.shape, 9)
    return Take(key, view, found, _detected(view, rng), scene)


def dance_take(
    *, seed: int = 0, split: str = "train", number: int = 0, length: int = 630
) -> Iterator[tuple[Picture, Picture]]:
    """Yields `length` pairs (frame, pose), each (32, 64, 3) in 0..255, of one take; `length` is at least 2."""
    take = make_take(seed, split, number, length)
    for chunk in range(-(-length // CHUNK)):
        yield from take.draw(chunk)


def _smooth(values: Array, window: int) -> Array:
    """The values (T, ...) averaged over time under a bell of an odd `window` of frames."""
    bell = np.hanning(window + 2)[1:-1]
    ends = [np.repeat(end, window // 2, axis=0) for end in (values[:1], values[-1:])]
    padded = np.concatenate([ends[0], values, ends[1]])
    return sum(weight * padded[k : k + len(values)] for k, weight in enumerate(bell / bell.sum()))


def _drift(rng: np.random.Generator, shape: tuple[int, ...], window: int) -> Array:
    """Noise of this shape (T, ...) with mean 0 and standard deviation 1 that changes within `window` frames."""
    bell = np.hanning(window + 2)[1:-1]
    white = rng.standard_normal((shape[0] + window - 1, *shape[1:]))
    return sum(weight * white[k : k + shape[0]] for k, weight in enumerate(bell / np.linalg.norm(bell)))


def _scene(rng: np.random.Generator, length: int) -> Scene:
    """Clothes, build and light of one take; they differ between takes by little, so the first frame is worth a look."""
    tones = {
        "shirt": (46, 55, 69),
        "trousers": (8, 9, 12),
        "shoes": (12, 12, 15),
        "skin": (62, 47, 45),
        "hair": (17, 17, 20),
    }
    colours = {name: rng.normal(1, 0.08) * np.array(tone) + rng.normal(0, 2, 3) for name, tone in tones.items()}
    colours["sleeves"] = 0.92 * colours["shirt"]
    folds = 1 + 0.03 * _drift(rng, (length, len(PARTS)), 25)
    return Scene(dancer_drawing.draw_studio(rng), colours, rng.normal(1, 0.015), rng.normal(1, 0.03), folds)


def _detected(view: View, rng: np.random.Generator) -> Mask:
    """Which points (T, P) a pose detector finds: those in the picture that face the camera, less runs of misses."""
    x, y = np.moveaxis(view.position, 2, 0)
    inside = (x > 0) & (x < WIDTH) & (y > 0) & (y < HEIGHT)
    depth = view.distance - view.distance[:, [INDEX["neck"]]]  # how far behind the person's middle
    patience = np.where(depth > 0.12, 1.2, 2.6)  # standard deviations until a point is missed
    for name, limit in (("nose", 0.04), ("right_eye", 0.0), ("left_eye", 0.0), ("right_ear", 0.05), ("left_ear", 0.05)):
        patience[depth[:, INDEX[name]] > limit, INDEX[name]] = -np.inf
    found = inside & (_drift(rng, x.shape, 15) < patience)
    share = inside[:, : len(BODY_25)].mean(axis=1)
    found[share + 0.05 * _drift(rng, share.shape, 15) < 0.15] = False  # too little of a person to be taken for one
    return found


@dataclass(frozen=True)
class Shot:
    """A take and where its pictures go."""

    split: str
    number: int
    length: int
    poses: Path
    frames: dict[Path, int]  # folders, and how many of the take's frames each is given
    first: int = 0  # the number in the name of the first picture


def write_dance(
    folder: Path,
    *,
    seed: int = 0,
    num_takes: int = 3,
    take_length: int = 630,
    val_length: int = 630,
    num_tests: int = 2,
    test_length: int = TEST_LENGTH,
    truth_folder: Path | None = None,
    num_processes: int | None = None,
) -> None:
    """Writes PNGs, 64 wide and 32 high, into `train/`, `val/` and `test/` as the competition lays them out.

    The true frames of the test takes go to `truth_folder` (K/N.png), if one is given; all cores work unless
    `num_processes` says otherwise. Raises `UserError` for numbers out of range and for folders that hold something.
    """
    lengths = {"training takes": take_length, "validation take": val_length, "test takes": test_length}
    _at_least(1, {"number of training takes": num_takes, "number of test takes": num_tests})
    _at_least(2, {f"length of the {name}": length for name, length in lengths.items()})
    _at_least(0, {"seed": seed})
    _at_least(1, {"number of processes": num_processes} if num_processes is not None else {})
    for target in (folder, truth_folder):
        if target is not None and target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise UserError(f"{target} is not an empty folder; name a new one, or empty it first")
    train, val, test = (folder / split for split in SPLITS)
    shots = [Shot("val", 0, val_length, val / "val_label", {val / "val_img": val_length})]
    for k in range(num_takes):
        frames = {train / "train_img": take_length}
        shots.append(Shot("train", k, take_length, train / "train_label", frames, first=k * take_length))
    for k in range(num_tests):
        frames = {test / "test_img" / str(k): 1} | ({truth_folder / str(k): test_length} if truth_folder else {})
        shots.append(Shot("test", k, test_length, test / "test_label" / str(k), frames))
    for target in {target for shot in shots for target in (shot.poses, *shot.frames)}:
        target.mkdir(parents=True)
    jobs = [(shot, chunk) for shot in shots for chunk in range(-(-shot.length // CHUNK))]
    processes = min(num_processes or os.cpu_count() or 1, -(-len(jobs) // WORTH_A_PROCESS))
    write = partial(_write_chunk, seed)
    if processes == 1:
        deque(track(map(write, jobs), "drawing", len(jobs)), maxlen=0)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        deque(track(pool.map(write, jobs, chunksize=WORTH_A_PROCESS), "drawing", len(jobs)), maxlen=0)


def _at_least(least: int, numbers: dict[str, int]) -> None:
    for name, number in numbers.items():
        if number < least:
            raise UserError(f"the {name} is {number}, but must be at least {least}")


def _write_chunk(seed: int, job: tuple[Shot, int]) -> None:
    shot, chunk = job
    take = make_take(seed, shot.split, shot.number, shot.length)
    for index, (frame, pose) in enumerate(take.draw(chunk), start=chunk * CHUNK):
        name = f"{shot.first + index}.png"
        Image.fromarray(pose).save(shot.poses / name, compress_level=1)
        for folder, count in shot.frames.items():
            if index < count:
                Image.fromarray(frame).save(folder / name, compress_level=1)


def main() -> None:
    """Reads the command line and writes one data set."""
    parser = argparse.ArgumentParser(prog="python -m src.synthetic.dancers", description="Writes synthetic data sets.")
    commands = parser.add_subparsers(required=True, metavar="dance")
    dance = commands.add_parser("dance", help="a dancer in the competition's layout")
    dance.add_argument("folder", type=Path, help="a new or empty folder")
    for option, name, default, meaning in (
        ("--seed", "seed", 0, "another seed, other dancers"),
        ("--takes", "num_takes", 3, "training takes"),
        ("--take-length", "take_length", 630, "frames in each of them"),
        ("--val-length", "val_length", 630, "frames of the validation take"),
        ("--tests", "num_tests", 2, "test takes"),
        ("--test-length", "test_length", TEST_LENGTH, "frames in each of them"),
    ):
        dance.add_argument(option, dest=name, type=int, default=default, metavar="N", help=f"{meaning} (%(default)s)")
    dance.add_argument(
        "--truth", dest="truth_folder", type=Path, metavar="FOLDER", help="where the true test frames go"
    )
    write_dance(**vars(parser.parse_args()))


if __name__ == "__main__":
    run_main(main)
