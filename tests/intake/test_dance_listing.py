"""The competition's layout, tested with file names only. All valid names are listed in order; faults are reported."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.base.console import UserError
from src.intake.dance_listing import FOLDERS, Listing, list_images
from src.intake.sources import Member
from tests.dance_images import dance_names


@dataclass
class Names:
    """A source that has file names but no contents."""

    names: Iterable[str]
    path: Path = Path("dance.zip")
    members: dict[str, Member] = field(init=False)

    def __post_init__(self) -> None:
        self.members = {name: Member(1, 1) for name in self.names}


def listed(names: Iterable[str]) -> Listing:
    return list_images(Names(names), test_length=5)


@pytest.mark.parametrize("name", ["{}.png", "frame{}.png", "{:04}.png", "frame_{:04}.PNG", "Bild {}.png"])
@pytest.mark.parametrize("top", ["", "LAB4_Dataset/", "LAB4_Dataset/LAB4_Dataset/", "a/b/c/d/train/"])
def test_layouts_are_listed_in_numerical_order(top: str, name: str) -> None:
    names = [top + path for path in dance_names(num_train=12, num_val=3, test_length=5, name=name)]
    listing = listed(reversed(names))
    assert listing.prefix == top
    assert listing.num_tests == 2
    assert listing.images["train_frames"] == tuple(f"{top}train/train_img/{name.format(n)}" for n in range(12))
    assert listing.images["train_poses"] == tuple(f"{top}train/train_label/{name.format(n)}" for n in range(12))
    assert listing.images["val_poses"] == tuple(f"{top}val/val_label/{name.format(n)}" for n in range(3))
    assert listing.images["test_frames"] == tuple(f"{top}test/test_img/{k}/first.png" for k in range(2))
    poses = tuple(f"{top}test/test_label/{k}/{name.format(n)}" for k in range(2) for n in range(5))
    assert listing.images["test_poses"] == poses
    assert sorted(listing.names) == sorted(names)


@given(first=st.integers(0, 10**6), length=st.integers(2, 30), hole=st.integers(1, 28), order=st.randoms())
def test_any_numbering_is_listed_and_a_take_ends_at_a_hole(first: int, length: int, hole: int, order) -> None:
    fixed = [name for name in dance_names() if not name.startswith("train")]
    numbers = list(range(first, first + length))
    order.shuffle(numbers)
    train = [f"train/train_{kind}/{n}.png" for kind in ("img", "label") for n in numbers]
    expected = tuple(f"train/train_img/{n}.png" for n in range(first, first + length))
    assert listed(fixed + train).images["train_frames"] == expected
    assert listed(fixed + train).holes == {"train": (), "val": ()}
    if hole < length - 1:
        listing = listed(fixed + [name for name in train if not name.endswith(f"/{first + hole}.png")])
        assert listing.images["train_frames"] == (*expected[:hole], *expected[hole + 1 :])
        assert listing.holes["train"] == (hole,) and listing.alone == ()


def test_what_has_no_partner_is_left_out_and_leaves_a_hole() -> None:
    gone = ("train/train_img/3.png", "train/train_label/5.png", "val/val_label/0.png")
    listing = listed(name for name in dance_names() if name not in gone)
    assert listing.alone == ("train/train_img/5.png", "train/train_label/3.png", "val/val_img/0.png")
    assert listing.holes == {"train": (3, 4), "val": ()}
    numbers = [
        [name.rpartition("/")[2].partition(".")[0] for name in listing.images[key]]
        for key in ("train_frames", "train_poses")
    ]
    assert numbers[0] == numbers[1] and not {"3", "5"} & set(numbers[0])


def test_files_elsewhere_are_reported() -> None:
    listing = listed([*dance_names(), "readme.txt", "train/notes.csv"])
    assert listing.unused == ("readme.txt", "train/notes.csv")
    assert listing == replace(listed(dance_names()), unused=("readme.txt", "train/notes.csv"))


FAULTS = {  # case -> names to add, beginnings of names to remove, the expected error
    "most have no partner": (
        [],
        [f"val/val_label/{n}." for n in (1, 2, 3)],
        "have 1 numbers with both a frame and a pose, and val/val_img/1.png is alone; needed: 2, and most",
    ),
    "two names": (
        ["train/train_img/frame3.png"],
        [],
        r"train_img/3.png and train/train_img/frame3.png are both frame 3",
    ),
    "zeros before": (["val/val_img/03.png"], [], r"val_img/3.png and val/val_img/03.png are both frame 3"),
    "unexpected file": (["train/train_img/notes.txt"], [], r"train/train_img/notes.txt is unexpected"),
    "another format": (["val/val_label/4.gif"], [], r"val/val_label/4.gif is unexpected"),
    "JPEG beside PNG": (["val/val_label/3.JPG"], [], r"3.png and val/val_label/3.JPG are both frame 3"),
    "unexpected folder": (["train/train_img/old/0.png"], [], r"train/train_img/old/0.png is unexpected"),
    "one frame": (
        [],
        [f"val/val_{k}/{n}." for k in ("img", "label") for n in (0, 1, 2)],
        "val/val_img and val/val_label have 1 numbers with both",
    ),
    "no validation": ([], ["val/"], "val/val_img is missing or empty; needed: all of train/train_img, "),
    "no labels": ([], ["test/test_label/"], "test/test_label is missing or empty"),
    "no given frame": ([], ["test/test_img/1/"], r"test/test_img/1 holds 0 files \(nothing\); needed: one .png"),
    "two given frames": (["test/test_img/0/b.png"], [], r"test/test_img/0 holds 2 files \(first.png, b.png\)"),
    "given frame of another kind": (["test/test_img/2/0.gif"], [], r"test/test_img/2 holds 1 files \(0.gif\); needed"),
    "one pose too few": (
        [],
        ["test/test_label/1/3."],
        r"test_label/1 holds 4 poses, no 3.png; needed: 5, the same number for each test",
    ),
    "one pose too many": (["test/test_label/0/5.png"], [], "test/test_label/0 holds 6 poses; needed: 5"),
    "hole in a test": (["test/test_label/0/7.png"], ["test/test_label/0/2."], "test_label/0: number 2 and 2 more are"),
    "test from 2": (
        ["test/test_label/0/5.png", "test/test_label/0/6.png"],
        ["test/test_label/0/0.", "test/test_label/0/1."],
        "test_label/0 starts at number 2; needed",
    ),
    "test without poses": (["test/test_img/2/0.png"], [], "test/test_label/2 holds 0 poses"),
    "test left out": (["test/test_img/3/0.png"], [], "test/test_img/2 holds 0 files"),
    "file among the tests": (
        ["test/test_label/0.png"],
        [],
        r"test/test_label/0.png is unexpected; needed .*folders 0, 1",
    ),
    "test by a name": (["test/test_img/first/0.png"], [], r"test/test_img/first/0.png is unexpected"),
    "folder in a test": (["test/test_label/0/a/0.png"], [], r"test/test_label/0/a/0.png is unexpected"),
    "two tops": (["copy/train/train_img/0.png"], [], r"dance.zip holds two data sets, in \. and copy; needed: one"),
    "nothing": ([], [""], "dance.zip holds none of the folders train/train_img"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named(fault: str) -> None:
    more, less, message = FAULTS[fault]
    names = [name for name in dance_names() if not name.startswith(tuple(less))]
    with pytest.raises(UserError, match=message) as caught:
        listed([*names, *more])
    assert "\n" not in str(caught.value)


def test_every_folder_is_needed() -> None:
    for folder in FOLDERS:
        with pytest.raises(UserError, match=f"dance.zip: a/{folder} is missing or empty"):
            listed(f"a/{name}" for name in dance_names() if not name.startswith(folder))
