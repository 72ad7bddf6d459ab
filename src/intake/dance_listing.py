"""The file names of a source -> the dance data set's images in order. Names are checked before any decoding.

The layout is the competition's, in any subfolder:

* `train/train_img/N.png` and `train/train_label/N.png`, and the same for `val`
* `test/test_img/K/*.png`, one frame per test sequence K
* `test/test_label/K/N.png`

There may be no tests. The takes of a part may lie in folders of their own, such as `train/train_img/take1/N.png`. For
the names of pictures see `numbered`. The poses of a test may be numbered from 0 or from 1.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from src.base.console import UserError
from src.intake.file_names import PICTURE, numbered
from src.intake.pairing import EMPTY, Pictures, paired
from src.intake.sources import Source, check_sizes

FOLDERS = {  # folder of the competition -> the array that will hold its images
    "train/train_img": "train_frames",
    "train/train_label": "train_poses",
    "val/val_img": "val_frames",
    "val/val_label": "val_poses",
    "test/test_img": "test_frames",
    "test/test_label": "test_poses",
}
SEQUENCE = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True)
class Listing:
    """The images of a data set, in order.

    images: array name -> file names, or `EMPTY`. `test_poses` lists the tests one after the other.
    cuts: "train" and "val" -> the images that begin another take: another folder, or a number behind missing ones.
    prefix: path of the folder that holds train, val and test; all names begin with it.
    unused: files outside the six folders, and files in them that are no pictures.
    notes: what was decided, in words, for the person.
    """

    images: dict[str, tuple[str, ...]]
    prefix: str
    unused: tuple[str, ...]
    cuts: dict[str, tuple[int, ...]]
    notes: tuple[str, ...]

    @property
    def num_tests(self) -> int:
        """Number of test sequences."""
        return len(self.images["test_frames"])

    @property
    def test_length(self) -> int:
        """Poses of each test sequence; 0 without tests."""
        return len(self.images["test_poses"]) // max(1, self.num_tests)

    @property
    def names(self) -> Iterator[str]:
        """The names of all images."""
        return (name for names in self.images.values() for name in names if name != EMPTY)


def holds_dance(source: Source) -> bool:
    """Returns whether the source has a file in at least one of the six folders."""
    return any(_place(name.rpartition("/")[0]) for name in source.members)


def list_images(source: Source, *, test_length: int | None, fill: bool = False) -> Listing:
    """Returns the images in order, each frame with its pose. UserError for missing, unexpected or too big files.

    test_length: poses of each test sequence; None means the length that most sequences have. fill: a missing pose is an
    empty one. Without it, a frame without a pose is left out.
    """
    prefix, found, unused, notes = _sort_into_folders(source)
    has_tests = any(folder.startswith("test/") for folder in found)
    needed = [folder for folder in FOLDERS if has_tests or not folder.startswith("test/")]
    if missing := [folder for folder in needed if folder not in found]:
        raise UserError(f"{source.path}: {prefix}{missing[0]} is missing or empty; needed: all of {', '.join(needed)}")
    images: dict[str, tuple[str, ...]] = {}
    cuts: dict[str, tuple[int, ...]] = {}
    for part in ("train", "val"):
        folders = [f"{part}/{part}_{kind}" for kind in ("img", "label")]
        frames, poses = (_pictures(prefix + folder, found[folder]) for folder in folders)
        pairs = paired(frames, poses, [prefix + folder for folder in folders], fill=fill)
        images[f"{part}_frames"], images[f"{part}_poses"] = tuple(pairs.frames), tuple(pairs.poses)
        cuts[part] = tuple(pairs.cuts)
        notes += pairs.notes
    if has_tests:
        given = _by_sequence(f"{prefix}test/test_img", found["test/test_img"])
        sequences = _by_sequence(f"{prefix}test/test_label", found["test/test_label"])
        images["test_frames"], images["test_poses"] = _tests(prefix, given, sequences, length=test_length, fill=fill)
        if num_empty := images["test_poses"].count(EMPTY):
            notes.append(f"empty poses: {num_empty} poses of tests are missing")
    else:
        images["test_frames"] = images["test_poses"] = ()
        notes.append("there is no test: a run can be trained and evaluated, but there is nothing to submit")
    listing = Listing(images, prefix, tuple(unused), cuts, tuple(notes))
    check_sizes(source, listing.names)
    return listing


@lru_cache(maxsize=4096)
def _place(directory: str) -> tuple[str, str, str] | None:
    """Returns a directory as (top, one of `FOLDERS`, rest); None if it is in none of `FOLDERS`."""
    parts = directory.split("/")
    for index in range(len(parts) - 1):
        folder = "/".join(parts[index : index + 2])
        if folder in FOLDERS:
            return "/".join(parts[:index]), folder, "/".join(parts[index + 2 :])
    return None


Found = dict[str, list[tuple[str, str]]]  # one of `FOLDERS` -> (subfolder or "", name) of each picture


def _sort_into_folders(source: Source) -> tuple[str, Found, list[str], list[str]]:
    """Returns the prefix, the pictures of each folder, the files that are not used, and notes.

    The six folders may lie in several places, as after unpacking several zips, but each one in one place only.
    """
    found: Found = {}
    tops: dict[str, str] = {}
    unused: list[str] = []
    for name in source.members:
        directory, _, file = name.rpartition("/")
        place = _place(directory)
        if place is None or not PICTURE.fullmatch(file):
            unused.append(name)
            continue
        top, folder, rest = place
        if tops.setdefault(folder, top) != top:
            first, second = sorted((tops[folder], top))
            found_two = f"{source.path} holds two data sets, in {first or '.'} and {second or '.'}"
            raise UserError(f"{found_two}; needed: one; remove the other, or give its folder")
        found.setdefault(folder, []).append((rest, name))
    if not tops:
        found_none = f"{source.path} holds no pictures in {', '.join(FOLDERS)}"
        raise UserError(f"{found_none}; needed: PNG, JPEG, BMP, GIF, TIFF or WebP files in all six, at any depth")
    places = sorted(set(tops.values()))
    notes = []
    if len(places) > 1:
        notes.append(f"the data set lies in {len(places)} places, such as {places[0] or '.'} and {places[1]}")
    top = os.path.commonpath(places) if places[0] else ""
    return f"{top}/" if top else "", found, unused, notes


def _pictures(folder: str, entries: list[tuple[str, str]]) -> Pictures:
    """Returns the pictures of a folder by take and number. Each subfolder is a take."""
    takes: dict[str, dict[str, str]] = {}
    for subfolder, name in entries:
        takes.setdefault(subfolder, {})[name.rpartition("/")[2]] = name
    return {take: _numbered(f"{folder}/{take}".rstrip("/"), names) for take, names in takes.items()}


def _numbered(folder: str, names: dict[str, str]) -> dict[int, str]:
    """Returns number -> name; names: file in the folder -> name."""
    return {number: names[file] for number, file in numbered(names, folder).items()}


def _by_sequence(folder: str, entries: list[tuple[str, str]]) -> dict[int, list[str]]:
    """Returns test sequence -> file names."""
    sequences: dict[int, list[str]] = {}
    folders: dict[int, str] = {}
    for subfolder, name in entries:
        if not SEQUENCE.fullmatch(subfolder):
            raise UserError(f"{name} is unexpected; needed in {folder}: only folders 0, 1, ... of images; remove it")
        if folders.setdefault(int(subfolder), subfolder) != subfolder:
            found = f"{folder}/{folders[int(subfolder)]} and {subfolder} are both test {int(subfolder)}"
            raise UserError(f"{found}; needed: one of them; remove the other")
        sequences.setdefault(int(subfolder), []).append(name)
    return sequences


def _tests(
    prefix: str, given: dict[int, list[str]], sequences: dict[int, list[str]], *, length: int | None, fill: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the given frame of each test, and the poses of all tests one after the other.

    length: poses of a test; None means the length that most tests have.
    """
    label = f"{prefix}test/test_label"
    poses = {
        k: _numbered(f"{label}/{k}", {name.rpartition("/")[2]: name for name in names})
        for k, names in sequences.items()
    }
    if length is None:
        counts = Counter(max(each) - min(each) + 1 if fill else len(each) for each in poses.values())
        length = max(counts) if fill else max(counts, key=lambda count: (counts[count], count))
    first = 1 if min(*given, *sequences) == 1 else 0
    test_frames: list[str] = []
    test_poses: list[str] = []
    for k in range(first, max(*given, *sequences) + 1):
        test_frames.append(_given_frame(f"{prefix}test/test_img/{k}", given.get(k, [])))
        test_poses.extend(_test_poses(f"{label}/{k}", poses.get(k, {}), length, fill=fill))
    return tuple(test_frames), tuple(test_poses)


def _given_frame(folder: str, names: list[str]) -> str:
    if len(names) != 1:
        found = ", ".join(name.rpartition("/")[2] for name in names[:3]) or "nothing"
        raise UserError(f"{folder} holds {len(names)} pictures ({found}); needed: one, the given frame")
    return names[0]


def _test_poses(folder: str, numbers: dict[int, str], length: int, *, fill: bool) -> tuple[str, ...]:
    """Returns the poses of a test in order; UserError for another number of them, and where one is missing."""
    first = 1 if numbers and 0 not in numbers and max(numbers) == length else 0
    wanted = range(first, first + length)
    missing = [number for number in wanted if number not in numbers]
    beyond = sorted(numbers.keys() - set(wanted))
    if beyond or (missing and not (fill and numbers)):
        lacks = f", no {missing[0]}.png" if missing and numbers else ""
        extra = f", {numbers[beyond[0]].rpartition('/')[2]} too many" if beyond else ""
        needed = f"{length}, without holes, the same number for each test; add or remove some"
        raise UserError(f"{folder} holds {len(numbers)} poses{lacks}{extra}; needed: {needed}")
    return tuple(numbers.get(number, EMPTY) for number in wanted)
