"""Reads clips of robot pushing from a zip or a folder. Each clip is a folder of pictures and two tables.

The layout: `train`, `validate` and `test`, which may lie in folders of any depth. Each has `traj_A_to_B/N/` with
`0.png .. 29.png`, `actions.csv` (30 x 4) and `endeffector_positions.csv` (30 x 3), both without a header. Pictures may
also be JPEG files. The first clip says how large the pictures are and how many columns the tables have. Most clips say
how many frames a clip has. All clips must agree.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from src.base.console import UserError
from src.intake.file_names import picture_number
from src.intake.layouts import CLIP_FILE
from src.intake.manifest import SPLITS, ClipShape
from src.intake.pictures import count_kinds, decode, image_size, read_header
from src.intake.pushing import ClipContent, ClipListing, PushingContent, content_of
from src.intake.sources import Source, check_sizes

TABLES = ("actions.csv", "endeffector_positions.csv")  # in the conditions' order
NUMBER = r"(0|[1-9][0-9]{0,8})"
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
CLIP = re.compile(rf"traj_{NUMBER}_to_{NUMBER}/{NUMBER}")
WANTED = f"needed: traj_A_to_B/N/ with 0.png, 1.png, ... or .jpg, {' and '.join(TABLES)} alone"
Number = tuple[int, int, int]  # A, B and N of a clip's folder


@dataclass(frozen=True, slots=True)
class ClipFolder:
    """A clip as a folder of files; `name` is the folder's, `pictures` are those of its frames in order."""

    name: str
    pictures: tuple[str, ...]
    shape: ClipShape

    def read(self, source: Source) -> ClipContent:
        """Returns the clip; UserError for a picture or table that cannot be used."""
        height, width = self.shape.frame_size
        frames = np.empty((self.shape.length, height, width, 3), dtype=np.uint8)
        kinds = []
        for picture, frame in zip(self.pictures, frames, strict=True):
            name = f"{self.name}/{picture}"
            data = source.read(name)
            header = read_header(data, name)
            if header.size != self.shape.frame_size:
                found = f"{name} is {header.size[0]} x {header.size[1]} pixels (height x width)"
                raise UserError(f"{found}; needed: {height} x {width}; scale all pictures alike")
            frame[:] = decode(data, name, self.shape.frame_size)
            kinds.append((name, header.kind))
        columns = (self.shape.num_action, self.shape.num_position)
        tables = [
            _parse_table(source.read(f"{self.name}/{file}"), f"{self.name}/{file}", self.shape.length, number)
            for file, number in zip(TABLES, columns, strict=True)
        ]
        return ClipContent(frames.transpose(0, 3, 1, 2), np.concatenate(tables, axis=1), count_kinds(kinds))


def list_clip_folders(source: Source) -> ClipListing:
    """Returns the clips in the order of their numbers; UserError for a missing, unexpected or too large file."""
    prefix = _prefix(source)
    files: dict[str, dict[str, dict[str, str]]] = {split: {} for split in SPLITS}
    unused = []
    for name in source.members:
        split, _, rest = name.removeprefix(prefix).partition("/")
        if not name.startswith(prefix) or split not in SPLITS or not rest:
            unused.append(name)
            continue
        folder, _, file = rest.rpartition("/")
        number = picture_number(file)
        if not CLIP.fullmatch(folder) or (number is None and file not in TABLES):
            raise UserError(f"{name} is unexpected; {WANTED}; remove or rename it")
        key = file if number is None else str(number)
        known = files[split].setdefault(folder, {}).setdefault(key, file)
        if known != file:
            raise UserError(f"{name} and {known} are both frame {key}; needed: one of them; remove the other")
    for split in SPLITS:
        if not files[split]:
            raise UserError(
                f"{source.path}: {prefix}{split} is missing or empty; needed: clips in each of {', '.join(SPLITS)}"
            )
    length = _clip_length(files)
    ordered = {split: _in_order(f"{prefix}{split}", files[split], length) for split in SPLITS}
    shape = _shape_of(source, *ordered["train"][0])
    clips = {split: tuple(ClipFolder(*each, shape) for each in ordered[split]) for split in SPLITS}
    check_sizes(source, _names(clips))
    fingerprint = source.fingerprint(_names(clips), prefix)
    return ClipListing({split: clips[split] for split in SPLITS}, fingerprint, tuple(unused), shape=shape)


def _clip_length(files: dict[str, dict[str, dict[str, str]]]) -> int:
    """Returns how many frames most clips have; of two numbers that are as frequent, the larger."""
    counts = Counter(len(of_clip.keys() - TABLES) for folders in files.values() for of_clip in folders.values())
    return max(counts, key=lambda count: (counts[count], count))


