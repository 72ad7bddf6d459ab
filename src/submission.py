"""Predictions -> submissions/<run>.csv, checked, with submissions/<run>.json saying where it comes from.

The format: header `id,0,1,...,6143`; one row per frame in sequence order, id = 0, 1, 2, ...; then the frame's values in
C, H, W order as integers 0..255. Each sequence has 630 rows, the first of which is the given frame.
"""

import argparse
import hashlib
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from src.base.console import UserError, run_main, say
from src.base.files import file_hash, write_atomically
from src.intake.sources import FRAME_SIZE, decode, image_size
from src.maths.metrics import quantise

FRAME_SHAPE = (3, *FRAME_SIZE)  # C, H, W
SEQUENCE_LENGTH = 630  # rows of one sequence, the given frame among them
MAX_FAULTS = 10  # a broken file has thousands; the first ones say what is wrong
CELLS = np.array([str(value).encode() for value in range(256)], dtype=object)  # a frame's numbers as they are written
VALUES = {cell: value for value, cell in enumerate(CELLS)}

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class CheckedSubmission:
    """What a faultless file holds; `sha256` is that of the bytes that were checked."""

    num_rows: int
    num_sequences: int
    sha256: str


class Provenance(BaseModel):
    """Where a csv comes from; kept beside it as <run>.json. `local_score` is the validation score in dB."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    run: str
    csv_sha256: Sha256
    num_rows: int
    num_sequences: int
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)$")]  # UTC, ISO 8601
    commit: str | None  # None outside a git checkout
    dataset: str
    dataset_fingerprint: str
    config_sha256: Sha256
    checkpoint_sha256: Sha256
    checkpoint_step: int
    local_score: float | None  # None where the run was never validated
    seed: int

    def save(self, path: Path) -> None:
        """Writes the JSON file, whole or not at all."""
        write_atomically(path, (self.model_dump_json(indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "Provenance":
        """Returns what `save` wrote; UserError where the file is missing, damaged or from another version."""
        if not path.is_file():
            raise UserError(f"{path} does not exist; `make submission RUN={path.stem}` writes it together with the csv")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the file"
            raise UserError(
                f"{path}: {place}: {first['msg']}; it does not say where its csv comes from; move both away and "
                f"run `make submission RUN={path.stem}` again"
            ) from None


def provenance_path(csv_path: Path) -> Path:
    """The JSON file that belongs to a csv: the same name beside it."""
    return csv_path.with_suffix(".json")


def safe_to_replace(csv_path: Path) -> None:
    """Raises UserError if `csv_path` holds something these commands did not write, which must not be overwritten."""
    if not csv_path.exists():
        return
    json_path = provenance_path(csv_path)
    mend = f"move it away (mv {csv_path} {csv_path}.kept) and run the same command again"
    if not json_path.is_file():
        raise UserError(f"{csv_path} exists and no {json_path.name} beside it says where it comes from; {mend}")
    if file_hash(csv_path) != Provenance.load(json_path).csv_sha256:
        raise UserError(f"{csv_path} exists and is not the file that {json_path.name} describes; {mend}")


def write_submission(
    path: Path,
    rollouts: Tensor,
    *,
    frame_shape: tuple[int, int, int] = FRAME_SHAPE,
    sequence_length: int = SEQUENCE_LENGTH,
) -> None:
    """Writes rollouts (K, 630, 3, 32, 64), float in [0, 1] or uint8, as the competition's csv, whole or not at all.

    Raises UserError where `path` must not be replaced (`safe_to_replace`).
    """
    num_values = math.prod(frame_shape)
    assert rollouts.ndim == 5 and len(rollouts) > 0, f"rollouts are (K, T, C, H, W), these are {tuple(rollouts.shape)}"
    assert rollouts.shape[1:] == (sequence_length, *frame_shape), f"a rollout of shape {tuple(rollouts.shape[1:])}"
    integers = quantise(rollouts) if rollouts.is_floating_point() else rollouts
    rows = integers.reshape(len(rollouts) * sequence_length, num_values).cpu().numpy()
    assert rows.dtype == np.uint8 and rows.shape == (len(rollouts) * sequence_length, num_values), rows.shape
    safe_to_replace(path)
    lines = [b",".join([b"id", *(str(column).encode() for column in range(num_values))])]
    lines += (b"%d,%b" % (i, b",".join(CELLS[row].tolist())) for i, row in enumerate(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, b"\n".join(lines) + b"\n")


def check_submission(
    path: Path,
    *,
    first_frames: np.ndarray | None = None,
    num_sequences: int | None = None,
    sequence_length: int = SEQUENCE_LENGTH,
    frame_shape: tuple[int, int, int] = FRAME_SHAPE,
) -> CheckedSubmission:
    """What the file holds, if the competition can read it; UserError with the first fault and how many there are.

    first_frames: uint8 (K, 3, 32, 64), what frame 0 of each sequence must be; it also fixes the number of sequences.
    """
    content = _read(path)
    faults = _distinct(_faults(content, first_frames, num_sequences, sequence_length, frame_shape))
    if faults:
        count = f"{len(faults)} or more faults" if len(faults) == MAX_FAULTS else f"{len(faults)} faults"
        more = f" ({count}; python -m src.submission check {path} lists them)" if len(faults) > 1 else ""
        raise UserError(f"{path}: {faults[0]}{more}")
    num_rows = len(content.splitlines()) - 1
    return CheckedSubmission(num_rows, num_rows // sequence_length, hashlib.sha256(content).hexdigest())


def find_faults(
    path: Path,
    *,
    first_frames: np.ndarray | None = None,
    num_sequences: int | None = None,
    sequence_length: int = SEQUENCE_LENGTH,
    frame_shape: tuple[int, int, int] = FRAME_SHAPE,
) -> list[str]:
    """One line for each kind of fault of the file, the first ten; empty for a file `check_submission` accepts."""
    return _distinct(_faults(_read(path), first_frames, num_sequences, sequence_length, frame_shape))


def _distinct(faults: Iterator[str]) -> list[str]:
    """The first ten faults that differ in more than numbers and quoted values, with the number of others like them."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for fault in faults:
        kind = re.sub(r"'[^']*'|[0-9]+| \(and .* in this line\)", "", fault)
        first.setdefault(kind, fault)
        counts[kind] += 1
    lines = (text + (f"; {counts[kind] - 1} more like it" if counts[kind] > 1 else "") for kind, text in first.items())
    return list(islice(lines, MAX_FAULTS))


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"{path} is a folder; needed: a csv file, such as submissions/<run>.csv")
    if not path.is_file():
        own = path.absolute() == Path("submissions", f"{path.stem}.csv").absolute()
        needed = f"`make submission RUN={path.stem}` writes it" if own else "needed: the csv file to check"
        raise UserError(f"{path} does not exist; {needed}")
    return path.read_bytes()


