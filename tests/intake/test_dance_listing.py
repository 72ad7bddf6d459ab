"""The competition's layout, tested with file names only. All valid names are listed in order; faults are reported."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.base.console import UserError
from src.intake.dance_listing import FOLDERS, Listing, list_images
from src.intake.pairing import EMPTY
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
    assert listed(fixed + train).cuts == {"train": (), "val": ()}
    if hole < length - 1:
        listing = listed(fixed + [name for name in train if not name.endswith(f"/{first + hole}.png")])
        assert listing.images["train_frames"] == (*expected[:hole], *expected[hole + 1 :])
        assert listing.cuts["train"] == (hole,)
        assert listing.notes == ("train/train_img: numbers are missing at 1 places; a take ends at each of them",)


def test_what_has_no_partner_is_left_out_and_leaves_a_hole() -> None:
    gone = ("train/train_img/3.png", "train/train_label/5.png", "val/val_label/0.png")
    listing = listed(name for name in dance_names() if name not in gone)
    assert listing.notes == (
        "left out: 2 frames without a pose or poses without a frame, such as train/train_img/5.png",
        "train/train_img: numbers are missing at 2 places; a take ends at each of them",
        "left out: 1 frames without a pose or poses without a frame, such as val/val_img/0.png",
    )
    assert listing.cuts == {"train": (3, 4), "val": ()}
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
        r"train_img/3.png and frame3.png are both number 3; needed: one of them; remove",
    ),
    "zeros before": (["val/val_img/03.png"], [], r"val_img/3.png and 03.png are both number 3"),
    "no number": (
        ["train/train_img/cover.png"],
        [],
        r"train/train_img/cover.png is unexpected; needed in train/train_img",
    ),
    "a copy": (
        ["train/train_img/7 (8).png"],
        [],
        r"train_img/0.png and 7 \(8\).png are named in two ways; needed: the",
    ),
    "two takes in one folder": (
        ["train/train_img/b0.png"],
        [],
        "train_img/0.png and b0.png are both number 0; .*, or put each take in a folder of its own",
    ),
    "JPEG beside PNG": (["val/val_label/3.JPG"], [], r"val/val_label/3.png and 3.JPG are both number 3"),
    "take without poses": (
        [f"train/train_img/old/{n}.png" for n in range(9)],
        [],
        "7 numbers with both a frame and a pose, and train/train_img/old/0.png is alone; .*folders of the same names",
    ),
    "one frame": (
        [],
        [f"val/val_{k}/{n}." for k in ("img", "label") for n in (0, 1, 2)],
        "val/val_img and val/val_label have 1 numbers with both",
    ),
    "no validation": ([], ["val/"], "val/val_img is missing or empty; needed: all of train/train_img, "),
    "no labels": ([], ["test/test_label/"], "test/test_label is missing or empty"),
    "no given frame": (
        [],
        ["test/test_img/1/"],
        r"test/test_img/1 holds 0 pictures \(nothing\); needed: one, the given",
    ),
    "two given frames": (["test/test_img/0/b.png"], [], r"test/test_img/0 holds 2 pictures \(first.png, b.png\)"),
    "test without pictures": (["test/test_img/2/0.mp4", "test/test_label/2/0.png"], [], "test/test_img/2 holds 0 pic"),
    "the same test": (["test/test_img/01/0.png"], [], "test/test_img/1 and 01 are both test 1; needed: one of them"),
    "one pose too few": (
        [],
        ["test/test_label/1/3."],
        r"test_label/1 holds 4 poses, no 3.png; needed: 5, without holes, the same number for each test",
    ),
    "one pose too many": (
        ["test/test_label/0/5.png"],
        [],
        "test/test_label/0 holds 6 poses, 5.png too many; needed: 5",
    ),
    "hole in a test": (
        ["test/test_label/0/7.png"],
        ["test/test_label/0/2."],
        "test_label/0 holds 5 poses, no 2.png, 7.png too many; needed: 5, without holes",
    ),
    "test from 2": (
        ["test/test_label/0/5.png", "test/test_label/0/6.png"],
        ["test/test_label/0/0.", "test/test_label/0/1."],
        "test_label/0 holds 5 poses, no 0.png, 5.png too many; needed",
    ),
    "test without poses": (["test/test_img/2/0.png"], [], "test/test_label/2 holds 0 poses"),
    "test left out": (["test/test_img/3/0.png"], [], "test/test_img/2 holds 0 pictures"),
    "file among the tests": (
        ["test/test_label/0.png"],
        [],
        r"test/test_label/0.png is unexpected; needed .*folders 0, 1",
    ),
    "test by a name": (["test/test_img/first/0.png"], [], r"test/test_img/first/0.png is unexpected"),
    "folder in a test": (["test/test_label/0/a/0.png"], [], r"test/test_label/0/a/0.png is unexpected"),
    "two tops": (["copy/train/train_img/0.png"], [], r"dance.zip holds two data sets, in \. and copy; needed: one"),
    "nothing": ([], [""], "dance.zip holds no pictures in train/train_img, .*; needed: PNG, JPEG"),
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


def test_a_data_set_without_tests_is_listed() -> None:
    listing = listed(name for name in dance_names() if not name.startswith("test/"))
    assert (listing.num_tests, listing.test_length, listing.images["test_poses"]) == (0, 0, ())
    assert listing.notes == ("there is no test: a run can be trained and evaluated, but there is nothing to submit",)


def test_takes_in_folders_are_listed_one_after_the_other_in_numerical_order() -> None:
    others = [name for name in dance_names() if not name.startswith("train")]
    takes = {"take10": 3, "take2": 4, "": 2}
    train = [
        "/".join(part for part in ("train", f"train_{kind}", take, f"{n}.png") if part)
        for take, count in takes.items()
        for kind in ("img", "label")
        for n in range(count)
    ]
    listing = listed(others + train)
    expected = [*(f"{n}.png" for n in range(2)), *(f"take2/{n}.png" for n in range(4))]
    expected += [f"take10/{n}.png" for n in range(3)]
    assert listing.images["train_frames"] == tuple(f"train/train_img/{name}" for name in expected)
    assert listing.images["train_poses"] == tuple(f"train/train_label/{name}" for name in expected)
    assert listing.cuts["train"] == (2, 6)


@pytest.mark.parametrize(("frames_from", "poses_from"), [(1, 0), (0, 1), (1000, 0), (3, 700)])
def test_frames_and_poses_that_are_counted_from_different_numbers_are_paired_in_order(
    frames_from: int, poses_from: int
) -> None:
    others = [name for name in dance_names() if not name.startswith("train")]
    frames = [f"train/train_img/frame_{frames_from + n:04}.png" for n in range(6)]
    poses = [f"train/train_label/dance_{poses_from + n:012}_rendered.png" for n in range(6)]
    listing = listed([*others, *frames, *poses])
    assert (listing.images["train_frames"], listing.images["train_poses"]) == (tuple(frames), tuple(poses))
    said = f"paired in order, {frames[0]} with {poses[0]}"
    assert listing.notes == (f"train/train_img and train/train_label are counted from different numbers: {said}",)


def test_equal_numbers_are_partners_where_the_counts_are_not_equal() -> None:
    """Nobody knows then which pictures are missing, so the numbers count."""
    gone = ("train/train_img/0.png", "train/train_img/1.png", "train/train_label/6.png")
    listing = listed(name for name in dance_names() if name not in gone)
    assert listing.images["train_frames"] == tuple(f"train/train_img/{n}.png" for n in range(2, 6))
    assert listing.images["train_poses"] == tuple(f"train/train_label/{n}.png" for n in range(2, 6))


def test_missing_poses_are_empty_ones_if_that_is_asked_for() -> None:
    gone = ("train/train_label/0.png", "train/train_label/3.png", "val/val_img/2.png", "test/test_label/1/4.png")
    names = [name for name in dance_names() if name not in gone]
    listing = list_images(Names(names), test_length=None, fill=True)
    assert listing.images["train_frames"] == tuple(f"train/train_img/{n}.png" for n in range(7))
    assert [n for n, name in enumerate(listing.images["train_poses"]) if name == EMPTY] == [0, 3]
    assert listing.images["test_poses"][-1] == EMPTY and listing.test_length == 5
    assert listing.cuts == {"train": (), "val": (2,)}
    assert listing.notes == (
        "empty poses: 2 frames have no pose image, such as train/train_img/0.png",
        "left out: 1 frames without a pose or poses without a frame, such as val/val_label/2.png",
        "val/val_img: numbers are missing at 1 places; a take ends at each of them",
        "empty poses: 1 poses of tests are missing",
    )
    assert "" not in set(listing.names)


def test_tests_may_be_counted_from_1_and_have_zeros() -> None:
    def moved(name: str) -> str:
        parts = name.split("/")
        return "/".join([*parts[:2], f"{int(parts[2]) + 1:03}", *parts[3:]]) if parts[0] == "test" else name

    listing = listed(map(moved, dance_names()))
    assert listing.images["test_frames"] == ("test/test_img/001/first.png", "test/test_img/002/first.png")


def test_parts_that_were_unpacked_into_several_places_are_one_data_set() -> None:
    listing = listed(f"lab/{name.partition('/')[0]}_zip/{name}" for name in dance_names())
    assert listing.prefix == "lab/"
    assert listing.images["val_poses"] == tuple(f"lab/val_zip/val/val_label/{n}.png" for n in range(4))
    assert listing.notes == ("the data set lies in 3 places, such as lab/test_zip and lab/train_zip",)
