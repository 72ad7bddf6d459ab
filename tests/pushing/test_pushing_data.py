"""Packing of robot pushing: the arrays equal the source, frames keep their conditions, a killed packing resumes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from src.base.console import UserError
from src.base.systems import SYSTEMS
from src.dataset import open_data
from src.intake import chunks, clip_folders, pushing
from src.intake.clip_folders import ClipFolder
from src.intake.manifest import Manifest, PushingManifest
from src.intake.pushing import ClipContent
from src.intake.sources import Source
from src.packing import pack_images, pack_synthetic
from tests.dance_images import write_folder, write_zip
from tests.pushing_clips import FOLDERS, KEYS, NAMES, clip_record, expected_arrays, pushing_files, write_records

ROOT = Path(__file__).parents[2]
IN_FOLDERS = {split: [KEYS[f"{split}/{folder}"] for folder in folders] for split, folders in FOLDERS.items()}
RECORDS = {
    "train/traj_2_to_3.tfrecords": [3, 4],
    "train/traj_10_to_12.tfrecords": [0, 1, 2],
    "test/traj_0_to_1.tfrecords": [5, 6],
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "CHUNK", 2)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "pushing.zip", pushing_files())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def pack(source: Path, data: Path, **options: object) -> Manifest:
    return pack_images(source, "pushing", data_folder=data, **options)


def check_arrays(folder: Path, keys: dict[str, list[int]], *, negative: bool = False) -> None:
    expected = expected_arrays(keys)
    assert sorted(path.stem for path in folder.glob("*.npy")) == sorted(expected)
    for name, array in expected.items():
        found = np.load(folder / f"{name}.npy")
        assert found.dtype == (np.float32 if name.endswith("conditions") else np.uint8)
        np.testing.assert_array_equal(found, 255 - array if negative and name.endswith("frames") else array)


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_packed_clips_equal_what_was_written(tmp_path: Path, data: Path, kind: str) -> None:
    files = pushing_files("bair/processed_data/")
    source = write_zip(tmp_path / "a.zip", files) if kind == "zip" else write_folder(tmp_path / "a", files)
    manifest = pack(source, data)
    assert isinstance(manifest, PushingManifest)
    assert Manifest.load(data / "pushing") == PushingManifest.load(data / "pushing") == manifest
    assert (manifest.num_train, manifest.num_validate, manifest.num_test) == (5, 2, 2)
    assert (manifest.source.kind, manifest.camera, manifest.held_out) == (kind, None, False)
    check_arrays(data / "pushing", IN_FOLDERS)
    assert str(tmp_path) not in (data / "pushing" / "manifest.json").read_text()
    assert sorted(path.name for path in data.iterdir()) == ["pushing"]


def test_records_are_packed_as_their_camera_saw_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, keys = (
        write_records(tmp_path / "softmotion30_44k", RECORDS),
        {"train": [3, 4, 0, 1], "validate": [2], "test": [5, 6]},
    )
    manifests = [pack(source, tmp_path / camera, camera=camera) for camera in ("main", "aux1")]
    assert "the last 1 of 5 training clips are held out" in capsys.readouterr().out
    check_arrays(tmp_path / "main" / "pushing", keys)
    check_arrays(tmp_path / "aux1" / "pushing", keys, negative=True)
    assert [(manifest.camera, manifest.source.kind) for manifest in manifests] == [
        ("main", "records"),
        ("aux1", "records"),
    ]
    assert pack(source, tmp_path / "main") == manifests[0]
    assert "already packed" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"packed from .*camera main, asked for is .*camera aux1; give another DATASET"):
        pack(source, tmp_path / "main", camera="aux1")


def test_record_damaged_in_its_data_is_refused(tmp_path: Path, data: Path) -> None:
    source = write_records(tmp_path / "records", RECORDS)
    content = bytearray(clip_record(3) + clip_record(4))
    content[-300_000] ^= 1
    (source / "train/traj_2_to_3.tfrecords").write_bytes(content)
    place = len(clip_record(3))
    with pytest.raises(UserError, match=f"traj_2_to_3.tfrecords: record 1 at byte {place} is damaged: wrong checksum"):
        pack(source, data)
    assert not (data / "pushing").exists()
    with pytest.raises(UserError, match="pushing was interrupted while it was packed"):
        open_data("pushing", data)


def test_same_command_again_leaves_the_data_set_alone(
    source: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = pack(source, data)
    monkeypatch.setattr(clip_folders, "decode", None)
    capsys.readouterr()
    assert pack(source, data) == manifest
    assert capsys.readouterr().out == f"{data}/pushing is already packed\n"
    array = np.load(data / "pushing" / "test_conditions.npy", mmap_mode="r+")
    array[1, 2, 3] += 1
    array.flush()
    with pytest.raises(UserError, match=r"test_conditions.npy is not what was packed: .*; restore it, or delete"):
        pack(source, data)


def test_other_data_set_of_that_name_is_refused(tmp_path: Path, source: Path, data: Path) -> None:
    pack(source, data)
    other = write_zip(tmp_path / "other.zip", pushing_files("deeper/"))
    with pytest.raises(UserError, match=r"packed from pushing.zip, asked for is other.zip; give another DATASET"):
        pack(other, data)


KILLED = """
import os, signal, sys, time
from pathlib import Path
from src import packing
from src.intake import chunks, clip_folders, pushing
source, data = map(Path, sys.argv[1:])
read, pushing.CHUNK = clip_folders.ClipFolder.read, 2