def _faults(
    content: bytes,
    first_frames: np.ndarray | None,
    num_sequences: int | None,
    sequence_length: int,
    frame_shape: tuple[int, int, int],
) -> Iterator[str]:
    assert first_frames is None or first_frames.shape[1:] == frame_shape, first_frames.shape
    num_values = math.prod(frame_shape)
    if not content.strip():
        yield "the file is empty"
    elif content.startswith(b"\xef\xbb\xbf"):
        yield "line 1 begins with a byte order mark; save the file as UTF-8 without BOM"
    elif b"\0" in content:
        yield "not a text file (it holds NUL bytes); needed: a csv as plain text, not zipped and not UTF-16"
    else:
        header, *rows = content.splitlines()
        columns = header.split(b",")
        yield from _header_faults(columns, num_values)
        if len(columns) == num_values + 1:  # otherwise each row has the same fault again
            if first_frames is not None and num_sequences is None:
                num_sequences = len(first_frames)
            yield from _id_faults(rows)
            yield from _cell_faults(rows, num_values)
            yield from _count_faults(len(rows), num_sequences, sequence_length)  # follows from those with a line
            if first_frames is not None:
                yield from _first_frame_faults(rows[::sequence_length], first_frames, sequence_length)


def _header_faults(columns: Sequence[bytes], num_values: int) -> Iterator[str]:
    needed = [b"id", *(str(column).encode() for column in range(num_values))]
    differing = (number for number, pair in enumerate(zip(columns, needed, strict=False)) if pair[0] != pair[1])
    first = next(differing, None)
    place = "" if first is None else f"column {first + 1} is {_shown(columns[first])}, needs {_shown(needed[first])}"
    if len(columns) != len(needed):
        count = f"line 1: the header has {len(columns)} columns, needs {len(needed)}: id,0,...,{num_values - 1}"
        if columns[1:] == needed:
            place = "the first is one too many, as pandas writes its index: to_csv(..., index=False)"
        yield f"{count}; {place}" if place else count
    elif place:
        yield f"line 1: header {place}"


def _count_faults(num_rows: int, num_sequences: int | None, sequence_length: int) -> Iterator[str]:
    if num_sequences is not None and num_rows != num_sequences * sequence_length:
        needed = num_sequences * sequence_length
        yield f"{num_rows} rows below the header, needs {needed}: {num_sequences} sequences of {sequence_length}"
    elif num_rows == 0:
        yield "a header and no rows below it"
    elif num_rows % sequence_length:
        yield f"{num_rows} rows below the header, not a multiple of {sequence_length}, the length of a sequence"


def _id_faults(rows: Sequence[bytes]) -> Iterator[str]:
    # After a gap the count goes on from the id found, so that one missing row is one fault.
    expected, seen = 0, set[int]()
    for line, row in enumerate(rows, start=2):
        cell = row.split(b",", 1)[0]
        if not row.strip():
            continue  # a blank line is a fault of its own
        if cell == b"%d" % expected:
            found = expected
        elif not re.fullmatch(rb"0|[1-9][0-9]{0,8}", cell):
            yield f"line {line}: the id is {_shown(cell)}, needs {expected}"
            found = expected
        else:
            found = int(cell)
            if found in seen:
                yield f"line {line}: id {found} is there twice"
            elif found < expected:
                yield f"line {line}: id {found} is out of order"
            elif expected == 0:
                yield f"line {line}: the first id is {found}, needs 0"
            else:
                missing = f"id {expected} is" if found == expected + 1 else f"ids {expected}..{found - 1} are"
                yield f"line {line}: {missing} missing before id {found}"
        seen.add(found)
        expected = max(expected, found + 1)


