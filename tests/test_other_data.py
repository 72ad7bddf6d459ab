"""Data that are not the competition's, by the commands alone: another size and length, JPEG, other pose colours."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src import cost, packing, submission, tester, trainer
from src.config import from_json, load_config
from src.dance.skeleton import LIMBS, limb_darkness, palette_of
from src.intake.manifest import DanceManifest, Manifest
from src.synthetic.dancers import dance_take
from tests.dance_images import dance_names, png, write_folder, write_zip
from tests.pushing_clips import NAMES, clip, table

SIZE, LENGTH = (64, 128), 300
Outcome = Callable[..., tuple[int, str]]


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def drawn(number: int, *, pose: bool) -> bytes:
    """A frame, or the pose of that frame on white: thick lines in orange and violet, which no limb has."""
    pixels = np.full((*SIZE, 3), 255 if pose else 40, np.uint8)
    column = 20 + number % 80
    pixels[10:50, column : column + 6] = (240, 120, 0) if pose else (160, 120, 90)
    pixels[30:36, column - 15 : column + 20] = (120, 0, 200) if pose else (90, 120, 160)
    return jpeg(pixels)


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a zip of such a data set and a configuration of a tiny run on it."""
    names = dance_names(num_train=12, num_val=6, num_tests=1, test_length=LENGTH, name="{}.JPG")
    names = [name.replace("first.png", "0.jpeg") for name in names]
    files = {name: drawn(int(Path(name).stem), pose="label" in name) for name in names}
    write_zip(tmp_path / "others.zip", files)
    (tmp_path / "configs").mkdir()
    model = (
        'dataset = "others"\n[model]\nname = "reference_cvae"\nwidth = 8\npatch = 4\nnum_levels = 2\nnum_blocks = 1\n'
    )
    training = '[training]\nnum_epochs = 1\nclips_per_epoch = 4\nbatch_size = 2\nwarmup_steps = 0\ndevice = "cpu"\n'
    (tmp_path / "configs" / "tiny.toml").write_text(model + training)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command that must succeed, and returns what it prints."""

    def run(main: Callable[[], None], *arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as stop:
            assert not stop.code, capsys.readouterr()
        return capsys.readouterr().out

    return run


def test_another_size_length_format_and_palette_go_all_the_way(
    others: Path, outcome: Outcome, said: Callable[..., str]
) -> None:
    out = said(packing.main, "--source", "others.zip", "--dataset", "others", "--size", "64x128")
    assert f"RGB: {2 * (12 + 6) + 1 + LENGTH} of JPEG, such as test/test_img/0/0.jpeg\n" in out
    assert "aspect ratio" not in out
    manifest = Manifest.load(others / "data" / "others")
    assert isinstance(manifest, DanceManifest)
    assert (manifest.frame_size, manifest.test_length, manifest.palette) == (SIZE, LENGTH, "unknown")

    assert cost.facts_of(load_config(others / "configs" / "tiny.toml"), others / "data").frame_size == SIZE
    out = said(trainer.main, "configs/tiny.toml")
    assert out.count("runs/tiny: no clip is mirrored: the pose images have other colours than the competition's") == 1
    config = from_json((others / "runs" / "tiny" / "config.json").read_bytes(), "test")
    assert (config.kl_weight.stop, config.augmentation.mirror, config.evaluation.mirror) == (8.138e-5, False, False)
    assert "step 2 of 2, finished" in said(trainer.main, "configs/tiny.toml")  # the same command: nothing is refused

    assert "frames 1-5" in said(tester.main, "evaluate", "tiny", "--all")
    refused = outcome(tester.main, "evaluate", "tiny", "--set", "evaluation.mirror=true")
    assert (refused[0], refused[1].count("\n")) == (2, 1) and "evaluation.mirror = true: the pose images" in refused[1]
    assert f"1 sequences of {LENGTH} frames of 64 x 128" in said(tester.main, "submission", "tiny")
    path = others / "submissions" / "tiny.csv"
    header, first, *rest = path.read_text().splitlines()
    assert header == ",".join(["id", *map(str, range(3 * 64 * 128))])
    given = np.load(others / "data" / "others" / "test_frames.npy").reshape(-1)
    assert first == ",".join(map(str, [0, *given])) and len(rest) == LENGTH - 1

    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    valid = f"valid: {LENGTH} rows, 1 sequences, sha256 {sha256}; {LENGTH} frames of 64 x 128 a sequence, by "
    assert said(submission.main, "check", path) == f"{valid}{path.with_suffix('.json')}\n"
    assert said(submission.main, "check", path, "--dataset", "others") == f"{valid}data/others\n"
    path.with_suffix(".json").unlink()
    assert outcome(submission.main, "check", path)[0] == 2  # by the competition's format, which it is not


def test_jpeg_pictures_of_a_person_s_own_are_drawn_from(others: Path, said: Callable[..., str]) -> None:
    said(packing.main, "--source", "others.zip", "--dataset", "others", "--size", "64x128")
    said(trainer.main, "configs/tiny.toml")
    poses = write_folder(others / "mine", {f"{n}.JPG": drawn(n, pose=True) for n in range(3)})
    (others / "mine.jpg").write_bytes(drawn(0, pose=False))
    out = said(tester.main, "predict", "tiny", "--frame", "mine.jpg", "--poses", poses, "--out", "out")
    assert "4 of JPEG" in out and "resized" not in out
    assert Image.open(others / "out" / "2.png").size == (128, 64)


def test_first_frames_are_read_as_packing_reads_them(
    others: Path, said: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    said(packing.main, "--source", "others.zip", "--dataset", "others", "--size", "64x128")
    with zipfile.ZipFile("others.zip") as archive:
        archive.extract("test/test_img/0/0.jpeg", "unpacked")
    found = submission.read_first_frames(others / "unpacked" / "test" / "test_img", SIZE)
    np.testing.assert_array_equal(found, np.load(others / "data" / "others" / "test_frames.npy"))
    assert "converted to 8-bit RGB: 1 of JPEG, such as " in capsys.readouterr().out


def test_a_size_that_the_model_cannot_draw_is_one_line(others: Path, outcome: Outcome) -> None:
    arguments = ("--source", "others.zip", "--dataset", "others", "--size", "36x72")
    assert outcome(packing.main, *arguments) == (0, "")
    code, errors = outcome(trainer.main, "configs/tiny.toml", "--set", "model.num_levels=3")
    assert (code, errors.count("\n")) == (2, 1)
    assert "reference_cvae cannot draw frames of 36 x 72 pixels; needed: multiples of 16" in errors


def pack(source: Path, **options: object) -> Manifest:
    return packing.pack_images(source, "others", data_folder=source.parent / "data", **options)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A data set of noise, 40 x 80 pixels, with 5 poses in each of two tests."""
    files = {name: png(key) for key, name in enumerate(dance_names())}
    return write_zip(tmp_path / "dance.zip", files)


