"""Doubts are silent on good data, and speak when poses and frames do not belong together."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.base.console import UserError
from src.dance.skeleton import palette_of
from src.intake.arrays import open_array
from src.intake.doubts import doubts_of
from src.intake.manifest import DanceManifest, Manifest
from src.packing import pack_images, pack_synthetic

SEEDS = (0, 3)
LENGTHS = {"num_takes": 2, "take_length": 90, "val_length": 60, "num_tests": 1, "test_length": 20}


@pytest.fixture(scope="module", params=SEEDS)
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed set of synthetic dancers."""
    data = tmp_path_factory.mktemp("data")
    pack_synthetic("synthetic", "good", data_folder=data, seed=request.param, **LENGTHS)
    return data / "good"


@pytest.fixture(scope="module")
def real(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed real sample."""
    data = tmp_path_factory.mktemp("real")
    pack_images(sample, "mini", data_folder=data)
    return data / "mini"


def doubts_with(source: Path, folder: Path, **changed: Any) -> list[str]:
    """Returns the doubts about a copy of a data set in which some arrays are replaced."""
    manifest = Manifest.load(source)
    assert isinstance(manifest, DanceManifest)
    shapes = {}
    for name, shape in manifest.shapes.items():
        array = np.ascontiguousarray(changed.get(name, open_array(source, name, shape)))
        np.save(folder / f"{name}.npy", array)
        shapes[name] = array.shape
    assert shapes == manifest.shapes
    manifest = manifest.model_copy(update={"palette": palette_of(np.load(folder / "train_poses.npy"))})
    return doubts_of(folder, manifest)


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.array(open_array(folder, name, shape)) for name, shape in Manifest.load(folder).shapes.items()}


def moved_in_time(poses: np.ndarray, frames: int) -> np.ndarray:
    """Returns poses that come so many frames too late (or too early, if negative)."""
    return np.roll(poses, frames, axis=0)


def test_good_data_raise_no_doubt(good: Path, tmp_path: Path) -> None:
    assert doubts_with(good, tmp_path) == []


def test_robot_data_raise_no_doubt_until_actions_are_missing(tmp_path: Path) -> None:
    numbers = {"num_train": 6, "num_validate": 3, "num_test": 2}
    manifest = pack_synthetic("synthetic-pushing", "push", data_folder=tmp_path, **numbers)
    folder = tmp_path / "push"
    assert doubts_of(folder, manifest) == []
    arrays = arrays_of(folder)
    arrays["train_conditions"][..., :4] = 0
    np.save(folder / "train_conditions.npy", arrays["train_conditions"])
    np.save(folder / "validate_frames.npy", arrays["train_frames"][:3])
    repeated, missing = doubts_of(folder, manifest)
    assert repeated.startswith("3 of 3 clips of validate are in the training data too, such as number 0, which is")
    assert missing.startswith("every action of the training clips is [0.0, 0.0, 0.0, 0.0]")


@pytest.mark.parametrize("frames", [1, -1, 3])
def test_poses_at_another_time(good: Path, tmp_path: Path, frames: int) -> None:
    poses = moved_in_time(arrays_of(good)["train_poses"], frames)
    (doubt,) = doubts_with(good, tmp_path, train_poses=poses)
    assert doubt.startswith(f"the poses seem to be {abs(frames)} frames {'later' if frames > 0 else 'earlier'} than")


@pytest.mark.parametrize(("down", "right"), [(0, 3), (3, 0), (-3, -3), (0, 5)])
def test_poses_at_another_place(good: Path, tmp_path: Path, down: int, right: int) -> None:
    """The limbs of good data may lie a pixel beside, so the place is told to a pixel."""
    poses = np.roll(arrays_of(good)["train_poses"], (down, right), axis=(2, 3))
    (doubt,) = doubts_with(good, tmp_path, train_poses=poses)
    found = re.match(r"the limbs fit the dancer better when they are moved (.) pixels (.+) and (.) pixels (\w+)", doubt)
    assert found
    told = (int(found[1]) * (-1 if found[2] == "down" else 1), int(found[3]) * (-1 if found[4] == "right" else 1))
    assert abs(told[0] - down) <= 1 and abs(told[1] - right) <= 1


FAULTS: dict[str, tuple[Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], str]] = {
    "colours": (lambda arrays: {"train_poses": arrays["train_poses"][:, ::-1]}, "with red and blue exchanged"),
    "repeated": (
        lambda arrays: {"val_frames": arrays["train_frames"][30:90]},
        "60 of 60 validation frames are in the training data too, such as number 0, which is number 30 there",
    ),
    "shuffled": (
        lambda arrays: {"train_poses": np.random.default_rng(0).permutation(arrays["train_poses"])},
        "do poses and frames belong together?",
    ),
    "equal": (lambda arrays: {"train_frames": 0 * arrays["train_frames"] + arrays["train_frames"][:1]}, "are equal"),
    "black": (lambda arrays: {"train_frames": 0 * arrays["train_frames"]}, "100% of the training frames have one"),
    "on black": (lambda arrays: {"train_poses": 255 - arrays["train_poses"]}, "pose images are not drawn on white"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_other_faults(good: Path, tmp_path: Path, fault: str) -> None:
    change, words = FAULTS[fault]
    doubts = doubts_with(good, tmp_path, **change(arrays_of(good)))
    assert [doubt for doubt in doubts if words in doubt]


def test_exchanged_folders_are_refused(good: Path, tmp_path: Path) -> None:
    arrays = arrays_of(good)
    with pytest.raises(UserError, match=r"frames and poses are exchanged: .*; exchange the folders"):
        doubts_with(good, tmp_path, train_frames=arrays["train_poses"], train_poses=arrays["train_frames"])


def test_the_real_sample(real: Path, tmp_path: Path) -> None:
    """The smallest faults that can be told in it: one frame late, and two pixels beside."""
    assert doubts_with(real, tmp_path) == []
    poses = arrays_of(real)["train_poses"]
    (doubt,) = doubts_with(real, tmp_path, train_poses=moved_in_time(poses, 1))
    assert doubt.startswith("the poses seem to be 1 frames later")
    (doubt,) = doubts_with(real, tmp_path, train_poses=np.roll(poses, 2, axis=3))
    assert "0 pixels down and 2 pixels left" in doubt