def _cell_faults(rows: Sequence[bytes], num_values: int) -> Iterator[str]:
    for line, row in enumerate(rows, start=2):
        cells = row.split(b",")
        if not row.strip():
            yield f"line {line} is blank"
        elif len(cells) != num_values + 1:
            yield f"line {line} has {len(cells)} cells, needs {num_values + 1}"
        elif not VALUES.keys() >= set(cells[1:]):
            wrong = [(column, cell) for column, cell in enumerate(cells[1:]) if cell not in VALUES]
            column, cell = wrong[0]
            more = f" (and {len(wrong) - 1} more in this line)" if len(wrong) > 1 else ""
            yield f"line {line}, column '{column}': {_cell_fault(cell)}{more}"


def _cell_fault(cell: bytes) -> str:
    text = cell.decode(errors="replace")
    if not text.strip():
        return "empty, needs an integer 0..255"
    if text.strip().lower() in ("nan", "na", "n/a", "null", "none"):
        return f"{_shown(cell)} is no number, needs an integer 0..255"
    if re.fullmatch("-?[1-9][0-9]*", text):
        return f"{_shown(cell)} is outside 0..255; clip to 0..255 and round before writing"
    mend = "; pandas writes floats so: .astype(int) before to_csv" if re.fullmatch(r"[0-9]+\.[0-9]*", text) else ""
    return f"{_shown(cell)} is not written as an integer 0..255{mend}"


def _first_frame_faults(rows: Sequence[bytes], first_frames: np.ndarray, sequence_length: int) -> Iterator[str]:
    for sequence, (row, frame) in enumerate(zip(rows, first_frames, strict=False)):
        cells, given = row.split(b",")[1:], np.asarray(frame, dtype=np.int16).reshape(-1)
        if len(cells) != given.size or not VALUES.keys() >= set(cells):
            continue  # reported with its line already
        distance = np.abs(np.array([VALUES[cell] for cell in cells], dtype=np.int16) - given)
        if distance.any():
            yield (
                f"line {2 + sequence * sequence_length}: frame 0 of sequence {sequence} is not the given first frame: "
                f"{np.count_nonzero(distance)} of {given.size} values differ, by up to {distance.max()}"
            )


def _shown(cell: bytes) -> str:
    text = cell.decode(errors="replace")
    return repr(text if len(text) <= 20 else text[:20] + "...")


def read_first_frames(folder: Path) -> np.ndarray:
    """The given frames of a test folder, uint8 (K, 3, 32, 64), from `folder`/K/*.png, K = 0, 1, ..., one each."""
    sequences = sorted((path for path in folder.glob("*") if path.name.isdecimal()), key=lambda path: int(path.name))
    if [path.name for path in sequences] != [str(k) for k in range(len(sequences))] or not sequences:
        found = ", ".join(path.name for path in sequences) or "none"
        raise UserError(f"{folder} needs folders 0, 1, ... with one first frame each; found {found}")
    return np.stack([_read_first_frame(sequence) for sequence in sequences])


def _read_first_frame(folder: Path) -> np.ndarray:
    pictures = sorted(folder.glob("*.png"))
    if len(pictures) != 1:
        raise UserError(f"{folder} holds {len(pictures)} PNG files, needs one, the first frame of its sequence")
    data, name = pictures[0].read_bytes(), str(pictures[0])
    image_size(data, name)  # refuses what `decode` does not expect
    return decode(data, name).transpose(2, 0, 1)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.format_usage()}")


def main() -> None:
    """`python -m src.submission check FILE`: says that a csv is valid, or what is wrong with it."""
    parser = _Parser(prog="python -m src.submission", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "check", help="one line for a valid file (exit 0), one per kind of fault otherwise (exit 2)"
    )
    check.add_argument("file", metavar="FILE", type=Path)
    check.add_argument("--first-frames", type=Path, metavar="FOLDER", help="the data set's test_img folder (K/*.png)")
    check.add_argument("--length", type=int, default=SEQUENCE_LENGTH, help="rows of one sequence (%(default)s)")
    arguments = parser.parse_args()
    if arguments.length < 1:
        parser.error(f"--length is {arguments.length}, needs at least 1")
    first_frames = read_first_frames(arguments.first_frames) if arguments.first_frames else None
    try:
        checked = check_submission(arguments.file, first_frames=first_frames, sequence_length=arguments.length)
    except UserError:
        for fault in find_faults(arguments.file, first_frames=first_frames, sequence_length=arguments.length):
            print(f"error: {arguments.file}: {fault}", file=sys.stderr)
        sys.exit(2)
    say(f"valid: {checked.num_rows} rows, {checked.num_sequences} sequences, sha256 {checked.sha256}")


if __name__ == "__main__":
    run_main(main)
