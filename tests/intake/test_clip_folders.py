"""Folders of clips: clips are found at any depth, in numerical order, and read exactly. Each error is one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from src.base.console import UserError
from src.intake.clip_folders import list_clip_folders
from src.intake.sources import open_source
from tests.dance_images import write_folder, write_zip
from tests.pushing_clips import FOLDERS, KEYS, clip, clip_files, png, pushing_files, table

Files = dict[str, bytes]
CLIP = "train/traj_2_to_9/9"


@pytest.mark.parametrize("kind", ["zip", "folder"])
@pytest.mark.parametrize("top", ["", "a/processed_data/"])
def test_clips_are_listed_in_order_and_read_exactly(tmp_path: Path, kind: str, top: str) -> None:
    litter = {f"{top}train/.DS_Store": b"", f"__MACOSX/{top}train/traj_2_to_9/8/._0.png": b"", f"{top}readme.txt": b""}
    files = pushing_files(top) | litter
    path = write_zip(tmp_path / "a.zip", files) if kind == "zip" else write_folder(tmp_path / "a", files)
    source = open_source(path)
    listing = list_clip_folders(source)
    assert (listing.unused, listing.camera, listing.held_out) == ((f"{top}readme.txt",), None, False)
    for split, folders in FOLDERS.items():
        for item, folder in zip(listing.clips[split], folders, strict=True):
            frames, actions, positions = clip(KEYS[f"{split}/{folder}"])
            content = item.read(source)
            np.testing.assert_array_equal(content.frames, np.moveaxis(frames, 3, 1))
            np.testing.assert_array_equal(content.conditions, np.hstack([actions, positions]))
            assert content.conditions.dtype == np.float32


def without(*beginnings: str) -> Callable[[Files], Files]:
    return lambda files: {name: data for name, data in files.items() if not name.startswith(beginnings)}


def added(*names: str) -> Callable[[Files], Files]:
    return lambda files: files | dict.fromkeys(names, b"")


LISTED = {
    "29 frames": (without(f"{CLIP}/29.png"), f"{CLIP} lacks 29.png; needed: 30 frames and actions.csv and endeff"),
    "two missing": (without(f"{CLIP}/0.png", f"{CLIP}/29.png"), f"{CLIP} lacks 0.png and 1 more; needed"),
    "hole in the frames": (without(f"{CLIP}/7.png"), f"{CLIP} lacks 7.png;"),
    "31 frames": (added(f"{CLIP}/30.png"), f"{CLIP}/30.png is unexpected; needed: .*; most clips have 30 frames"),
    "no actions": (without(f"{CLIP}/actions.csv"), f"{CLIP} lacks actions.csv;"),
    "no positions": (without(f"{CLIP}/endeff"), f"{CLIP} lacks endeffector_positions.csv;"),
    "other table": (added(f"{CLIP}/Actions.csv"), f"{CLIP}/Actions.csv is unexpected; needed: .*actions.csv and"),
    "zeros before": (added(f"{CLIP}/07.png"), f"{CLIP}/07.png and 7.png are both number 7"),
    "picture among the clips": (added("test/0.png"), "test/0.png is unexpected; needed: traj_A_to_B/N/"),
    "the same clip": (
        added(
            *(f"test/traj_0_to_1/00/{n}.png" for n in range(30)),
            "test/traj_0_to_1/00/actions.csv",
            "test/traj_0_to_1/00/endeffector_positions.csv",
        ),
        "test/traj_0_to_1/.* and traj_0_to_1/.* are both clip 0",
    ),
    "clip by a name": (added("test/traj_0_to_1/one/0.png"), "test/traj_0_to_1/one/0.png is unexpected"),
    "folder in a clip": (added(f"{CLIP}/old/0.png"), f"{CLIP}/old/0.png is unexpected"),
    "no test": (without("test/"), "test is missing or empty; needed: clips in train and test"),
    "two data sets": (
        added("b/train/traj_0_to_0/0/0.png"),
        r"holds two data sets, in \. and b; needed: one",
    ),
}


@pytest.mark.parametrize("case", LISTED)
def test_error_in_the_names_is_reported(tmp_path: Path, case: str) -> None:
    spoil, needed = LISTED[case]
    files = dict.fromkeys(pushing_files(), b"")
    with pytest.raises(UserError, match=needed) as caught:
        list_clip_folders(open_source(write_zip(tmp_path / "a.zip", spoil(files))))
    assert "\n" not in str(caught.value)


_, ACTIONS, POSITIONS = clip(1)
READ = {  # case -> file of a clip, its content, the expected error
    "29 rows": (
        "actions.csv",
        table(ACTIONS[:29]),
        "actions.csv holds 29 lines of 4 numbers; needed: 30 lines of numbers",
    ),
    "31 rows": ("actions.csv", table(np.vstack([ACTIONS, ACTIONS[:1]])), "actions.csv holds 31 lines of 4 numbers"),
    "3 columns": (
        "actions.csv",
        table(ACTIONS[:, :3]),
        "actions.csv holds 30 lines of 3 numbers; needed: 30 lines of 4",
    ),
    "4 columns": (
        "endeffector_positions.csv",
        table(ACTIONS),
        "positions.csv holds 30 lines of 4 numbers; needed: 30 lines of 3 numbers",
    ),
    "ragged": ("actions.csv", table(ACTIONS[:29]) + b"1,2,3\n", "actions.csv holds 30 lines of 3 or 4 numbers"),
    "empty": ("actions.csv", b"", "actions.csv holds 0 lines of no numbers"),
    "two headers": (
        "actions.csv",
        b"x,y,z,open\nm,m,m,\n" + table(ACTIONS),
        "actions.csv line 1 column 1 holds 'x', which is not a number",
    ),
    "underscore": (
        "actions.csv",
        table(ACTIONS).replace(b",", b",1_", 1),
        "actions.csv line 1 column 2 holds '1_.*', which is not a number",
    ),
    "text": (
        "actions.csv",
        table(ACTIONS).replace(b",", b";", 1),
        "actions.csv line 1 column 1 holds '.*;.*', which is not",
    ),
    "no text": ("actions.csv", b"\xff\xfe1", "actions.csv line 1 column 1 holds .* is not a number"),
    "NaN": (
        "endeffector_positions.csv",
        table(POSITIONS * np.nan),
        "positions.csv line 1 column 1 holds 'nan', which is not a number",
    ),
    "too big": ("actions.csv", table(ACTIONS[:29]) + b"1,2,3,1e39\n", "actions.csv holds NaN or a number too large"),
    "small": ("4.png", png(np.zeros((48, 80, 3), np.uint8)), "4.png is 48 x 80 pixels .*; needed: 64 x 64; scale"),
    "no PNG": ("29.png", b"not found", "29.png is no picture of a known format"),
    "cut off": ("29.png", clip_files(1)["29.png"][:-15], "29.png is damaged or cut off"),
}


@pytest.mark.parametrize("case", READ)
def test_error_in_a_file_is_reported(tmp_path: Path, case: str) -> None:
    name, content, needed = READ[case]
    source = open_source(write_zip(tmp_path / "a.zip", pushing_files() | {f"{CLIP}/{name}": content}))
    first, second, *_ = list_clip_folders(source).clips["train"]
    first.read(source)
    with pytest.raises(UserError, match=f"^{CLIP}/.*{needed}") as caught:
        second.read(source)
    assert "\n" not in str(caught.value)


def test_lines_may_end_with_a_carriage_return(tmp_path: Path) -> None:
    files = pushing_files()
    for name in (f"{CLIP}/actions.csv", f"{CLIP}/endeffector_positions.csv"):
        files[name] = files[name].replace(b"\n", b"\r\n") + b"\r\n"
    source = open_source(write_zip(tmp_path / "a.zip", files))
    conditions = list_clip_folders(source).clips["train"][1].read(source).conditions
    np.testing.assert_array_equal(conditions, np.hstack([ACTIONS, POSITIONS]))


def padded(name: str) -> str:
    return "/".join(part.zfill(5) if part.isdecimal() else part for part in name.split("/"))


def from_one(name: str) -> str:
    folder, _, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}/frame_{int(stem) + 1:02}.{suffix}" if stem.isdecimal() else name


@pytest.mark.parametrize("change", [padded, from_one])
def test_clips_with_other_names_are_the_same(tmp_path: Path, change: Callable[[str], str]) -> None:
    renamed = {change(name): content for name, content in pushing_files().items()}
    plain = open_source(write_zip(tmp_path / "a.zip", pushing_files()))
    other = open_source(write_zip(tmp_path / "b.zip", renamed))
    for one, two in zip(list_clip_folders(plain).clips["train"], list_clip_folders(other).clips["train"], strict=True):
        np.testing.assert_array_equal(one.read(plain).frames, two.read(other).frames)
        np.testing.assert_array_equal(one.read(plain).conditions, two.read(other).conditions)


def test_files_that_are_neither_pictures_nor_tables_are_not_used(tmp_path: Path) -> None:
    extra = {f"{CLIP}/notes.txt": b"", "test/readme.md": b""}
    listing = list_clip_folders(open_source(write_zip(tmp_path / "a.zip", pushing_files() | extra)))
    assert listing.unused == tuple(extra)


def test_the_layout_of_denton_and_fergus_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their code writes processed_data/train and test, pictures alone, and counts the clips of a file from 1."""
    files: Files = {}
    for split, count in (("train", 21), ("test", 2)):
        for number in range(1, count + 1):
            folder = f"processed_data/{split}/traj_0_to_255/{number}"
            files |= {f"{folder}/{t}.png": clip_files(number % 5)[f"{t}.png"] for t in range(30)}
    source = open_source(write_zip(tmp_path / "a.zip", files))
    listing = list_clip_folders(source)
    assert {split: len(clips) for split, clips in listing.clips.items()} == {"train": 19, "validate": 2, "test": 2}
    assert listing.held_out and (listing.shape.num_action, listing.shape.num_position) == (0, 0)
    last = listing.clips["validate"][-1].read(source)
    np.testing.assert_array_equal(last.frames, np.moveaxis(clip(21 % 5)[0], 3, 1))
    assert last.conditions.shape == (30, 0)
    said = capsys.readouterr().out
    assert "no clip has actions.csv or endeffector_positions.csv: the clips are packed without these numbers\n" in said
    assert "the last 2 of 21 training clips are held out for validation (5%)\n" in said


def test_a_hole_in_the_numbers_of_clips_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = without(f"{CLIP}/")(pushing_files())
    assert len(list_clip_folders(open_source(write_zip(tmp_path / "a.zip", files))).clips["train"]) == 4
    said = "train: numbers of clips are missing at 1 places, such as behind traj_2_to_9/8\n"
    assert capsys.readouterr().out == said