def _shape_of(source: Source, folder: str, pictures: tuple[str, ...]) -> ClipShape:
    """Returns the shape of a clip; UserError where its first picture or a table cannot be read."""
    first = f"{folder}/{pictures[0]}"
    widths = [_num_columns(source.read(f"{folder}/{table}"), f"{folder}/{table}") for table in TABLES]
    return ClipShape(len(pictures), image_size(source.read(first), first), *widths)


def _num_columns(data: bytes, name: str) -> int:
    """Returns how many columns the first line of a table has; UserError for an empty table."""
    line = data.lstrip().partition(b"\n")[0]
    if not line.strip():
        raise UserError(f"{name} is empty; needed: a line of numbers for each frame, no header")
    return line.count(b",") + 1


def _prefix(source: Source) -> str:
    """Returns the common prefix of the clips' names: the path of the folder with the splits."""
    matches = (CLIP_FILE.fullmatch(name) for name in source.members)
    first, *others = sorted({match[1] or "" for match in matches if match}) or [""]
    if others:
        found = f"{source.path} holds two data sets, in {first or '.'} and {others[0]}"
        raise UserError(f"{found}; needed: one; remove the other")
    return f"{first}/" if first else ""


def _in_order(place: str, folders: dict[str, dict[str, str]], length: int) -> list[tuple[str, tuple[str, ...]]]:
    """Returns folder and pictures of the clips of one split.

    UserError where a clip lacks a file or has one too many, or where a number is missing between two.
    """
    numbers: dict[Number, str] = {}
    wanted = (*map(str, range(length)), *TABLES)
    for folder, files in folders.items():
        needed = f"{length} frames, {' and '.join(TABLES)}"
        if lacking := [key if key in TABLES else f"{key}.png" for key in wanted if key not in files]:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise UserError(f"{place}/{folder} lacks {lacking[0]}{more}; needed: {needed}")
        if beyond := sorted(files.keys() - wanted):
            unexpected = f"{place}/{folder}/{files[beyond[0]]} is unexpected"
            raise UserError(f"{unexpected}; {WANTED}; most clips have {length} frames; remove or rename it")
        match = CLIP.fullmatch(folder)
        assert match is not None, "names were matched when they were listed"
        numbers[int(match[1]), int(match[2]), int(match[3])] = folder
    ordered = sorted(numbers)
    for (*trajectories, number), (*others, following) in pairwise(ordered):
        if trajectories == others and following > number + 1:
            folder = numbers[trajectories[0], trajectories[1], number].rpartition("/")[0]
            found = f"{place}/{folder}: clip {number + 1} is missing between {number} and {following}"
            raise UserError(f"{found}; needed: no holes; add what is missing, or renumber the clips")
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # a million clips have the same few tuples of names
    clips = []
    for key in ordered:
        folder = numbers[key]
        pictures = tuple(folders[folder][str(frame)] for frame in range(length))
        clips.append((f"{place}/{folder}", shared.setdefault(pictures, pictures)))
    return clips


def _names(clips: dict[str, tuple[ClipFolder, ...]]) -> Iterator[str]:
    return (
        f"{clip.name}/{file}" for folders in clips.values() for clip in folders for file in (*clip.pictures, *TABLES)
    )


def _decimal(cell: str, place: str, needed: str) -> float:
    """Returns the number in a cell; UserError for a text that only Python reads as a number, such as 1_0 or nan."""
    if not DECIMAL.fullmatch(cell.strip()):
        raise UserError(f"{place} holds {cell.strip()[:40]!r}, which is not a number; {needed}")
    return float(cell)


def _parse_table(data: bytes, name: str, length: int, num_columns: int) -> np.ndarray:
    """Returns the numbers of a table, (length, columns) float32; UserError for text, NaN or a wrong number of them."""
    needed = f"needed: {length} lines of {num_columns} numbers, no header"
    rows = []
    for number, line in enumerate(data.decode("ascii", "replace").split("\n"), 1):
        if line.strip():
            cells = enumerate(line.split(","), 1)
            rows.append([_decimal(cell, f"{name} line {number} column {column}", needed) for column, cell in cells])
    widths = {len(row) for row in rows}
    if len(rows) != length or widths != {num_columns}:
        columns = " or ".join(map(str, sorted(widths))) or "no"
        raise UserError(f"{name} holds {len(rows)} lines of {columns} numbers; {needed}")
    with np.errstate(over="ignore"):
        table = np.array(rows).astype(np.float32)
    if not np.isfinite(table).all():
        raise UserError(f"{name} holds NaN or a number too large for float32; {needed}")
    return table


def read_clip_folders(source: Source) -> PushingContent:
    """Returns the clips of a source, listed but not decoded."""
    return content_of(source, list_clip_folders(source), kind=source.kind)
