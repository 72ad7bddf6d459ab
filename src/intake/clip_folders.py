"""Reads clips of robot pushing from an archive or a folder. Each clip is a folder of pictures and tables.

The layout: `train`, `validate` and `test`, which may lie in folders of any depth. Each has `traj_A_to_B/N/` with
`0.png .. 29.png`, `actions.csv` (30 x 4) and `endeffector_positions.csv` (30 x 3). The first clip says how large the
pictures are and how many columns the tables have. Most clips say how many frames a clip has. All clips must agree.

A table may be missing in all clips; it then has no columns. Without `validate`, the last training clips are held out.
Both are so in the files that the code of Denton and Fergus (2018) writes.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from src.base.console import UserError, say
from src.intake.file_names import PICTURE, numbered
from src.intake.layouts import CLIP_FILE
from src.intake.manifest import SPLITS, ClipShape
from src.intake.pictures import count_kinds, decode, image_size, read_header
from src.intake.pushing import ClipContent, ClipListing, PushingContent, content_of, hold_out
from src.intake.sources import Source, check_sizes
from src.intake.tables import parse_table

TABLES = ("actions.csv", "endeffector_positions.csv")  # in the conditions' order
CLIP = re.compile(r"traj_([0-9]{1,9})_to_([0-9]{1,9})/([0-9]{1,9})")
WANTED = f"needed: traj_A_to_B/N/ with 0.png, 1.png, ... and, if there are any, {' and '.join(TABLES)}"
Number = tuple[int, ...]  # A, B and N of a clip's folder


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
        tables = [self._table(source, file, number) for file, number in zip(TABLES, columns, strict=True)]
        return ClipContent(frames.transpose(0, 3, 1, 2), np.concatenate(tables, axis=1), count_kinds(kinds))

    def _table(self, source: Source, file: str, num_columns: int) -> np.ndarray:
        name = f"{self.name}/{file}"
        if not num_columns:
            return np.zeros((self.shape.length, 0), np.float32)
        table, _ = parse_table(source.read(name), name, self.shape.length)
        if table.shape[1] != num_columns:
            found = f"{name} holds {len(table)} lines of {table.shape[1]} numbers"
            raise UserError(
                f"{found}; needed: {self.shape.length} lines of {num_columns} numbers, as in the first clip"
            )
        return table


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of a clip: the pictures by number, and the names of the tables."""

    pictures: dict[int, str]
    tables: tuple[str, ...]


def list_clip_folders(source: Source) -> ClipListing:
    """Returns the clips in the order of their numbers; UserError for a missing, unexpected or too large file."""
    prefix = _prefix(source)
    files, unused = _files_of_clips(source, prefix)
    for split in ("train", "test"):
        if not files[split]:
            raise UserError(f"{source.path}: {prefix}{split} is missing or empty; needed: clips in train and test")
    everything = [each for clips in files.values() for each in clips.values()]
    counts = Counter(len(each.pictures) for each in everything)
    length = max(counts, key=lambda count: (counts[count], count))  # of two that are as frequent, the larger
    tables = [table for table in TABLES if any(table in each.tables for each in everything)]
    if lacking := [table for table in TABLES if table not in tables]:
        say(f"no clip has {' or '.join(lacking)}: the clips are packed without these numbers")
    ordered = {split: _in_order(f"{prefix}{split}", files[split], length, tables) for split in SPLITS}
    shape = _shape_of(source, *ordered["train"][0], tables)
    clips = {split: tuple(ClipFolder(*each, shape) for each in ordered[split]) for split in SPLITS}
    names = [name for folders in clips.values() for clip in folders for name in _names(clip, tables)]
    check_sizes(source, names)
    held_out = not clips["validate"]
    if held_out:
        clips["train"], clips["validate"] = hold_out(clips["train"])
    return ClipListing({**clips}, source.fingerprint(names, prefix), tuple(unused), held_out=held_out, shape=shape)