def test_another_aspect_ratio_is_said(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(pictures, frame_size=(24, 40))
    said = "pictures of 40 x 80 become frames of 24 x 40 (height x width): the aspect ratio changes; SIZE=HxW packs"
    assert said in capsys.readouterr().out


def test_the_same_data_at_another_size_are_other_data(pictures: Path) -> None:
    small = pack(pictures, frame_size=(16, 32))
    assert small.shapes["test_poses"] == (2, 5, 3, 16, 32)
    assert pack(pictures, frame_size=(16, 32)) == small
    with pytest.raises(Exception, match=r"asked for is dance.zip, cuts to be found, 5 poses a test; give another"):
        pack(pictures)
    with pytest.raises(Exception, match="5 poses a test, frames of 16 x 32, frames 2 to 4 scored; give another"):
        pack(pictures, frame_size=(16, 32), scored_frames=(2, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "64"), "SIZE=64; needed: height x width in pixels, each from 8 to 1024, such as SIZE=64x128"),
        (("--size", "4x128"), "SIZE=4x128; needed: height x width"),
        (("--scored", "0-600"), "SCORED=0-600; needed: the first and the last frame that count"),
        (("--scored", "5-4"), "SCORED=5-4; needed"),
        (("--scored", "5-9"), "SCORED begins with frame 5; needed: below 4, the number of frames of a rollout"),
    ],
)
def test_sizes_and_scored_frames_that_cannot_be_are_one_line(
    arguments: tuple[str, ...], message: str, pictures: Path, outcome: Outcome
) -> None:
    folder = ("--data-folder", pictures.parent / "data")
    code, errors = outcome(packing.main, "--source", pictures, "--dataset", "others", *folder, *arguments)
    assert (code, errors.count("\n")) == (2, 1)
    assert message in errors


