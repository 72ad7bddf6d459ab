"""Synthetic dancers: same seed, same bytes; the competition's layout; frames and poses that agree."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.base.console import UserError, run_main
from src.synthetic import dancer_drawing, dancers
from src.synthetic.dancer_drawing import INDEX, Motion, Scene
from src.synthetic.dancers import CHUNK, Take, dance_take, make_take, write_dance

SMALL = {"num_takes": 2, "take_length": 35, "val_length": 40, "num_tests": 2, "test_length": 33}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def take_pictures(**which: object) -> tuple[np.ndarray, np.ndarray]:
    frames, poses = zip(*dance_take(**which), strict=True)
    return np.stack(frames), np.stack(poses)


def every_other_chunk(take: Take) -> tuple[np.ndarray, np.ndarray]:
    pairs = [pair for chunk in range(0, 630 // CHUNK, 2) for pair in take.draw(chunk)]
    frames, poses = zip(*pairs, strict=True)
    return np.stack(frames), np.stack(poses)


def standing(frames: int = 1, **controls: float) -> Motion:
    """Returns a person who stands still in the middle of the picture and faces the camera."""
    still = dict.fromkeys(Motion._fields, 0.0) | {"z": 4.0, "raise_right": 0.3, "raise_left": 0.3} | controls
    return Motion(**{name: np.full(frames, value) for name, value in still.items()})


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder, truth = tmp_path_factory.mktemp("dance"), tmp_path_factory.mktemp("truth")
    write_dance(folder, seed=5, truth_folder=truth, num_processes=1, **SMALL)
    return folder, truth


def test_layout_is_the_competitions(data_set: tuple[Path, Path]) -> None:
    folder, truth = data_set
    expected = {f"train/train_{kind}/{n}.png" for kind in ("img", "label") for n in range(70)}
    expected |= {f"val/val_{kind}/{n}.png" for kind in ("img", "label") for n in range(40)}
    expected |= {f"test/test_label/{k}/{n}.png" for k in range(2) for n in range(33)}
    expected |= {f"test/test_img/{k}/0.png" for k in range(2)}
    assert set(contents(folder)) == expected
    assert set(contents(truth)) == {f"{k}/{n}.png" for k in range(2) for n in range(33)}
    for path in (*folder.rglob("*.png"), *truth.rglob("*.png")):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (64, 32)), path


def test_files_hold_the_generated_takes_one_after_the_other(data_set: tuple[Path, Path]) -> None:
    folder, truth = data_set
    frames, poses = take_pictures(seed=5, split="train", number=1, length=35)
    for n in (0, 34):
        assert np.array_equal(np.asarray(Image.open(folder / f"train/train_img/{35 + n}.png")), frames[n])
        assert np.array_equal(np.asarray(Image.open(folder / f"train/train_label/{35 + n}.png")), poses[n])
    for k in range(2):
        assert (folder / f"test/test_img/{k}/0.png").read_bytes() == (truth / f"{k}/0.png").read_bytes()


def test_two_processes_write_the_same_bytes_as_one(
    data_set: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dancers, "MIN_JOBS", 1)
    write_dance(tmp_path / "dance", seed=5, truth_folder=tmp_path / "truth", num_processes=2, **SMALL)
    assert contents(tmp_path / "dance") == contents(data_set[0])
    assert contents(tmp_path / "truth") == contents(data_set[1])


def test_seed_split_and_number_each_change_the_take() -> None:
    which = {"seed": 1, "split": "train", "number": 0, "length": 31}
    frames, poses = take_pictures(**which)
    make_take.cache_clear()
    assert all(np.array_equal(*pair) for pair in zip(take_pictures(**which), (frames, poses), strict=True))
    for change in ({"seed": 2}, {"split": "test"}, {"number": 3}):
        other_frames, other_poses = take_pictures(**which | change)
        assert not np.array_equal(other_frames, frames)
        assert not np.array_equal(other_poses, poses)


@given(
    seed=st.integers(0, 2**32),
    split=st.sampled_from(dancers.SPLITS),
    number=st.integers(0, 5),
    length=st.integers(2, 200),
)
@settings(max_examples=8, deadline=None)
def test_any_take_has_as_many_pictures_as_asked_for(seed: int, split: str, number: int, length: int) -> None:
    frames, poses = take_pictures(seed=seed, split=split, number=number, length=length)
    assert frames.shape == poses.shape == (length, 32, 64, 3)
    assert frames.dtype == poses.dtype == np.uint8
    assert np.array_equal(poses[0], poses[1])


def test_camera_sees_a_metre_as_far_as_similar_triangles_say() -> None:
    points = np.array([[[0.0, 1.02, 2.0], [1.0, 1.02, 4.0], [0.0, 0.02, 4.0]]])
    view = dancer_drawing.project(points)
    assert view.position[0] == pytest.approx(np.array([[32, 12.5], [32 + 49 / 4, 12.5], [32, 12.5 + 49 / 4]]))


def test_bones_keep_their_length_and_nobody_sinks_into_the_floor() -> None:
    script = dancers.Script(np.random.default_rng(3), 0.0)
    for act in ("arms", "squat", "lunge", "knees", "leave", "approach"):
        getattr(script, act)()
    points = dancer_drawing.body(script.motion(script.times[-1]), stature=1.1)
    for start, end, metres in (
        ("hip", "knee", 0.43),
        ("knee", "ankle", 0.42),
        ("shoulder", "elbow", 0.29),
        ("elbow", "wrist", 0.26),
    ):
        for side in ("right", "left"):
            bone = points[:, INDEX[f"{side}_{start}"]] - points[:, INDEX[f"{side}_{end}"]]
            assert np.linalg.norm(bone, axis=1) == pytest.approx(1.1 * metres)
    feet = points[
        :, [INDEX[f"{side}_{joint}"] for side in ("right", "left") for joint in ("knee", "ankle", "big_toe")], 1
    ]
    assert np.all(feet.min(axis=1) > 0.02)
    assert np.all(feet.min(axis=1) < 0.1)


def test_the_darkness_of_a_vertical_limb_is_its_width_times_its_length() -> None:
    positions = np.zeros((1, len(dancer_drawing.POINTS), 2))
    detected = np.zeros((1, len(dancer_drawing.POINTS)), bool)
    for joint, y in (("neck", 8.5), ("hips", 20.5)):
        positions[0, INDEX[joint]] = (30.5, y)
        detected[0, INDEX[joint]] = True
    darkness = 255.0 - dancer_drawing.draw_poses(positions, detected)[0]
    assert np.all(darkness[..., 2] == 0)  # the trunk is blue
    assert darkness[9:20, 30, :2] == pytest.approx(255 * dancer_drawing.LINE_WIDTH, abs=0.6)
    assert darkness[..., 0].sum() / 255 == pytest.approx(12 * dancer_drawing.LINE_WIDTH, rel=0.1)
    assert not darkness[:, :29].any()
    assert not darkness[:, 32:].any()


@pytest.mark.parametrize(
    ("limb", "colour"),
    [
        (("right_hip", "right_knee"), (0, 255, 175)),
        (("left_hip", "left_knee"), (114, 0, 0)),
        (("right_shoulder", "right_elbow"), (0, 51, 255)),
        (("left_shoulder", "left_elbow"), (0, 216, 255)),
        (("right_knee", "right_ankle"), (0, 255, 85)),
        (("left_knee", "left_ankle"), (255, 85, 0)),
    ],
)
def test_left_and_right_limbs_have_the_colours_of_the_competitions_files(
    limb: tuple[str, str], colour: tuple[int, ...]
) -> None:
    view = dancer_drawing.project(dancer_drawing.body(standing(z=2.5), stature=1.0))
    pose = dancer_drawing.draw_poses(view.position, np.ones(view.distance.shape, bool))[0]
    x, y = view.position[0, [INDEX[joint] for joint in limb]].mean(axis=0)
    assert (x < 32) == limb[0].startswith("right")  # the person faces the camera, so their right is on our left
    darkness = 255.0 - pose[int(y), int(x)]
    assert darkness / darkness.max() == pytest.approx(1 - np.array(colour) / 255, abs=0.05)


def test_face_in_front_hair_behind() -> None:
    names = ("shirt", "sleeves", "trousers", "shoes", "skin", "hair")
    colours = {name: np.full(3, 40.0 * index) for index, name in enumerate(names)}
    scene = Scene(np.full((32, 64, 3), 250.0), colours, 1.0, 1.0, np.ones((2, len(dancer_drawing.PARTS))))
    motion = standing(2, z=1.5)._replace(heading=np.array([0, np.pi]))
    view = dancer_drawing.project(dancer_drawing.body(motion, stature=0.75))
    frames = dancer_drawing.draw_frames(view, scene, np.random.default_rng(0))
    for frame, position, grey in zip(frames, view.position, (160, 200), strict=True):
        x, y = position[INDEX["head"]]
        assert frame[int(y), int(x)] == pytest.approx(grey, rel=0.12)


def test_pose_and_person_agree() -> None:
    take = make_take(2, "train", 0, 60)
    frames, poses = take_pictures(seed=2, split="train", number=0, length=60)
    change = np.abs(frames - take.scene.background).max(axis=3)
    limbs = poses.min(axis=3) < 230
    near = limbs.copy()
    for axis in (1, 2):
        near |= np.roll(near, 1, axis) | np.roll(near, -1, axis)
        near |= np.roll(near, 1, axis) | np.roll(near, -1, axis)
    assert np.mean(change[limbs] > 40) > 0.9
    far_and_above_the_shadow = ~near & (np.arange(32) < 20)[:, None]
    assert np.mean(change[far_and_above_the_shadow] > 40) < 0.02


def test_poses_are_partial_or_empty_where_the_person_leaves_the_picture() -> None:
    take = make_take(0, "train", 1, 630)
    joints = take.detected[:, : len(dancer_drawing.BODY_25)].sum(axis=1)
    empty = (dancer_drawing.draw_poses(take.pose_points, take.detected) == 255).all(axis=(1, 2, 3))
    assert np.array_equal(empty, joints == 0)
    assert 0.005 < empty.mean() < 0.3
    assert np.mean((joints > 0) & (joints < 18)) > 0.02
    assert np.mean(joints >= 18) > 0.5


def test_coming_close_makes_the_person_large() -> None:
    take = make_take(0, "train", 2, 300)
    scale = take.view.scale[:, INDEX["hips"]]
    assert scale.max() > 2 * scale.min()


def test_motion_is_smooth_within_a_take_and_breaks_at_a_cut() -> None:
    first, second = (take_pictures(seed=4, split="train", number=k, length=120)[0].astype(float) for k in range(2))
    steps = [np.sqrt(np.mean((after - before) ** 2)) for take in (first, second) for before, after in pairwise(take)]
    cut = np.sqrt(np.mean((second[0] - first[-1]) ** 2))
    assert np.max(steps) < 20
    assert cut > 4 * np.median(steps)


def test_plain_baselines_score_as_on_real_footage() -> None:
    """On the real validation take the first frame scores 16.1 dB, the median frame 17.4, the nearest pose 21.0."""
    train = [every_other_chunk(make_take(0, "train", number, 630)) for number in range(3)]
    frames, poses = (np.concatenate(parts) for parts in zip(*train, strict=True))
    true_frames, true_poses = every_other_chunk(make_take(0, "val", 0, 630))
    candidates, wanted = (x.reshape(len(x), -1).astype(np.float32) for x in (poses, true_poses[1:]))
    nearest = np.argmin((candidates**2).sum(axis=1) - 2 * wanted @ candidates.T, axis=1)

    def score(prediction: np.ndarray) -> float:
        error = (np.rint(prediction) - true_frames[1:].astype(float)) ** 2
        return float(np.mean(20 * np.log10(255) - 10 * np.log10(error.mean(axis=(1, 2, 3)))))

    copy = score(true_frames[:1])
    median = score(np.median(frames, axis=0))
    pose = score(frames[nearest])
    assert (copy, median, pose) == pytest.approx((16.1, 17.4, 21.0), abs=1.5)
    assert copy < median < pose


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"seed": -1}, "seed"),
        ({"num_takes": 0}, "training takes"),
        ({"take_length": 1}, "training takes"),
        ({"val_length": 0}, "validation"),
        ({"num_tests": 0}, "test takes"),
        ({"test_length": 1}, "test takes"),
        ({"num_processes": 0}, "processes"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, int], named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=named):
        write_dance(tmp_path / "dance", **SMALL | wrong)
    assert not (tmp_path / "dance").exists()


def test_folders_that_are_not_empty_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    for folder, truth in ((tmp_path, None), (tmp_path / "new", tmp_path), (tmp_path / "mine.txt", None)):
        with pytest.raises(UserError, match="not an empty folder"):
            write_dance(folder, truth_folder=truth, **SMALL)
    assert set(contents(tmp_path)) == {"mine.txt"}


def test_command_line_writes_or_reports_the_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--takes", "1", "--take-length", "2", "--val-length", "3", "--tests", "1", "--test-length", "2"]
    arguments = ["dance", str(tmp_path / "dance"), *sizes, "--truth", str(tmp_path / "truth")]
    monkeypatch.setattr(sys, "argv", ["synthetic", *arguments])
    run_main(dancers.main)
    assert len(contents(tmp_path / "dance")) == 2 * 2 + 2 * 3 + 1 + 2
    assert len(contents(tmp_path / "truth")) == 2
    with pytest.raises(SystemExit, match="2"):
        run_main(dancers.main)
    assert "not an empty folder" in capsys.readouterr().err