def read_or_kill(clip, source):
    if clip.name == "test/traj_0_to_1/1":
        progress = data / ".pushing.partial" / chunks.PROGRESS
        while progress.read_text().count("\\n") < 4:  # the plan and 3 of the 5 chunks
            time.sleep(0.01)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return read(clip, source)

clip_folders.ClipFolder.read = read_or_kill
packing.pack_images(source, "pushing", data_folder=data)
"""


def log_reading(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    """Adds a line to `log` for every clip that any process reads."""
    read = ClipFolder.read

    def logged(clip: ClipFolder, source: Source) -> ClipContent:
        with log.open("a") as file:
            file.write(f"{clip.name}\n")
        return read(clip, source)

    monkeypatch.setattr(ClipFolder, "read", logged)


def test_killed_packing_resumes_where_it_was(
    tmp_path: Path, source: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, source, data], cwd=ROOT, check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    progress = data / ".pushing.partial" / chunks.PROGRESS
    sizes = [2, 2, 1, 2, 2]  # number of clips in each chunk
    done = [json.loads(line)["chunk"] for line in progress.read_text().splitlines()[1:]]
    log_reading(monkeypatch, tmp_path / "log")
    pack(source, data)
    names = (tmp_path / "log").read_text().split()
    assert 3 <= len(done) < 5
    assert f"resuming: {len(done)} chunks of 2" in capsys.readouterr().out
    assert len(names) == len(set(names)) == len(NAMES) - sum(sizes[number] for number in done)
    check_arrays(data / "pushing", IN_FOLDERS)


def test_packing_of_a_changed_source_starts_afresh(
    tmp_path: Path, source: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_zip(source, pushing_files() | {"test/traj_0_to_1/1/actions.csv": b"1,2,3,4\n"})
    with pytest.raises(UserError, match=r"test/traj_0_to_1/1/actions\.csv holds 1 lines of 4 numbers"):
        pack(source, data)
    assert (data / ".pushing.partial").exists()
    write_zip(source, pushing_files())
    log_reading(monkeypatch, tmp_path / "log")
    pack(source, data)
    assert "starting afresh" in capsys.readouterr().out
    assert sorted((tmp_path / "log").read_text().split()) == sorted(NAMES)


def test_systems_are_told_apart_when_they_are_opened(source: Path, data: Path, data_folder: Path) -> None:
    pack(source, data)
    assert open_data("pushing", data).frame_size == open_data("pushing", data).frame_size == (64, 64)
    assert open_data("tiny", data_folder).frame_size == (32, 64)
    with pytest.raises(UserError, match=r"pushing is a data set of the system pushing, needed: one of dance; name"):
        SYSTEMS["dance"].part("data").open_folder(data / "pushing")
    with pytest.raises(UserError, match=r"tiny is a data set of the system dance, needed: one of pushing"):
        SYSTEMS["pushing"].part("data").open_folder(data_folder / "tiny")


def test_synthetic_pushing_is_packed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"num_train": 3, "num_validate": 1, "num_test": 2}
    manifest = pack_synthetic("synthetic-pushing", "blocks", data_folder=data, seed=1, **options)
    assert (manifest.num_train, manifest.num_validate, manifest.num_test) == (3, 1, 2)
    assert manifest.source.kind == "synthetic"
    assert sorted(path.name for path in data.iterdir()) == ["blocks"]
    assert pack_synthetic("synthetic-pushing", "blocks", data_folder=data, seed=1, **options) == manifest
    assert capsys.readouterr().out.endswith("blocks is already packed\n")
    with pytest.raises(UserError, match="give another DATASET"):
        pack_synthetic("synthetic-pushing", "blocks", data_folder=data, seed=2, **options)


@pytest.mark.parametrize("case", ["short clip", "cut off"])
def test_command_ends_in_one_line_and_code_2(tmp_path: Path, data: Path, case: str) -> None:
    if case == "short clip":
        files = pushing_files()
        del files["test/traj_0_to_1/1/29.png"]
        source, needed = write_folder(tmp_path / "a", files), "test/traj_0_to_1/1 lacks 29.png"
    else:
        source, needed = write_records(tmp_path / "a", RECORDS), "record 1 at byte"
        os.truncate(source / "test/traj_0_to_1.tfrecords", len(clip_record(5)) + 1000)
    arguments = ["--source", source, "--dataset", "pushing", "--data-folder", data]
    done = subprocess.run(
        [sys.executable, "-m", "src.packing", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert (done.stderr.count("\n"), done.stderr[:7]) == (1, "error: ")
    assert needed in done.stderr
    assert not (data / "pushing").exists()


def test_conditions_are_standardised_by_the_training_clips(source: Path, data: Path) -> None:
    pack(source, data)
    opened, raw = open_data("pushing", data), expected_arrays(IN_FOLDERS)
    known = raw["train_conditions"].astype(np.float64).reshape(-1, 7)
    for split, clips in (("train", opened.train), ("validate", opened.validate), ("test", opened.test)):
        expected = (raw[f"{split}_conditions"] - known.mean(axis=0)) / known.std(axis=0)
        np.testing.assert_allclose(clips.conditions, expected, rtol=1e-5, atol=1e-6)
        assert clips.conditions.dtype == np.float32
        np.testing.assert_array_equal(clips.frames, raw[f"{split}_frames"])


def test_clips_without_conditions_are_opened(tmp_path: Path) -> None:
    """The clips of Denton and Fergus (2018) have pictures alone."""
    files = {name: data for name, data in pushing_files().items() if name.endswith(".png")}
    pack_images(write_zip(tmp_path / "a.zip", files), "robot", data_folder=tmp_path / "data")
    data = open_data("robot", tmp_path / "data")
    assert data.train.conditions.shape == (len(data.train.frames), 30, 0)
