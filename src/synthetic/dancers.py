"""Writes synthetic dancers in the layout of the Kaggle competition: a person walks, turns, lunges and lifts the arms.

    python -m src.synthetic.dancers dance FOLDER --seed 0 --takes 3

All random numbers are keyed by (seed, split, number of the take), so any number of processes writes the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from src.base.command_line import Parser, path_option, whole
from src.base.console import UserError, run_program
from src.intake.facts import TEST_LENGTH
from src.synthetic import dancer_drawing
from src.synthetic.dancer_drawing import BODY_25, HEIGHT, INDEX, PARTS, WIDTH, Mask, Motion, Picture, Scene, View
from src.synthetic.rasteriser import Array
from src.synthetic.writing import check_empty, write_all

SPLITS = ("train", "val", "test")
MARK = (-0.15, 3.9)  # metres, x and z: the place on the floor where most takes are danced
REST = {"spread": 0.05, "raise_right": 0.25, "raise_left": 0.25, "bend_right": 0.3, "bend_left": 0.3}
PLACE = ("x", "z", "heading")  # these keep their values until an act changes them; all others return to rest
SWAYING = tuple(name for name in Motion._fields if name not in (*PLACE, "phase", "stride", "lunge", "squat", "lift"))
CHUNK = 30  # frames that are drawn together; each chunk has its own noise
MIN_JOBS = 10  # chunks; a process needs about as long as these to start


class Style(NamedTuple):
    """How a take begins, and how often it contains each act of a `Script`."""

    start: float  # metres to the right of the mark
    first: str  # the first act
    acts: dict[str, float]  # act -> relative frequency


STYLES = {  # the takes of a split use its styles in turn
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
    """The controls of a `Motion` at key frames, added act by act; linear between key frames."""

    def __init__(self, rng: np.random.Generator, x: float) -> None:
        self.rng = rng
        self.between = rng.uniform
        self.times = [0]
        self.keys = [{name: REST.get(name, 0.0) for name in Motion._fields} | {"x": x, "z": rng.normal(MARK[1], 0.1)}]

    def motion(self, length: int) -> Motion:
        """Returns the controls of `length` frames: smoothed, with steps that fit the speed and some random movement."""
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
        """Moves the named controls to their targets within `frames`. Limbs without a target return to rest."""
        key = {name: REST.get(name, value if name in PLACE else 0.0) for name, value in self.keys[-1].items()}
        self.keys.append(key | targets)
        self.times.append(self.times[-1] + max(2, round(frames)))

    def hold(self, frames: float) -> None:
        """Changes nothing for `frames`."""
        self.move(frames, **self.keys[-1])

    def face(self, heading: float, frames: float) -> None:
        """Turns to a heading, in the shorter direction."""
        now = self.keys[-1]["heading"]
        self.move(frames, heading=now + (heading - now + np.pi) % (2 * np.pi) - np.pi)

    def go(self, x: float, z: float, speed: float = 0.022, **posture: float) -> None:
        """Turns towards a place on the floor and walks there at `speed`, in metres per frame."""
        across = x - self.keys[-1]["x"]
        away = z - self.keys[-1]["z"]
        self.face(np.arctan2(across, -away), 9)
        self.move(np.hypot(across, away) / speed, x=x, z=z, **posture)

    def visit(self, z: float) -> None:
        """Walks from the mark to the distance `z` from the camera and back."""
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
    pose_points: Array  # (T, P, 2), pixels: the points as the pose detector places them, with a small error
    detected: Mask  # (T, P): whether the pose detector finds the point
    scene: Scene

    def draw(self, chunk: int) -> Iterator[tuple[Picture, Picture]]:
        """Yields (frame, pose), each (32, 64, 3) in 0..255, of the up to `CHUNK` frames from number `chunk * CHUNK`."""
        span = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        rng = np.random.default_rng((*self.key, 1, chunk))
        scene = replace(self.scene, folds=self.scene.folds[span])
        frames = dancer_drawing.draw_frames(View(*(values[span] for values in self.view)), scene, rng)
        poses = dancer_drawing.draw_poses(self.pose_points[span], self.detected[span])
        if chunk == 0:
            poses[0] = poses[1]  # as in the competition's files
        yield from zip(frames, poses, strict=True)


@lru_cache(maxsize=1)
def make_take(seed: int, split: str, number: int, length: int) -> Take:
    """Returns take `number` of a split, with the movement, the camera's view and the points of a pose detector."""
    key = (seed, SPLITS.index(split), number)
    rng = np.random.default_rng((*key, 0))
    style = STYLES[split][number % len(STYLES[split])]
    script = Script(rng, rng.normal(MARK[0] + style.start, 0.15))
    getattr(script, style.first)()
    acts = list(style.acts)
    probabilities = np.array(list(style.acts.values())) / sum(style.acts.values())
    while script.times[-1] < length:
        getattr(script, rng.choice(acts, p=probabilities))()
    scene = _scene(rng, length)
    view = dancer_drawing.project(dancer_drawing.body(script.motion(length), scene.stature))
    jitter = 0.05 * rng.standard_normal(view.position.shape)
    pose_points = view.position + jitter + 0.08 * _drift(rng, view.position.shape, 9)
    return Take(key, view, pose_points, _detected(view, rng), scene)


