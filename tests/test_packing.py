"""Packing: arrays equal a plain loop, an interrupted run is resumed, what is wrong leaves no data set behind."""

import errno
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src import packing
from src.base.console import UserError
from src.intake import chunks, dance
from src.intake.manifest import Manifest
from src.packing import pack_images, pack_synthetic
from tests.dance_images import dance_files, dance_names, png, write_folder, write_zip
from tests.packers import PACKERS

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dance, "CHUNK", 3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "dance.zip", dance_files())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def pack(source: Path, data: Path, **options: object) -> Manifest:
    return pack_images(source, "dance", data_folder=data, **{"test_length": 5} | options)


def plain_loop(files: dict[str, bytes], folder: str, count: int) -> np.ndarray:
    """Pictures 0 .. count - 1 of a folder (count, 3, 32, 64) uint8, as a person would read them."""
    frames = []
    for number in range(count):
        image = Image.open(io.BytesIO(files[f"{folder}/{number}.png"])).convert("RGB").resize((64, 32), Image.BILINEAR)
        frames.append(np.moveaxis(np.array(image), 2, 0))
    return np.stack(frames)


@pytest.mark.parametrize("size", [(32, 64), (40, 80), (96, 128)])
@pytest.mark.parametrize("kind", ["zip", "tar", "folder"])
def test_packed_arrays_equal_a_plain_loop(tmp_path: Path, data: Path, kind: str, size: tuple[int, int]) -> None:
    files = dance_files(size=size)
    nested = {f"LAB4_Dataset/LAB4_Dataset/{name}": content for name, content in files.items()}
    source = PACKERS[kind](tmp_path, nested)
    manifest = pack(source, data, cuts=(3,))
    assert Manifest.load(data / "dance") == manifest
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in (data / "dance").glob("*.npy")}
    for part, count in (("train", 7), ("val", 4)):
        np.testing.assert_array_equal(arrays[f"{part}_frames"], plain_loop(files, f"{part}/{part}_img", count))
        np.testing.assert_array_equal(arrays[f"{part}_poses"], plain_loop(files, f"{part}/{part}_label", count))
    first = {f"{k}.png": files[f"test/test_img/{k}/first.png"] for k in range(2)}
    np.testing.assert_array_equal(arrays["test_frames"], plain_loop({f"x/{n}": c for n, c in first.items()}, "x", 2))
    poses = [plain_loop(files, f"test/test_label/{k}", 5) for k in range(2)]
    np.testing.assert_array_equal(arrays["test_poses"], np.stack(poses))
    assert (manifest.num_train, manifest.num_val, manifest.num_tests, manifest.test_length) == (7, 4, 2, 5)
    assert (manifest.image_size, manifest.source.kind, manifest.source.name) == (size, kind, source.name)
    assert (manifest.cuts, manifest.train_takes, manifest.val_takes) == ("declared", ((0, 3), (3, 7)), ((0, 4),))
    assert str(tmp_path) not in (data / "dance" / "manifest.json").read_text()
    assert not list(data.glob(".*.partial"))


def test_same_pictures_give_the_same_fingerprint_from_zip_and_folder(tmp_path: Path, source: Path) -> None:
    folder = write_folder(tmp_path / "folder", dance_files(dance_names()))
    manifests = [pack(path, tmp_path / f"data{n}") for n, path in enumerate((source, folder))]
    assert manifests[0].fingerprint == manifests[1].fingerprint
    assert manifests[0].source.fingerprint != manifests[1].source.fingerprint