@pytest.mark.parametrize("source", ["synthetic", "synthetic-pushing"])
def test_a_size_without_effect_is_refused(source: str, tmp_path: Path, outcome: Outcome) -> None:
    arguments = ("--source", source, "--dataset", "x", "--data-folder", tmp_path, "--size", "64x128")
    expected = f"error: SIZE with SOURCE={source}; needed: SOURCE=FILE.zip or FOLDER, or leave it out\n"
    assert outcome(packing.main, *arguments) == (2, expected)


def test_the_palette_of_the_synthetic_dancers_is_the_competition_s() -> None:
    poses = np.stack([pose for _, pose in dance_take(seed=5, length=40)]).transpose(0, 3, 1, 2)
    assert palette_of(poses) == "competition"
    assert palette_of(poses[:, [2, 1, 0]]) == "unknown"  # red and blue exchanged
    assert palette_of(poses[:, [1, 2, 0]]) == "unknown"
    assert palette_of(255 - poses) == "unknown"  # on black
    assert palette_of(np.repeat(poses.mean(1, keepdims=True), 3, 1).astype(np.uint8)) == "unknown"  # grey
    assert palette_of(np.full_like(poses, 255)) == "unknown"


def test_one_colour_of_the_palette_is_not_the_palette() -> None:
    poses = np.full((3, 3, 32, 64), 255, np.uint8)
    poses[:, :, 10:20, 30] = np.array(LIMBS[8][2], np.uint8)[:, None]
    assert palette_of(poses) == "unknown"
    assert len(limb_darkness()) == len(LIMBS)


@pytest.mark.parametrize("part", ["train", "val"])
def test_the_palette_of_the_real_sample_is_the_competition_s(part: str, sample: Path) -> None:
    with zipfile.ZipFile(sample) as archive:
        names = [name for name in archive.namelist() if f"{part}_label/" in name and name.endswith(".png")][::10]
        poses = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names])
    assert palette_of(poses.transpose(0, 3, 1, 2)) == "competition"
    assert palette_of(poses.transpose(0, 3, 1, 2)[:, [2, 1, 0]]) == "unknown"


def test_clips_of_another_robot_are_packed_as_they_are(tmp_path: Path) -> None:
    """12 frames of 32 x 48 as grey PNG and JPEG, 2 numbers for what it is told and 1 for where it is."""
    files: dict[str, bytes] = {}
    for key, name in enumerate(NAMES):
        frames, actions, positions = clip(key)
        for number in range(12):
            picture = Image.fromarray(frames[number, :32, :48])
            file = io.BytesIO()
            picture.convert("L").save(file, "PNG")
            files[f"{name}/{number}.png" if number else f"{name}/0.jpg"] = (
                file.getvalue() if number else jpeg(np.asarray(picture))
            )
        files[f"{name}/actions.csv"] = table(actions[:12, :2])
        files[f"{name}/endeffector_positions.csv"] = table(positions[:12, :1])
    manifest = packing.pack_images(write_zip(tmp_path / "a.zip", files), "robot", data_folder=tmp_path / "data")
    found = json.loads(manifest.model_dump_json())
    assert (found["clip_length"], found["frame_size"], found["num_action"], found["num_position"]) == (
        12,
        [32, 48],
        2,
        1,
    )
    data = tmp_path / "data" / "robot"
    assert np.load(data / "train_frames.npy").shape == (5, 12, 3, 32, 48)
    conditions = np.load(data / "test_conditions.npy")
    _, actions, positions = clip(len(NAMES) - 2)
    np.testing.assert_array_equal(conditions[0], np.hstack([actions[:12, :2], positions[:12, :1]]))
    assert Manifest.load(data).facts.network == {"height": 32, "width": 48, "num_action": 2, "num_position": 1}
