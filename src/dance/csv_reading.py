"""Reads a csv as a person meant it: quotes, semicolons, an index, other orders. Only what is certain is read so."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

Record = tuple[int, list[str]]  # the number of its line, counted from 1, and its cells
NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
NAMED_NUMBER = re.compile(r"[A-Za-z_. -]{0,12}([0-9]{1,9})(?:\.0)?")
UNNAMED = {
    "",
    "unnamed: 0",
    "index",
    "row",
    "rownames",
    "row.names",
}  # how programs call a column that numbers the rows
DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars", ",": "commas", " ": "spaces"}
FOREIGN = {  # how the file begins -> what it is
    b"PK\x03\x04": "a zip or an Excel workbook; unpack it, or save the sheet as csv",
    b"\x1f\x8b": "packed with gzip; unpack it with gunzip",
    b"\x93NUMPY": "an array of numpy; needed is a csv, such as `make submission` writes",
    b"PAR1": "a parquet file; write it with to_csv(..., index=False)",
    b"\x89HDF": "an HDF5 file; write it with to_csv(..., index=False)",
}
ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\xef\xbb\xbf": "UTF-8-SIG"}


class NotRead(ValueError):
    """This file cannot be read as a csv. The text is the one cause."""


@dataclass
class Reading:
    """What a csv means. `content` says it as Kaggle needs it; `lines` holds the line of the file for each of its lines.

    `usual` are ways of writing that every reader takes, Kaggle's too; a csv with one of the ways in `odd` is refused or
    misread there.
    """

    content: bytes = b""
    lines: list[int] = field(default_factory=list)
    usual: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    def note(self, ways: list[str], way: str) -> None:
        """Adds a way of writing once."""
        if way not in ways:
            ways.append(way)


def read_as_meant(content: bytes, num_values: int) -> Reading:
    """Returns what a csv with `num_values` values a row means. NotRead for a file that is no csv.

    What is not certain is left as it is; `csv_faults` then names it.
    """
    reading = Reading()
    text = _decoded(content, reading)
    first_line = next((line for line in _lines(text) if line.strip()), "")
    skipped = 0
    if (found := re.fullmatch(r"sep=(.)", first_line.strip('"'))) is not None:  # Excel reads it, nothing else does
        reading.note(reading.odd, f"the line {found[0]!r} before the header")
        skipped = _lines(text).index(first_line) + 1
        first_line = next((line for line in _lines(text)[skipped:] if line.strip()), "")
    delimiter = _delimiter(first_line, num_values)
    records = _without_blanks(_records(text, delimiter, skipped, reading), reading)
    head = list(islice(records, 3))  # what the header means is seen in these
    if not head:
        raise NotRead("the file is empty")
    if delimiter != ",":
        reading.note(reading.odd, f"{DELIMITERS[delimiter]} between the cells")
    if head[0][1][0].startswith("#"):
        reading.note(reading.odd, "a '#' before the header")
        head[0][1][0] = head[0][1][0].lstrip("# ")
    _rewrite(head, records, num_values, reading)
    return reading


def _decoded(content: bytes, reading: Reading) -> str:
    for start, what in FOREIGN.items():
        if content.startswith(start):
            raise NotRead(f"it is no csv but {what}")
    encoding = next((name for mark, name in ENCODINGS.items() if content.startswith(mark)), "")
    if not encoding and len(content) > 2 and not any(content[1:100:2]) and all(content[0:100:2]):
        encoding = "UTF-16-LE"
    if encoding:
        way = "a byte order mark" if encoding == "UTF-8-SIG" else "UTF-16 text"
        reading.note(reading.odd, way)
    text = content.decode(encoding or "UTF-8", errors="replace")
    if "\0" in text:
        raise NotRead("not a text file (it holds NUL bytes); needed: a csv as plain text, not zipped")
    return text


def _lines(text: str) -> list[str]:
    """Returns the lines of a csv. Only CR, LF and both end one; `str.splitlines` knows other ends as well."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def _delimiter(first_line: str, num_values: int) -> str:
    """Returns the character between the cells: the one that makes as many cells as are needed, or almost."""
    counts = {delimiter: first_line.strip().count(delimiter) + 1 for delimiter in DELIMITERS}
    fitting = [delimiter for delimiter, count in counts.items() if num_values <= count <= num_values + 2]
    if fitting:
        return fitting[0]
    return "," if counts[","] > 1 else max(counts, key=counts.__getitem__)


