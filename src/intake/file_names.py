"""The names of files: which are litter, which are pictures, which number a picture has. One rule for all commands."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from src.base.console import UserError

# What file managers, notebooks, version control and network drives leave beside people's data, in lower case. Names
# that begin with a dot are litter, too.
LITTER_FOLDERS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
LITTER_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
WINDOWS_STREAM = ":zone.identifier"  # it marks a file that was downloaded, where a Windows disk is copied to Linux
SUFFIXES = r"\.(?i:png|jpe?g|jfif|bmp|gif|tiff?|webp)"  # of picture files; what they hold is told by their content
PICTURE = re.compile(rf".*{SUFFIXES}", re.DOTALL)
# 7.png, 007.PNG, frame_7.jpg, take1_7.png, "Bild (7).png", dance_000000000007_rendered.png: the last number counts.
NUMBERED = re.compile(rf"(.*?)([0-9]{{1,18}})([^0-9]*){SUFFIXES}", re.DOTALL)
LARGEST_NUMBER = 10**9 - 1


def is_litter(name: str) -> bool:
    """Returns whether a file or folder, named by its path with slashes, was left by another program.

    The name of a folder ends with a slash.
    """
    folder, _, file = name.lower().rpartition("/")
    return _is_hidden(file) or file in LITTER_FILES or file.endswith(WINDOWS_STREAM) or _is_litter_folder(folder)


@lru_cache(maxsize=4096)  # a data set has up to a million files in few folders
def _is_litter_folder(path: str) -> bool:
    parts = path.split("/")
    return any(map(_is_hidden, parts)) or not LITTER_FOLDERS.isdisjoint(parts)


def _is_hidden(part: str) -> bool:
    return part.startswith(".") and part not in (".", "..")


def pictures_in(folder: Path) -> list[Path]:
    """Returns the pictures of a folder without those that another program has left, sorted by name."""
    return sorted(path for path in folder.iterdir() if PICTURE.fullmatch(path.name) and not is_litter(path.name))


def numbered(files: Iterable[str], folder: str) -> dict[int, str]:
    """Returns number -> file name of the pictures of a folder, such as 7 -> "frame_0007.png".

    All names must have the same text before and behind the number. UserError for a name without a number, for two
    pictures of the same number, and for names of two forms.
    """
    numbers: dict[int, str] = {}
    first = ("", "")
    for file in files:
        match = NUMBERED.fullmatch(file)
        if match is None or int(match[2]) > LARGEST_NUMBER:
            needed = f"needed in {folder}: numbered pictures such as 7.png or frame_0007.jpg"
            raise UserError(f"{folder}/{file} is unexpected; {needed}; remove or rename it")
        number, form = int(match[2]), (match[1].lower(), match[3].lower())
        if number in numbers:
            found = f"{folder}/{numbers[number]} and {file} are both number {number}"
            raise UserError(f"{found}; needed: one of them; remove the other, or put each take in a folder of its own")
        if numbers and form != first:
            found = f"{folder}/{next(iter(numbers.values()))} and {file} are named in two ways"
            raise UserError(f"{found}; needed: the same text around each number; rename or remove one of them")
        numbers[number], first = file, form
    return numbers


def numbered_pictures(folder: Path, name: str) -> dict[int, Path]:
    """Returns {number: picture} of a folder, sorted by number; there may be gaps.

    UserError as in `numbered`, and if `folder`, which is called `name`, is none.
    """
    if not folder.is_dir():
        raise UserError(f"{name} is not a folder; needed: a folder with the pictures 0.png, 1.png, ...")
    files = numbered((path.name for path in pictures_in(folder)), name)
    return {number: folder / files[number] for number in sorted(files)}
