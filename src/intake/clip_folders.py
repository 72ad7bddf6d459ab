"""Reads clips of robot pushing from a zip or a folder. Each clip is a folder of pictures and two tables.

The layout: `train`, `validate` and `test`, which may lie in folders of any depth. Each has `traj_A_to_B/N/` with
`0.png .. 29.png`, `actions.csv` (30 x 4) and `endeffector_positions.csv` (30 x 3), both without a header.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from src.base.console import UserError
from src.intake.dance_listing import is_litter
from src.intake.manifest import CLIP_LENGTH, CLIP_SIZE, NUM_ACTION, NUM_POSITION, SPLITS
from src.intake.pushing import ClipContent, ClipListing
from src.intake.sources import Source, check_sizes, decode, image_size

TABLES = {"actions.csv": NUM_ACTION, "endeffector_positions.csv": NUM_POSITION}  # columns, in the conditions' order
FILES = (*(f"{number}.png" for number in range(CLIP_LENGTH)), *TABLES)
NUMBER = r"(0|[1-9][0-9]{0,8})"
CLIP = re.compile(rf"traj_{NUMBER}_to_{NUMBER}/{NUMBER}")
INSIDE = re.compile(rf"(?:(.*)/)?(?:{'|'.join(SPLITS)})/traj_[0-9]+_to_[0-9]+/.*")
Number = tuple[int, int, int]  # A, B and N of a clip's folder


@dataclass(frozen=True, slots=True)
class ClipFolder:
    """A clip as a folder of files; `name` is the folder's."""

    name: str

    def read(self, source: Source) -> ClipContent:
        """Returns the clip; UserError for a picture or table that cannot be used."""
        frames = np.empty((CLIP_LENGTH, *CLIP_SIZE, 3), dtype=np.uint8)
        for number, frame in enumerate(frames):
            name = f"{self.name}/{number}.png"
            data = source.read(name)
            if (size := image_size(data, name)) != CLIP_SIZE:
                found = f"{name} is {size[0]} x {size[1]} pixels (height x width)"
                raise UserError(f"{found}; needed: {CLIP_SIZE[0]} x {CLIP_SIZE[1]}; scale all pictures alike")
            frame[:] = decode(data, name, CLIP_SIZE)
        tables = [
            _parse_table(source.read(f"{self.name}/{file}"), f"{self.name}/{file}", columns)
            for file, columns in TABLES.items()
        ]
        return ClipContent(frames.transpose(0, 3, 1, 2), np.concatenate(tables, axis=1))


def holds_clip_folders(source: Source) -> bool:
    """Returns whether the source has at least one file in the folder of a clip."""
    return any(INSIDE.fullmatch(name) for name in source.members)


def list_clip_folders(source: Source) -> ClipListing:
    """Returns the clips in the order of their numbers; UserError for a missing, unexpected or too large file."""
    prefix = _prefix(source)
    files: dict[str, dict[str, set[str]]] = {split: {} for split in SPLITS}  # split -> clip's folder -> names in it
    unused = []
    for name in source.members:
        if is_litter(name):
            continue
        split, _, rest = name.removeprefix(prefix).partition("/")
        if not name.startswith(prefix) or split not in SPLITS or not rest:
            unused.append(name)
            continue
        folder, _, file = rest.rpartition("/")
        if not CLIP.fullmatch(folder) or file not in FILES:
            wanted = f"0.png .. {CLIP_LENGTH - 1}.png, {' and '.join(TABLES)}"
            raise UserError(f"{name} is unexpected; needed: traj_A_to_B/N/ with {wanted} alone; remove or rename it")
        files[split].setdefault(folder, set()).add(file)
    for split in SPLITS:
        if not files[split]:
            raise UserError(
                f"{source.path}: {prefix}{split} is missing or empty; needed: clips in each of {', '.join(SPLITS)}"
            )
    clips = {split: _in_order(f"{prefix}{split}", files[split]) for split in SPLITS}
    check_sizes(source, _names(clips))
    fingerprint = source.fingerprint(_names(clips), prefix)
    return ClipListing({split: tuple(clips[split]) for split in SPLITS}, fingerprint, tuple(unused))


def _prefix(source: Source) -> str:
    """Returns the common prefix of the clips' names: the path of the folder with the splits."""
    matches = (INSIDE.fullmatch(name) for name in source.members if not is_litter(name))
    first, *others = sorted({match[1] or "" for match in matches if match}) or [""]
    if others:
        found = f"{source.path} holds two data sets, in {first or '.'} and {others[0]}"
        raise UserError(f"{found}; needed: one; remove the other")
    return f"{first}/" if first else ""


def _in_order(place: str, folders: dict[str, set[str]]) -> list[ClipFolder]:
    """Returns the clips of one split; UserError if a clip lacks a file or a number between two clips is missing."""
    numbers: dict[Number, str] = {}
    for folder, files in folders.items():
        if len(files) < len(FILES):
            lacking = [file for file in FILES if file not in files]
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise UserError(
                f"{place}/{folder} lacks {lacking[0]}{more}; needed: {CLIP_LENGTH} frames, {' and '.join(TABLES)}"
            )
        match = CLIP.fullmatch(folder)
        assert match is not None, "names were matched when they were listed"
        numbers[int(match[1]), int(match[2]), int(match[3])] = folder
    ordered = sorted(numbers)
    for (*trajectories, number), (*others, following) in pairwise(ordered):
        if trajectories == others and following > number + 1:
            folder = numbers[trajectories[0], trajectories[1], number].rpartition("/")[0]
            found = f"{place}/{folder}: clip {number + 1} is missing between {number} and {following}"
            raise UserError(f"{found}; needed: no holes; add what is missing, or renumber the clips")
    return [ClipFolder(f"{place}/{numbers[number]}") for number in ordered]


def _names(clips: dict[str, list[ClipFolder]]) -> Iterator[str]:
    return (f"{clip.name}/{file}" for folders in clips.values() for clip in folders for file in FILES)


def _parse_table(data: bytes, name: str, num_columns: int) -> np.ndarray:
    """Returns the numbers of a table, (30, columns) float32; UserError for text, NaN, or another number of values."""
    needed = f"needed: {CLIP_LENGTH} lines of {num_columns} numbers, no header"
    try:
        lines = data.decode("ascii").split("\n")
        rows = [[float(number) for number in line.split(",")] for line in lines if line.strip()]
    except ValueError as error:
        raise UserError(f"{name} holds something that is not a number ({error}); {needed}") from error
    widths = {len(row) for row in rows}
    if len(rows) != CLIP_LENGTH or widths != {num_columns}:
        columns = " or ".join(map(str, sorted(widths))) or "no"
        raise UserError(f"{name} holds {len(rows)} lines of {columns} numbers; {needed}")
    with np.errstate(over="ignore"):
        table = np.array(rows).astype(np.float32)
    if not np.isfinite(table).all():
        raise UserError(f"{name} holds NaN or a number too large for float32; {needed}")
    return table