def _records(text: str, delimiter: str, skipped: int, reading: Reading) -> Iterator[Record]:
    lines = _lines(text)[skipped:]
    if '"' not in text:
        yield from ((number, line.split(delimiter)) for number, line in enumerate(lines, start=1 + skipped))
        return
    reading.note(reading.usual, "cells in quotes")
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=delimiter != " ")
    try:
        for cells in reader:
            yield reader.line_num + skipped, cells
    except csv.Error as error:
        place = f"line {reader.line_num + skipped}"
        raise NotRead(
            f"{place}: the quotes do not fit ({error}); needed: none, or one before and after a cell"
        ) from None


def _without_blanks(records: Iterator[Record], reading: Reading) -> Iterator[Record]:
    """Leaves out blank lines, and lines of empty cells at the end, as a spreadsheet writes them."""
    waiting: list[Record] = []
    for number, cells in records:
        if len(cells) < 2 and not "".join(cells).strip():
            reading.note(reading.usual, "blank lines")
        elif any(cell.strip() for cell in (*cells[:2], cells[-1])) or any(cell.strip() for cell in cells):
            yield from waiting
            waiting = []
            yield number, cells
        else:
            waiting.append((number, cells))
    if waiting:
        reading.note(reading.odd, f"lines of empty cells at the end (line {waiting[0][0]})")


def _rewrite(head: list[Record], others: Iterator[Record], num_values: int, reading: Reading) -> None:
    """Writes the records as Kaggle needs them: columns, then numbers, then the order of the rows."""
    needed = ["id", *(str(column) for column in range(num_values))]
    first_number, first = head[0]
    order = _order_of_header(first, num_values, reading)
    header, start = first, 1
    if order is not None:
        header = needed
    elif _is_row(head, num_values):
        reading.note(reading.odd, "no header")
        header, start, order, first_number = needed, 0, list(range(num_values + 1)), 1
    elif _are_default_names(head, num_values):
        reading.note(reading.odd, "column names 0, 1, ... without 'id'")
        header, order = needed, list(range(num_values + 1))
    shift = _shift_of_row_names(head[1:], len(first))
    if shift:
        reading.note(reading.odd, "a name before each row that the header lacks (R: row.names = FALSE)")
    written = _written(chain(head[start:], others), len(first), order or list(range(len(first))), shift, reading)
    rows = _in_order([(number, ",".join(cells)) for number, cells in written], reading)
    reading.lines = [first_number, *(number for number, _ in rows)]
    reading.content = "\n".join([",".join(header), *(row for _, row in rows)]).encode()


def _order_of_header(cells: Sequence[str], num_values: int, reading: Reading) -> list[int] | None:
    """Returns for each needed column its place in the file; None if the header does not say it for certain."""
    names = [cell.strip() for cell in cells]
    found: dict[str, int] = {}
    others: list[int] = []
    for place, name in enumerate(names):
        match = NAMED_NUMBER.fullmatch(name)
        key = "id" if name.casefold() == "id" else str(int(match[1])) if match else ""
        if key in found or (not key and name.casefold() not in UNNAMED):
            return None
        if key:
            found[key] = place
        else:
            others.append(place)
    if set(found) - {"id"} != {str(column) for column in range(num_values)}:
        return None
    if "id" not in found:
        if others != [0]:
            return None
        found["id"] = others.pop()
        reading.note(reading.odd, f"the name {names[0]!r} for the column 'id'")
    order = [found["id"], *(found[str(column)] for column in range(num_values))]
    _note_header(names, order, others, reading)
    return order


