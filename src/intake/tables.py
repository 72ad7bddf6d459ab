"""Tables of numbers beside the frames of a clip, as people write them -> arrays. Only what is certain is read."""

import re

import numpy as np

from src.base.console import UserError

DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
DELIMITERS = {";": "semicolons", "\t": "tabs", ",": "", " ": "spaces"}  # in the order in which they are tried
INDEX_NAMES = ("", "index", "unnamed: 0", "row")
Row = tuple[int, list[str]]  # number of the line, from 1 on, and its cells


def parse_table(data: bytes, name: str, length: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the numbers of a table, (length, columns) float32, and what else it holds, such as a header.

    UserError for text in place of numbers, for numbers that are not finite, and for another number of lines.
    """
    found: list[str] = []
    rows, delimiter = _rows(data, found)
    if delimiter == ";":
        rows = [(line, [cell.replace(",", ".") for cell in cells]) for line, cells in rows]
    if all(len(cells) > 1 and not cells[-1] for _, cells in rows):
        rows = [(line, cells[:-1]) for line, cells in rows]
    rows = _without_header(rows, length, found)
    needed = f"needed: {length} lines of numbers"
    values = [
        [_decimal(cell, f"{name} line {line} column {column}", needed) for column, cell in enumerate(cells, 1)]
        for line, cells in rows
    ]
    widths = sorted({len(row) for row in values})
    if len(rows) != length or len(widths) != 1:
        columns = " or ".join(map(str, widths)) or "no"
        raise UserError(f"{name} holds {len(rows)} lines of {columns} numbers; {needed}, the same count in each")
    with np.errstate(over="ignore"):
        table = np.array(values).astype(np.float32)
    if not np.isfinite(table).all():
        raise UserError(f"{name} holds NaN or a number too large for float32; {needed}")
    return table, tuple(found)


def _rows(data: bytes, found: list[str]) -> tuple[list[Row], str]:
    """Returns the lines that hold something, in cells, and what stands between the cells."""
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = data.decode("utf-16" if wide else "utf-8-sig", "replace")
    if wide or data.startswith(b"\xef\xbb\xbf"):
        found.append("a byte order mark")
    lines = [(number, line.strip(" ")) for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1)]
    if any(line.startswith("#") for _, line in lines):
        found.append("comments")
    lines = [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]
    last = lines[-1][1] if lines else ""
    delimiter = next((each for each in DELIMITERS if each in last), ",")
    if DELIMITERS[delimiter]:
        found.append(DELIMITERS[delimiter])
    parts = ((number, line.split() if delimiter == " " else line.split(delimiter)) for number, line in lines)
    return [(number, [cell.strip().strip('"').strip() for cell in cells]) for number, cells in parts], delimiter


def _without_header(rows: list[Row], length: int, found: list[str]) -> list[Row]:
    """Returns the rows without a header, and without the column that it calls an index."""
    if len(rows) != length + 1:
        return rows
    (_, header), *others = rows
    named = header[1:] if header[0].lower() in INDEX_NAMES else header
    if any(map(DECIMAL.fullmatch, named)) and named != [str(number) for number in range(len(named))]:
        return rows  # numbers, and not those by which pandas names columns: one line too many
    found.append("a header")
    firsts = [cells[0] for _, cells in others]
    is_count = any(firsts == [str(number + first) for number in range(length)] for first in (0, 1))
    if is_count and (named != header or all(len(cells) == len(header) + 1 for _, cells in others)):
        found.append("an index")
        return [(line, cells[1:]) for line, cells in others]
    return others


def _decimal(cell: str, place: str, needed: str) -> float:
    """Returns the number in a cell; UserError for a text that only Python reads as a number, such as 1_0 or nan."""
    if not DECIMAL.fullmatch(cell):
        raise UserError(f"{place} holds {cell[:40]!r}, which is not a number; {needed}")
    return float(cell)
