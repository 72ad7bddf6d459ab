"""The names of files: which are litter, which are pictures, which number a picture has. One rule for all commands."""

import re
from functools import lru_cache
from pathlib import Path

from src.base.console import UserError

# What file managers, notebooks, version control and network drives leave beside people's data, in lower case. Names
# that begin with a dot are litter, too.
LITTER_FOLDERS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
LITTER_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
WINDOWS_STREAM = ":zone.identifier"  # it marks a file that was downloaded, where a Windows disk is copied to Linux
SUFFIXES = r"\.(?i:png|jpe?g)"  # suffixes of picture files, as a regular expression
PICTURE = re.compile(rf".*{SUFFIXES}", re.DOTALL)
NUMBERED = re.compile(rf"(?:[^\W\d][^\d]*)?([0-9]{{1,9}}){SUFFIXES}", re.DOTALL)  # 7.png, 007.PNG, frame_7.jpg


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


def picture_number(file: str) -> int | None:
    """Returns the number in a picture's name, such as 7 for "frame_0007.png"; None if the name has another form."""
    match = NUMBERED.fullmatch(file)
    return int(match[1]) if match else None


def numbered_pictures(folder: Path, name: str) -> dict[int, Path]:
    """Returns {number: picture} of a folder, sorted by number; there may be gaps.

    UserError, which calls the folder `name`, if it is none, or if two pictures have one number or one has none.
    """
    if not folder.is_dir():
        raise UserError(f"{name} is not a folder; needed: a folder with the pictures 0.png, 1.png, ...")
    found: dict[int, Path] = {}
    for path in pictures_in(folder):
        number = picture_number(path.name)
        if number is None:
            raise UserError(f"{name}: {path.name} has no number; needed: names such as 7.png or frame_007.png")
        if number in found:
            raise UserError(
                f"{name}: {found[number].name} and {path.name} have the same number; needed: one picture for each"
            )
        found[number] = path
    return dict(sorted(found.items()))