def _note_header(names: list[str], order: list[int], others: list[int], reading: Reading) -> None:
    if others and others == list(range(len(names) - len(others), len(names))):
        reading.note(reading.odd, "a comma at the end of the lines")
    elif others:
        reading.note(reading.odd, "a column that numbers the rows (pandas: to_csv(..., index=False))")
    if order != sorted(order):
        reading.note(reading.odd, "another order of the columns")
    needed = ["id", *(str(column) for column in range(len(order) - 1))]
    if other := [names[place] for place, name in zip(order, needed, strict=True) if names[place] not in (name, "")]:
        reading.note(reading.odd, f"column names such as {other[0]!r}")


def _is_row(records: list[Record], num_values: int) -> bool:
    """Returns whether the first line is a row and no header: numbers, and the ids go on from it."""
    cells = records[0][1]
    numbers = len(cells) == num_values + 1 and all(NUMBER.fullmatch(cell.strip()) for cell in cells)
    ids = [_whole(record[0]) for _, record in islice(records, 2)]
    return numbers and ids == ["0", "1"][: len(ids)]


def _are_default_names(records: list[Record], num_values: int) -> bool:
    """Returns whether the first line numbers the columns and the next one is row 0."""
    names = [str(column) for column in range(num_values + 1)]
    return [cell.strip() for cell in records[0][1]] == names and len(records) > 1 and _whole(records[1][1][0]) == "0"


def _written(rows: Iterator[Record], width: int, order: list[int], shift: int, reading: Reading) -> Iterator[Record]:
    """Yields the rows with the needed columns in order, and with whole numbers as digits alone."""
    known: dict[str, str] = {}
    straight = order == list(range(width))
    for number, cells in rows:
        row = cells[shift:]
        if len(row) == width + 1 and not row[-1].strip():
            reading.note(reading.odd, "a comma at the end of the lines")
            row = row[:-1]
        if len(row) == width:
            row = row if straight else [row[place] for place in order]
            if not known.keys() >= set(row):  # in the order of the cells, so that the first one is named
                known |= {cell: _plain(cell, number, reading) for cell in dict.fromkeys(row) if cell not in known}
            yield number, [known[cell] for cell in row]
        else:
            yield number, cells


def _shift_of_row_names(rows: list[Record], width: int) -> int:
    """Returns 1 if each row begins with its number, counted from 1, which the header does not name; else 0."""
    starts = [cells[:2] for _, cells in islice(rows, 2) if len(cells) == width + 1]
    return int(len(starts) > 1 and starts == [["1", "0"], ["2", "1"]])


def _plain(cell: str, number: int, reading: Reading) -> str:
    """Returns the digits of a whole number; any other cell without the space around it."""
    text = cell.strip()
    if text != cell:
        reading.note(reading.odd, "spaces around the cells")
    whole = _whole(text)
    if whole is None:
        return text.replace(",", ".") if NUMBER.fullmatch(text) else text.replace(",", " ")
    if whole != text and not any("numbers such as" in way for way in reading.odd):
        reading.note(reading.odd, f"numbers such as {text!r} (line {number})")
    return whole


def _whole(text: str) -> str | None:
    """Returns the digits of a text that stands for a whole number, such as 12, 12.0, 12,0 or 1.2e1; else None."""
    text = text.strip()
    if text.isdecimal() and text.isascii() and (text[0] != "0" or text == "0"):
        return text
    if not NUMBER.fullmatch(text) or len(text) > 30:  # no program writes longer ones
        return None
    value = float(text.replace(",", "."))
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else None


def _in_order(rows: list[tuple[int, str]], reading: Reading) -> list[tuple[int, str]]:
    """Returns the rows sorted by id, if each id is there once."""
    ids = [row.partition(",")[0] for _, row in rows]
    needed = [str(number) for number in range(len(rows))]
    if ids == needed or set(ids) != set(needed):
        return rows
    reading.note(reading.odd, "another order of the rows")
    return [row for _, row in sorted(zip(map(int, ids), rows, strict=True))]