def dance_take(
    *, seed: int = 0, split: str = "train", number: int = 0, length: int = 630
) -> Iterator[tuple[Picture, Picture]]:
    """Yields `length` pairs (frame, pose), each (32, 64, 3) in 0..255, of one take; `length` is at least 2."""
    take = make_take(seed, split, number, length)
    for chunk in range(-(-length // CHUNK)):
        yield from take.draw(chunk)


def _smooth(values: Array, window: int) -> Array:
    """Returns the values (T, ...) smoothed over time, by a Hann window of `window` frames, an odd number."""
    bell = np.hanning(window + 2)[1:-1]
    ends = [np.repeat(end, window // 2, axis=0) for end in (values[:1], values[-1:])]
    padded = np.concatenate([ends[0], values, ends[1]])
    return sum(weight * padded[k : k + len(values)] for k, weight in enumerate(bell / bell.sum()))


def _drift(rng: np.random.Generator, shape: tuple[int, ...], window: int) -> Array:
    """Returns noise of a shape (T, ...), smooth over `window` frames, with mean 0 and standard deviation 1."""
    bell = np.hanning(window + 2)[1:-1]
    white = rng.standard_normal((shape[0] + window - 1, *shape[1:]))
    return sum(weight * white[k : k + shape[0]] for k, weight in enumerate(bell / np.linalg.norm(bell)))


def _scene(rng: np.random.Generator, length: int) -> Scene:
    """Returns clothes, body and light of one take. They differ a little between takes; the first frame shows how."""
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
    """Returns which points (T, P) a pose detector finds: points in the picture that face the camera, with some gaps."""
    x, y = np.moveaxis(view.position, 2, 0)
    inside = (x > 0) & (x < WIDTH) & (y > 0) & (y < HEIGHT)
    depth = view.distance - view.distance[:, [INDEX["neck"]]]  # metres behind the person's neck
    threshold = np.where(depth > 0.12, 1.2, 2.6)  # a point is missed if the noise exceeds it
    for name, limit in (("nose", 0.04), ("right_eye", 0.0), ("left_eye", 0.0), ("right_ear", 0.05), ("left_ear", 0.05)):
        threshold[depth[:, INDEX[name]] > limit, INDEX[name]] = -np.inf
    found = inside & (_drift(rng, x.shape, 15) < threshold)
    share = inside[:, : len(BODY_25)].mean(axis=1)
    found[share + 0.05 * _drift(rng, share.shape, 15) < 0.15] = False  # too little of the person to be detected
    return found


@dataclass(frozen=True)
class Shot:
    """A take and the folders of its pictures."""

    split: str
    number: int
    length: int
    poses: Path
    frames: dict[Path, int]  # folder -> number of the take's frames that it gets
    first: int = 0  # number in the name of the first picture


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
    """Writes PNG files, 64 wide and 32 high, to `train/`, `val/` and `test/` in the competition's layout.

    truth_folder: gets the true frames of the test takes as K/N.png. num_processes: by default one for each core.
    Raises `UserError` for numbers out of range and for folders that are not empty.
    """
    lengths = {"training takes": take_length, "validation take": val_length, "test takes": test_length}
    _at_least(1, {"number of training takes": num_takes, "number of test takes": num_tests})
    _at_least(2, {f"length of the {name}": length for name, length in lengths.items()})
    _at_least(0, {"seed": seed})
    _at_least(1, {"number of processes": num_processes} if num_processes is not None else {})
    for target in (folder, truth_folder):
        if target is not None:
            check_empty(target)
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
    write = partial(_write_chunk, seed)
    write_all(write, jobs, min_jobs=MIN_JOBS, chunk_size=MIN_JOBS, num_processes=num_processes)


def _at_least(least: int, numbers: dict[str, int]) -> None:
    """Raises UserError if a number is smaller than `least`; the keys are the names for the message."""
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
    """The command `python -m src.synthetic.dancers`: writes one data set."""
    parser = Parser(prog="python -m src.synthetic.dancers", description="Writes synthetic data sets.")
    commands = parser.add_subparsers(required=True, metavar="dance")
    dance = commands.add_parser("dance", help="a dancer in the competition's layout")
    dance.add_argument("folder", type=path_option, help="a new or empty folder")
    for option, name, default, meaning in (
        ("--seed", "seed", 0, "a different seed gives different dancers"),
        ("--takes", "num_takes", 3, "number of training takes"),
        ("--take-length", "take_length", 630, "frames of each training take"),
        ("--val-length", "val_length", 630, "frames of the validation take"),
        ("--tests", "num_tests", 2, "number of test takes"),
        ("--test-length", "test_length", TEST_LENGTH, "frames of each test take"),
    ):
        kind = whole(0, 2**63 - 1) if name == "seed" else whole(1, 1_000_000)
        dance.add_argument(option, dest=name, type=kind, default=default, metavar="N", help=f"{meaning} (%(default)s)")
    dance.add_argument(
        "--truth", dest="truth_folder", type=path_option, metavar="FOLDER", help="for the true frames of the test takes"
    )
    write_dance(**vars(parser.parse_args()))


if __name__ == "__main__":
    run_program(main)
