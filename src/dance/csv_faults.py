"""Finds the faults of a submission's csv. Each kind of fault gives one line."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

MAX_FAULTS = 10  # a broken file has thousands of faults; the first ones are enough
MEND_OF_DECIMALS = "; round, then use .astype(int), before to_csv"
MEND_OF_UNIT = "; if the values lie in 0..1, multiply them by 255, round, then use .astype(int), before to_csv"
NAN = "pandas writes NaN so; look for NaN and infinity in the predictions"
CELLS = np.array([str(value).encode() for value in range(256)], dtype=object)  # the text of each value in the csv
VALUES = {cell: value for value, cell in enumerate(CELLS)}


def distinct(faults: Iterator[str]) -> list[str]:
    """Returns the first fault of each kind, at most ten. It adds the number of other faults of the same kind.

    Two faults are of the same kind if they differ only in numbers and quoted values.
    """
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for fault in faults:
        kind = re.sub(r"'[^']*'|[0-9]+| \(and .* in this line\)", "", fault)
        first.setdefault(kind, fault)
        counts[kind] += 1
    lines = (text + (f"; {counts[kind] - 1} more like it" if counts[kind] > 1 else "") for kind, text in first.items())
    return list(islice(lines, MAX_FAULTS))


def faults_of(
    content: bytes,
    first_frames: np.ndarray | None,
    num_sequences: int | None,
    sequence_length: int,
    frame_shape: tuple[int, int, int],
    *,
    lines: Sequence[int] | None = None,
) -> Iterator[str]:
    """Yields a line for each fault of a csv. For the arguments see `submission.check_submission`.

    lines: for each line of `content` its number in the file that a person has; the same number if there is none.
    """
    assert first_frames is None or first_frames.shape[1:] == frame_shape, first_frames.shape
    num_values = math.prod(frame_shape)
    if not content.strip():
        yield "the file is empty"
        return
    header, *rows = content.splitlines()
    columns = header.split(b",")
    numbered = list(zip((lines or range(1, len(rows) + 2))[1:], rows, strict=True))
    yield from _header_faults(columns, num_values)
    if len(columns) != num_values + 1:  # every row would repeat the fault of the header
        return
    if first_frames is not None and num_sequences is None:
        num_sequences = len(first_frames)
    id_faults = list(_id_faults(numbered))
    yield from id_faults
    yield from _cell_faults(numbered, num_values)
    if not id_faults:  # otherwise they may be its cause
        yield from _count_faults(len(rows), num_sequences, sequence_length)
    if first_frames is not None:
        yield from _first_frame_faults(numbered[::sequence_length], first_frames)


def doubts_of(content: bytes, sequence_length: int) -> Iterator[str]:
    """Yields a line for each doubt about a valid csv: what is allowed and makes no sense as pictures."""
    rows = [row.partition(b",")[2] for row in content.splitlines()[1:]]
    drawn = {i: row for i, row in enumerate(rows) if i % sequence_length}  # the first frame of a sequence is given
    if not drawn:
        return
    if all(set(row.split(b",")) <= {b"0", b"1"} for row in drawn.values()):
        yield "all drawn values are 0 or 1, so the frames are black; were values in 0..1 not multiplied by 255?"
    elif all(len(set(row.split(b","))) == 1 for row in drawn.values()):
        yield "every drawn frame has one single value: are the pictures empty?"
    elif len(set(drawn.values())) == 1 and len(drawn) > 1:
        yield "all drawn frames are equal"
    elif all(row == rows[i - i % sequence_length] for i, row in drawn.items()):
        yield "every sequence repeats its first frame: that is the score of a copy, not of a prediction"


def _header_faults(columns: Sequence[bytes], num_values: int) -> Iterator[str]:
    needed = [b"id", *(str(column).encode() for column in range(num_values))]
    differing = (number for number, pair in enumerate(zip(columns, needed, strict=False)) if pair[0] != pair[1])
    first = next(differing, None)
    place = "" if first is None else f"column {first + 1} is {_shown(columns[first])}, needs {_shown(needed[first])}"
    if len(columns) != len(needed):
        count = f"line 1: the header has {len(columns)} columns, needs {len(needed)}: id,0,...,{num_values - 1}"
        if columns == needed[1:]:
            place = "the column of ids is missing; in pandas: table.insert(0, 'id', range(len(table)))"
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


def _id_faults(rows: Sequence[tuple[int, bytes]]) -> Iterator[str]:
    # After a gap the count continues from the id that was found. So one missing row is one fault.
    expected = 0
    seen = set[int]()
    for line, row in rows:
        cell = row.split(b",", 1)[0]
        if not row.strip():
            yield f"line {line} is blank"
            continue
        if cell == b"%d" % expected:
            found = expected
        elif cell == b"id":
            yield f"line {line} repeats the header; are these two csv files, one after the other?"
            continue
        elif not re.fullmatch(rb"0|[1-9][0-9]{0,8}", cell):
            yield f"line {line}: the id is {_shown(cell)}, needs {expected}"
            found = expected
        else:
            found = int(cell)
            if found in seen:
                yield f"line {line}: id {found} occurs twice"
            elif found < expected:
                yield f"line {line}: id {found} is out of order"
            elif expected == 0:
                yield f"line {line}: the first id is {found}, needs 0"
            else:
                missing = f"id {expected} is" if found == expected + 1 else f"ids {expected}..{found - 1} are"
                yield f"line {line}: {missing} missing before id {found}"
        seen.add(found)
        expected = max(expected, found + 1)


def _cell_faults(rows: Sequence[tuple[int, bytes]], num_values: int) -> Iterator[str]:
    for line, row in rows:
        cells = row.split(b",")
        if not row.strip() or cells[0] == b"id":
            continue  # `_id_faults` reports this row
        if len(cells) != num_values + 1:
            yield f"line {line} has {len(cells)} cells, needs {num_values + 1}"
        elif not VALUES.keys() >= set(cells[1:]):
            wrong = [(column, cell) for column, cell in enumerate(cells[1:]) if cell not in VALUES]
            column, cell = wrong[0]
            more = f" (and {len(wrong) - 1} more in this line)" if len(wrong) > 1 else ""
            yield f"line {line}, column '{column}': {_cell_fault(cell)}{more}"


def _cell_fault(cell: bytes) -> str:
    text = cell.decode(errors="replace")
    if not text.strip():
        return f"empty, needs an integer 0..255; {NAN}"
    if text.strip().lower().lstrip("+-") in ("nan", "na", "n/a", "null", "none", "inf", "infinity"):
        return f"{_shown(cell)} is not a number, needs an integer 0..255; {NAN}"
    if re.fullmatch("-?[1-9][0-9]*", text):
        return f"{_shown(cell)} is outside 0..255; clip to 0..255 and round before writing"
    is_decimal = re.fullmatch(r"[0-9]+\.[0-9]*(e[+-]?[0-9]{1,4})?", text, re.IGNORECASE)
    mend = "" if not is_decimal else MEND_OF_UNIT if float(text) <= 1 else MEND_OF_DECIMALS
    return f"{_shown(cell)} is not written as an integer 0..255{mend}"


def _first_frame_faults(rows: Sequence[tuple[int, bytes]], first_frames: np.ndarray) -> Iterator[str]:
    for sequence, ((line, row), frame) in enumerate(zip(rows, first_frames, strict=False)):
        cells = row.split(b",")[1:]
        given = np.asarray(frame, dtype=np.int16).reshape(-1)
        if len(cells) != given.size or not VALUES.keys() >= set(cells):
            continue  # `_cell_faults` reports this row
        distance = np.abs(np.array([VALUES[cell] for cell in cells], dtype=np.int16) - given)
        if distance.any():
            yield (
                f"line {line}: frame 0 of sequence {sequence} is not the given first frame: "
                f"{np.count_nonzero(distance)} of {given.size} values differ, by up to {distance.max()}"
            )


def _shown(cell: bytes) -> str:
    text = cell.decode(errors="replace")
    return repr(text if len(text) <= 20 else text[:20] + "...")