def test_same_command_again_leaves_the_data_set_alone(
    source: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = pack(source, data)
    monkeypatch.setattr(dance, "decode", None)
    capsys.readouterr()
    assert pack(source.rename(source.with_name("moved.zip")), data) == manifest
    assert capsys.readouterr().out == f"{data}/dance is already packed\n"


def test_other_data_set_of_that_name_is_refused(tmp_path: Path, source: Path, data: Path) -> None:
    pack(source, data, cuts=(3,))
    other = write_zip(tmp_path / "other.zip", dance_files(size=(48, 80)))
    for path, options in ((other, {"cuts": (3,)}), (source, {"cuts": (4,)}), (source, {"cuts": ()}), (source, {})):
        with pytest.raises(
            UserError,
            match=rf"packed from dance.zip, cuts declared: 3, asked for is {path.name}, .*give another DATASET",
        ):
            pack(path, data, **options)
    assert Manifest.load(data / "dance").train_takes == ((0, 3), (3, 7))


def test_array_that_changed_since_is_refused(source: Path, data: Path) -> None:
    pack(source, data)
    array = np.load(data / "dance" / "val_frames.npy", mmap_mode="r+")
    array[1, 2, 3, 4] ^= 1
    array.flush()
    with pytest.raises(UserError, match=r"dance/val_frames.npy is not what was packed: .*; restore it, or delete"):
        pack(source, data)


def _count_decoded(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    """Lets every decoded picture leave a line in `log`, whichever process decodes it."""
    decode = dance.decode

    def logged(content: bytes, name: str, size: tuple[int, int]) -> np.ndarray:
        with log.open("a") as file:
            file.write(f"{name}\n")
        return decode(content, name, size)

    monkeypatch.setattr(dance, "decode", logged)


KILLED = """
import os, signal, sys, time
from pathlib import Path
from src import packing
from src.intake import chunks, dance
source, data = map(Path, sys.argv[1:])
decode, dance.CHUNK = dance.decode, 3

def decode_or_kill(content, name, size):
    if name == "test/test_label/1/4.png":
        progress = data / ".dance.partial" / chunks.PROGRESS
        while progress.read_text().count("\\n") < 9:  # the plan and 8 of the 15 chunks
            time.sleep(0.01)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return decode(content, name, size)

dance.decode = decode_or_kill
packing.pack_images(source, "dance", data_folder=data, test_length=5)
"""


def test_killed_packing_resumes_where_it_was(
    tmp_path: Path, source: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, source, data], cwd=ROOT, check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert not (data / "dance").exists()
    progress = data / ".dance.partial" / chunks.PROGRESS
    sizes = [3, 3, 1, 3, 3, 1, 3, 1, 3, 1, 2, 3, 3, 3, 1]  # of the chunks, in the order of the arrays
    done = [json.loads(line)["chunk"] for line in progress.read_text().splitlines()[1:]]
    with progress.open("a") as file:
        file.write("1")  # a line cut off
    _count_decoded(monkeypatch, tmp_path / "log")
    manifest = pack(source, data)
    names = (tmp_path / "log").read_text().split()
    assert f"resuming: {len(done)} chunks" in capsys.readouterr().out
    assert 8 <= len(done) < 15
    assert len(names) == len(set(names)) == 34 - sum(sizes[number] for number in done)
    assert manifest == pack(source, tmp_path / "unbroken")


def _another_number(line: bytes) -> bytes:
    """Returns a line of progress.txt in which one digit of the chunk's number has another value."""
    place = line.index(b'"chunk":') + 8
    return line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]


@pytest.mark.parametrize("spoiled", ["progress", "array", "other kind of line"])
def test_what_has_changed_in_an_unfinished_packing_is_packed_again(
    tmp_path: Path, source: Path, data: Path, capsys: pytest.CaptureFixture[str], spoiled: str
) -> None:
    write_zip(source, dance_files() | {"test/test_label/1/4.png": b"no picture"})
    with pytest.raises(UserError, match="is no picture"):
        pack(source, data)
    partial = data / ".dance.partial"
    lines = (partial / chunks.PROGRESS).read_bytes().splitlines()
    plan = json.loads(lines[0])
    whole = write_zip(source, dance_files())
    plan["source"] = packing.open_source(whole).fingerprint([], "")  # as if the pictures were whole
    if spoiled == "progress":
        lines[1:] = map(_another_number, lines[1:])
    elif spoiled == "array":
        flipped = np.load(partial / "train_frames.npy", mmap_mode="r+")
        flipped[...] ^= 1
        flipped.flush()
    else:
        lines[1:] = [b"%d" % number for number in range(15)]
    (partial / chunks.PROGRESS).write_bytes(b"\n".join([json.dumps(plan).encode(), *lines[1:], b""]))
    assert pack(source, data) == pack(source, tmp_path / "unbroken")
    said = capsys.readouterr().out
    assert ("chunks have changed since they were written; they are packed again" in said) == (spoiled == "array")


def test_packing_of_a_changed_source_starts_afresh(
    tmp_path: Path, source: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_zip(source, dance_files() | {"test/test_label/1/4.png": b"no picture"})
    with pytest.raises(UserError, match="is no picture"):
        pack(source, data)
    assert (data / ".dance.partial").exists()
    write_zip(source, dance_files())
    _count_decoded(monkeypatch, tmp_path / "log")
    pack(source, data)
    assert "starting afresh" in capsys.readouterr().out
    assert len((tmp_path / "log").read_text().split()) == 34


def test_full_disk_leaves_what_can_be_resumed(source: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(chunks.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            pack(source, data)
    assert not (data / "dance").exists()
    pack(source, data)


def test_too_little_room_is_told_before_the_work(source: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError, match=r"0 MiB free; needed: .* MiB; free some"):
        pack(source, data)


def test_second_packing_at_once_is_refused(source: Path, data: Path) -> None:
    data.mkdir()
    with (data / ".dance.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="data/dance is in use by another process"):
            pack(source, data)
        pack_images(source, "other", data_folder=data, test_length=5)
    pack(source, data)


def test_words_of_make_and_litter_are_named(source: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^SOURCE=kaggle is a word of make; run: make data SOURCE=kaggle"):
        pack_images(Path("kaggle"), "x", data_folder=data)
    write_zip(source, dance_files() | {"Thumbs.db": b"x", "train/train_img/.0.png.swp": b"x"})
    pack(source, data)
    assert "left out: 2 files or folders of other programs, such as Thumbs.db" in capsys.readouterr().out


@pytest.mark.parametrize("cuts", [None, (5,)])
def test_a_take_ends_where_a_number_is_missing(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], cuts: tuple[int, ...] | None
) -> None:
    files = dance_files()
    whole = pack_images(write_zip(tmp_path / "whole.zip", files), "whole", data_folder=data, cuts=())
    frames = np.load(data / "whole" / "train_frames.npy")
    left = {name: content for name, content in files.items() if name != "train/train_img/3.png"}
    source = write_zip(tmp_path / "hole.zip", left)
    for _ in range(2):  # the second time it is packed already
        manifest = pack_images(source, "hole", data_folder=data, cuts=cuts)
    assert manifest.num_train == whole.num_train - 1
    assert manifest.train_takes == ((0, 3), (3, 6)) if cuts is None else ((0, 3), (3, 5), (5, 6))
    assert np.array_equal(np.load(data / "hole" / "train_frames.npy"), np.delete(frames, 3, axis=0))
    said = capsys.readouterr().out
    assert "left out: 1 frames without a pose or poses without a frame, such as train/train_label/3.png" in said
    assert "numbers are missing at 1 places; a take ends at each of them" in said and "is already packed" in said


SPOILED = {
    "odd size": (
        {"train/train_img/5.png": png(1, size=(48, 80))},
        "train_img/5.png is 48 x 80 .*train_img/0.png is 40 x 80; needed: one aspect ratio",
    ),
    "pose of another shape": ({"train/train_label/0.png": png(1, size=(40, 64))}, "train_label/0.png is 40 x 64"),
    "test of another size": ({"test/test_img/1/first.png": png(1, size=(80, 40))}, "test_img/1/first.png is 80 x 40"),
    "cut off": ({"val/val_img/2.png": png(1)[:-20]}, "val/val_img/2.png is damaged or cut off"),
    "text": ({"test/test_label/0/3.png": b"not found"}, "test/test_label/0/3.png is no picture of a known format"),
    "another length": (
        {"test/test_label/1/5.png": png(1)},
        "test/test_label/1 holds 6 poses, 5.png too many; needed: 5",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_spoiled_source_is_refused(tmp_path: Path, data: Path, case: str) -> None:
    changes, message = SPOILED[case]
    source = write_folder(tmp_path / "images", dance_files() | changes)
    with pytest.raises(UserError, match=message) as caught:
        pack(source, data)
    assert "\n" not in str(caught.value)
    assert not (data / "dance").exists()


def test_cuts_out_of_range_are_refused_before_the_work(source: Path, data: Path) -> None:
    with pytest.raises(UserError, match="CUTS=3,7; needed: ascending numbers from 1 to 6"):
        pack(source, data, cuts=(3, 7))
    assert [path.name for path in data.iterdir()] == []


def test_a_data_set_needs_a_name(source: Path, data: Path) -> None:
    with pytest.raises(UserError, match="no data set name is given; needed: DATASET=name"):
        pack_images(source, "", data_folder=data)


def test_a_source_whose_content_changed_is_told_without_hashes(source: Path, data: Path) -> None:
    pack(source, data)
    write_zip(source, dance_files(size=(48, 80)))
    with pytest.raises(UserError, match=r"asked for is dance.zip, .*, whose content is another; give") as caught:
        pack(source, data)
    assert "(zip, " not in str(caught.value)


@pytest.mark.parametrize("name", [".hidden", "a/b", "../a", "a b", "-a", "a" * 101])
def test_name_that_is_no_plain_folder_is_refused(source: Path, data: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"^DATASET=.*; needed: up to 100 letters"):
        pack_images(source, name, data_folder=data, test_length=5)
    assert not data.exists()


def test_files_elsewhere_are_reported(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(write_zip(tmp_path / "a.zip", dance_files() | {"readme.txt": b"hello", "__MACOSX/._0": b""}), data)
    assert "not used: 1 files that do not belong to the data set, such as readme.txt\n" in capsys.readouterr().out


def test_synthetic_dancers_are_packed_with_their_cuts(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"seed": 1, "num_takes": 3, "take_length": 8, "val_length": 6, "num_tests": 1, "test_length": 5}
    manifest = pack_synthetic("synthetic", "demo", data_folder=data, **options)
    assert (manifest.cuts, manifest.train_takes) == ("synthetic", ((0, 8), (8, 16), (16, 24)))
    assert (manifest.num_val, manifest.num_tests, manifest.test_length) == (6, 1, 5)
    assert sorted(path.name for path in data.iterdir()) == ["demo"]
    assert pack_synthetic("synthetic", "demo", data_folder=data, **options) == manifest
    assert capsys.readouterr().out.endswith("demo is already packed\n")
    with pytest.raises(UserError, match="give another DATASET"):
        pack_synthetic("synthetic", "demo", data_folder=data, **options | {"seed": 2})


def command(*arguments: object, main: Callable[[], None] = packing.main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["packing", *map(str, arguments)])
    main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source", ""], "no source is given; needed: SOURCE="),
        (["--source", "a.zip", "--cuts", "630;1260"], "CUTS='630;1260'; needed: frame numbers"),
        (
            ["--source", "a.zip", "--seed", "3"],
            "--seed with SOURCE=a.zip; needed: SOURCE=synthetic or synthetic-pushing",
        ),
        (
            ["--source", "a.zip", "--test-length", "1"],
            "argument --test-length: '1'; needed: a whole number from 2",
        ),
        (
            ["--source", "synthetic", "--cuts", "5"],
            "CUTS with SOURCE=synthetic; needed: SOURCE=FILE.zip or FOLDER, or leave it out",
        ),
    ],
)
def test_options_without_effect_are_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        command("--dataset", "dance", "--data-folder", data, *arguments, monkeypatch=monkeypatch)
    assert not data.exists()


def test_command_packs_as_it_is_told(source: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--source", source, "--dataset", "dance", "--data-folder", data, "--test-length", 5)
    command(*options, "--cuts", "2,5", monkeypatch=monkeypatch)
    assert Manifest.load(data / "dance").train_takes == ((0, 2), (2, 5), (5, 7))
    shutil.rmtree(data / "dance")
    command(*options, "--cuts", "none", monkeypatch=monkeypatch)
    assert json.loads((data / "dance" / "manifest.json").read_text())["train_takes"] == [[0, 7]]


@pytest.mark.parametrize("case", ["missing", "truncated", "unequal tests"])
def test_command_ends_in_one_line_and_code_2(tmp_path: Path, source: Path, data: Path, case: str) -> None:
    if case == "missing":
        source.unlink()
    elif case == "truncated":
        os.truncate(source, source.stat().st_size // 2)
    else:
        write_zip(source, dance_files([name for name in dance_names() if name != "test/test_label/1/4.png"]))
    needed = {
        "missing": "does not exist",
        "truncated": "truncated",
        "unequal tests": "test/test_label/1 holds 4 poses, no 4.png; needed: 5, without holes, the same",
    }[case]
    arguments = ["--source", source, "--dataset", "dance", "--data-folder", data]
    done = subprocess.run(
        [sys.executable, "-m", "src.packing", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert needed in done.stderr
    assert not (data / "dance").exists()


def test_real_sample_is_cut_where_its_takes_meet(sample: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dance, "CHUNK", 512)
    manifest = pack_images(sample, "mini", data_folder=data)
    assert manifest.train_takes == ((0, 630), (630, 1260), (1260, 1890))
    assert manifest.val_takes == ((0, 630),)
    assert (manifest.num_tests, manifest.test_length, manifest.cuts) == (2, 630, "found")


def test_a_camera_that_there_is_not_is_one_line(tmp_path: Path, outcome: Callable[..., tuple[int, str]]) -> None:
    arguments = ("--source", tmp_path, "--dataset", "x", "--data-folder", tmp_path / "data", "--camera", "side")
    assert outcome(packing.main, *arguments) == (2, "error: CAMERA=side; needed: one of main, aux1\n")
