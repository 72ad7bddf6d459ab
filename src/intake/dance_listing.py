"""The file names of a zip or folder -> the dance data set's images in order. Names are checked before any decoding.

The layout is the competition's, in any subfolder:

* `train/train_img/N.png` and `train/train_label/N.png`, and the same for `val`
* `test/test_img/K/*.png`, one frame per test sequence K
* `test/test_label/K/N.png`

A name may also have letters before its number and zeros in it, such as `frame_0007.png`. The suffix may also be .jpg or
.jpeg, in lower or upper case. The poses of a test may be numbered from 0 or from 1.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from src.base.console import UserError
from src.intake.file_names import PICTURE, picture_number
from src.intake.sources import Source, check_sizes

FOLDERS = {  # folder of the competition -> the array that will hold its images
    "train/train_img": "train_frames",
    "train/train_label": "train_poses",
    "val/val_img": "val_frames",
    "val/val_label": "val_poses",
    "test/test_img": "test_frames",
    "test/test_label": "test_poses",
}
SEQUENCE = re.compile(r"0|[1-9][0-9]{0,4}")


@dataclass(frozen=True)
class Listing:
    """The images of a data set, in order.

    images: array name -> file names. `test_poses` lists the tests one after the other.
    holes: "train" and "val" -> the images before which numbers are missing. Nobody knows what happened there, so a take
    ends at a hole.
    alone: frames without a pose, and poses without a frame; they are left out.
    prefix: path of the folder that holds train, val and test; all names begin with it.
    unused: files outside the six folders.
    """

    images: dict[str, tuple[str, ...]]
    prefix: str
    unused: tuple[str, ...]
    holes: dict[str, tuple[int, ...]]
    alone: tuple[str, ...]

    @property
    def num_tests(self) -> int:
        """Number of test sequences."""
        return len(self.images["test_frames"])

    @property
    def test_length(self) -> int:
        """Poses of each test sequence."""
        return len(self.images["test_poses"]) // self.num_tests

    @property
    def names(self) -> Iterator[str]:
        """The names of all images."""
        return (name for names in self.images.values() for name in names)


def holds_dance(source: Source) -> bool:
    """Returns whether the source has a file in at least one of the six folders."""
    return any(_place(name.rpartition("/")[0]) for name in source.members)


def list_images(source: Source, *, test_length: int | None) -> Listing:
    """Returns the images in order, each frame with its pose. UserError for missing, unexpected or too big files.

    test_length: poses of each test sequence; None means the length that most sequences have.
    """
    prefix, found, unused = _sort_into_folders(source)
    missing = [folder for folder in FOLDERS if folder not in found]
    if missing:
        raise UserError(f"{source.path}: {prefix}{missing[0]} is missing or empty; needed: all of {', '.join(FOLDERS)}")
    images: dict[str, tuple[str, ...]] = {}
    holes: dict[str, tuple[int, ...]] = {}
    alone: list[str] = []
    for part in ("train", "val"):
        frame_folder, pose_folder = f"{part}/{part}_img", f"{part}/{part}_label"
        frames = _numbered(prefix + frame_folder, found[frame_folder])
        poses = _numbered(prefix + pose_folder, found[pose_folder])
        numbers = sorted(frames.keys() & poses.keys())
        lonely = [files[number] for files in (frames, poses) for number in sorted(files.keys() - set(numbers))]
        if len(numbers) < 2 or len(lonely) > len(numbers):
            counted = f"{len(numbers)} numbers with both a frame and a pose"
            example = f", and {lonely[0]} is alone" if lonely else ""
            raise UserError(
                f"{prefix}{frame_folder} and {pose_folder} have {counted}{example}; needed: 2, and most of them"
            )
        alone += lonely
        images[f"{part}_frames"] = tuple(frames[number] for number in numbers)
        images[f"{part}_poses"] = tuple(poses[number] for number in numbers)
        holes[part] = tuple(i for i, (one, two) in enumerate(pairwise(numbers), 1) if two > one + 1)
    given = _by_sequence(f"{prefix}test/test_img", found["test/test_img"])
    sequences = _by_sequence(f"{prefix}test/test_label", found["test/test_label"])
    if test_length is None:
        counts = Counter(len(names) for names in sequences.values())
        test_length = max(counts, key=lambda count: (counts[count], count))
    test_frames: list[str] = []
    test_poses: list[str] = []
    for k in range(max(*given, *sequences) + 1):
        test_frames.append(_given_frame(f"{prefix}test/test_img/{k}", given.get(k, [])))
        test_poses.extend(_test_poses(f"{prefix}test/test_label/{k}", sequences.get(k, []), test_length))
    images |= {"test_frames": tuple(test_frames), "test_poses": tuple(test_poses)}
    listing = Listing(images, prefix, tuple(unused), holes, tuple(alone))
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


def _sort_into_folders(source: Source) -> tuple[str, dict[str, list[tuple[str, str]]], list[str]]:
    """Returns the prefix, the files of each folder, and the files outside `FOLDERS`.

    The files of a folder are pairs (subfolder or "", file name).
    """
    found: dict[str, list[tuple[str, str]]] = {}
    tops: set[str] = set()
    unused: list[str] = []
    for name in source.members:
        place = _place(name.rpartition("/")[0])
        if place is None:
            unused.append(name)
            continue
        tops.add(place[0])
        found.setdefault(place[1], []).append((place[2], name))
    if len(tops) > 1:
        first, second = sorted(tops)[:2]
        raise UserError(
            f"{source.path} holds two data sets, in {first or '.'} and {second}; needed: one; remove the other"
        )
    if not tops:
        raise UserError(f"{source.path} holds none of the folders {', '.join(FOLDERS)}; needed: all six, at any depth")
    top = tops.pop()
    return f"{top}/" if top else "", found, unused


def _numbered(folder: str, entries: list[tuple[str, str]]) -> dict[int, str]:
    """Returns frame number -> file name."""
    numbers: dict[int, str] = {}
    for subfolder, name in entries:
        number = picture_number(name.rpartition("/")[2])
        if subfolder or number is None:
            raise UserError(
                f"{name} is unexpected; needed in {folder}: only N.png or frame_N.png, or .jpg; remove or rename it"
            )
        if number in numbers:
            raise UserError(
                f"{numbers[number]} and {name} are both frame {number}; needed: one of them; remove the other"
            )
        numbers[number] = name
    return numbers


def _in_order(folder: str, numbers: dict[int, str]) -> tuple[str, ...]:
    first, last = min(numbers), max(numbers)
    num_missing = last - first + 1 - len(numbers)
    if num_missing:
        missing = next(number for number in range(first, last) if number not in numbers)
        found = f"{missing} and {num_missing - 1} more are" if num_missing > 1 else f"{missing} is"
        raise UserError(
            f"{folder}: number {found} missing between {first} and {last}; needed: no holes; add what is missing"
        )
    return tuple(numbers[number] for number in range(first, last + 1))


def _by_sequence(folder: str, entries: list[tuple[str, str]]) -> dict[int, list[str]]:
    """Returns test sequence -> file names."""
    sequences: dict[int, list[str]] = {}
    for subfolder, name in entries:
        if not SEQUENCE.fullmatch(subfolder):
            raise UserError(f"{name} is unexpected; needed in {folder}: only folders 0, 1, ... of images; remove it")
        sequences.setdefault(int(subfolder), []).append(name)
    return sequences


def _given_frame(folder: str, names: list[str]) -> str:
    if len(names) != 1 or not PICTURE.fullmatch(names[0]):
        found = ", ".join(name.rpartition("/")[2] for name in names[:3]) or "nothing"
        raise UserError(f"{folder} holds {len(names)} files ({found}); needed: one .png or .jpg file, the given frame")
    return names[0]


def _test_poses(folder: str, names: list[str], test_length: int) -> tuple[str, ...]:
    numbers = _numbered(folder, [("", name) for name in names])
    if len(numbers) != test_length:
        missing = next((number for number in range(test_length) if number not in numbers), None)
        found = f"{len(numbers)} poses" if missing is None or not numbers else f"{len(numbers)} poses, no {missing}.png"
        raise UserError(
            f"{folder} holds {found}; needed: {test_length}, the same number for each test; add or remove some"
        )
    if min(numbers) > 1:
        raise UserError(f"{folder} starts at number {min(numbers)}; needed: numbers from 0 or from 1; renumber it")
    return _in_order(folder, numbers)