def _files_of_clips(source: Source, prefix: str) -> tuple[dict[str, dict[str, _Files]], list[str]]:
    """Returns split -> folder of a clip -> its files, and the files that are not used."""
    names: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
    unused = []
    for name in source.members:
        split, _, rest = name.removeprefix(prefix).partition("/")
        folder, _, file = rest.rpartition("/")
        is_csv = file.lower().endswith(".csv")
        if not name.startswith(prefix) or split not in SPLITS or not (PICTURE.fullmatch(file) or is_csv):
            unused.append(name)
            continue
        if not CLIP.fullmatch(folder) or (is_csv and file not in TABLES):
            raise UserError(f"{name} is unexpected; {WANTED}; remove or rename it")
        names[split].setdefault(folder, []).append(file)
    shared: dict[tuple[str, ...], _Files] = {}  # a million clips have the same few tuples of names
    files: dict[str, dict[str, _Files]] = {split: {} for split in SPLITS}
    for split, folders in names.items():
        for folder, own in folders.items():
            key = tuple(sorted(own))
            if key not in shared:
                pictures = numbered((file for file in key if file not in TABLES), f"{prefix}{split}/{folder}")
                shared[key] = _Files(pictures, tuple(file for file in key if file in TABLES))
            files[split][folder] = shared[key]
    return files, unused


def _shape_of(source: Source, folder: str, pictures: tuple[str, ...], tables: list[str]) -> ClipShape:
    """Returns the shape of a clip; UserError where its first picture or a table cannot be read."""
    widths = dict.fromkeys(TABLES, 0)
    for file in tables:
        name = f"{folder}/{file}"
        table, others = parse_table(source.read(name), name, len(pictures))
        widths[file] = table.shape[1]
        if others:
            say(f"tables with {' and '.join(others)} are read, such as {name}")
    first = f"{folder}/{pictures[0]}"
    return ClipShape(len(pictures), image_size(source.read(first), first), *widths.values())


def _prefix(source: Source) -> str:
    """Returns the common prefix of the clips' names: the path of the folder with the splits."""
    matches = (CLIP_FILE.fullmatch(name) for name in source.members)
    first, *others = sorted({match[1] or "" for match in matches if match}) or [""]
    if others:
        found = f"{source.path} holds two data sets, in {first or '.'} and {others[0]}"
        raise UserError(f"{found}; needed: one; remove the other")
    return f"{first}/" if first else ""


def _in_order(
    place: str, folders: dict[str, _Files], length: int, tables: list[str]
) -> list[tuple[str, tuple[str, ...]]]:
    """Returns folder and pictures of the clips of one split. Says how many numbers of clips are missing.

    UserError where a clip lacks a file or has one too many. Frames may be counted from 0 or from 1.
    """
    numbers: dict[Number, str] = {}
    clips: dict[str, tuple[str, tuple[str, ...]]] = {}
    shared: dict[int, tuple[str, ...]] = {}
    for folder, files in folders.items():
        first = 1 if files.pictures and min(files.pictures) == 1 and max(files.pictures) == length else 0
        wanted = range(first, first + length)
        lacking = [f"{n}.png" for n in wanted if n not in files.pictures] + [t for t in tables if t not in files.tables]
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise UserError(
                f"{place}/{folder} lacks {lacking[0]}{more}; needed: {' and '.join([f'{length} frames', *tables])}"
            )
        if beyond := sorted(files.pictures.keys() - set(wanted)):
            unexpected = f"{place}/{folder}/{files.pictures[beyond[0]]} is unexpected"
            raise UserError(f"{unexpected}; {WANTED}; most clips have {length} frames; remove or rename it")
        match = CLIP.fullmatch(folder)
        assert match is not None, "names were matched when they were listed"
        key = tuple(map(int, match.groups()))
        if key in numbers:
            raise UserError(
                f"{place}/{numbers[key]} and {folder} are both clip {key[2]}; needed: one; remove the other"
            )
        numbers[key] = folder
        pictures = shared.setdefault(id(files), tuple(files.pictures[number] for number in wanted))
        clips[folder] = (f"{place}/{folder}", pictures)
    ordered = sorted(numbers)
    holes = [one for one, two in pairwise(ordered) if one[:2] == two[:2] and two[2] > one[2] + 1]
    if holes:
        say(f"{place}: numbers of clips are missing at {len(holes)} places, such as behind {numbers[holes[0]]}")
    return [clips[numbers[key]] for key in ordered]


def _names(clip: ClipFolder, tables: list[str]) -> Iterator[str]:
    return (f"{clip.name}/{file}" for file in (*clip.pictures, *tables))


def read_clip_folders(source: Source) -> PushingContent:
    """Returns the clips of a source, listed but not decoded."""
    return content_of(source, list_clip_folders(source), kind=source.kind)
