"""A csv as pandas, R, Excel, numpy and people write it, against the same table as this project writes it."""

import sys
from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.base.console import UserError, run_main
from src.dance.csv_reading import read_as_meant
from src.submission import check_submission, find_faults, main

SHAPE = (3, 2, 4)
SMALL = {"frame_shape": SHAPE, "sequence_length": 5}
VALUES = np.random.default_rng(0).integers(0, 256, (10, 24))
VALUES[3, 1] = 12
TABLE = pd.DataFrame(VALUES, columns=[str(column) for column in range(24)])
TABLE.insert(0, "id", range(10))
NEEDED = TABLE.to_csv(index=False, lineterminator="\n")
LINES = NEEDED.splitlines()
TWELVE = f"\n3,{VALUES[3, 0]},12,"  # the beginning of the row with id 3, in line 5


def rows(change: Callable[[str], str], header: Callable[[str], str] | None = None) -> str:
    """The needed file with each line changed; the header in the same way if it has none of its own."""
    return "\n".join([(header or change)(LINES[0]), *map(change, LINES[1:])]) + "\n"


def by_r(text: str, name: str = '""') -> str:
    """What write.csv makes of it: quoted names, and a column of row names counted from 1."""
    header, *others = text.splitlines()
    quoted = ",".join(f'"{column}"' for column in header.split(","))
    named = [f'"{number}",{row}' for number, row in enumerate(others, start=1)]
    return "\n".join([f"{name},{quoted}" if name else quoted, *named]) + "\n"


def by_numpy(**options: object) -> bytes:
    buffer = BytesIO()
    np.savetxt(buffer, TABLE.to_numpy(), **options)
    return buffer.getvalue()


USUAL = {  # what every reader takes, Kaggle's too
    "all quoted": (TABLE.to_csv(index=False, quoting=1), "cells in quotes"),
    "quoted header": (TABLE.to_csv(index=False, quoting=2), "cells in quotes"),
    "blank last lines": (NEEDED + "\n\n", "blank lines"),
    "blank lines": (NEEDED.replace("\n", "\n\n"), "blank lines"),
    "blank first line": ("\n" + NEEDED, "blank lines"),
    "blank with spaces and CRLF": (NEEDED.replace("\n", "\r\n") + "  \r\n", "blank lines"),
}
ODD = {  # what means the same, and Kaggle refuses or misreads
    "byte order mark": ("\ufeff" + NEEDED, "a byte order mark"),
    "Excel csv": (("\ufeff" + NEEDED).replace("\n", "\r\n"), "a byte order mark"),
    "Excel Unicode text": (NEEDED.replace(",", "\t").encode("utf-16"), "UTF-16 text, tabs between the cells"),
    "UTF-16 without mark": (NEEDED.encode("utf-16-le"), "UTF-16 text"),
    "UTF-16 big": (b"\xfe\xff" + NEEDED.encode("utf-16-be"), "UTF-16 text"),
    "sep line": ("sep=;\r\n" + NEEDED.replace(",", ";"), "the line 'sep=;' before the header, semicolons"),
    "semicolons": (TABLE.to_csv(index=False, sep=";"), "semicolons between the cells"),
    "tabs": (TABLE.to_csv(index=False, sep="\t"), "tabs between the cells"),
    "decimal commas": (
        TABLE.astype(float).to_csv(index=False, sep=";", decimal=","),
        "semicolons between the cells, numbers such as '0,0' (line 2)",
    ),
    "quoted decimal commas": (TABLE.astype(float).to_csv(index=False, decimal=",", quoting=1), "numbers such as"),
    "empty columns": (rows(lambda row: row + ",,"), "a comma at the end of the lines"),
    "trailing comma": (rows(lambda row: row + ","), "a comma at the end of the lines"),
    "trailing comma in rows": (rows(lambda row: row + ",", lambda row: row), "a comma at the end of the lines"),
    "empty cells at the end": (NEEDED + "," * 24 + "\n" + "," * 24 + "\n", "lines of empty cells at the end (line 12)"),
    "index": (TABLE.to_csv(), "a column that numbers the rows (pandas: to_csv(..., index=False))"),
    "index of index": (pd.read_csv(StringIO(TABLE.to_csv())).to_csv(index=False), "a column that numbers the rows"),
    "ids as nameless index": (TABLE.set_index("id").rename_axis(None).to_csv(), "the name '' for the column 'id'"),
    "no header": (TABLE.to_csv(index=False, header=False), "no header"),
    "default names": (pd.DataFrame(TABLE.to_numpy()).to_csv(index=False), "column names 0, 1, ... without 'id'"),
    "R": (by_r(NEEDED), "a column that numbers the rows"),
    "R, write.table": (by_r(NEEDED, name=""), "a name before each row that the header lacks (R: row.names = FALSE)"),
    "R's names": (rows(str, lambda row: row.replace(",", ",X")), "column names such as 'X0'"),
    "Id": (NEEDED.replace("id", "Id", 1), "column names such as 'Id'"),
    "row order": (TABLE.sample(frac=1, random_state=0).to_csv(index=False), "another order of the rows"),
    "column order": (TABLE[sorted(TABLE.columns)].to_csv(index=False), "another order of the columns"),
    "id last": (TABLE[[*TABLE.columns[1:], "id"]].to_csv(index=False), "another order of the columns"),
    "floats": (TABLE.astype(float).to_csv(index=False), "numbers such as '0.0' (line 2)"),
    "one float": (NEEDED.replace(TWELVE, TWELVE.replace("12,", "12.0,")), "numbers such as '12.0' (line 5)"),
    "exponent": (NEEDED.replace(TWELVE, TWELVE.replace("12,", "1.2e1,")), "numbers such as '1.2e1' (line 5)"),
    "plus": (NEEDED.replace(TWELVE, TWELVE.replace("12,", "+12,")), "numbers such as '+12' (line 5)"),
    "leading zero": (NEEDED.replace(TWELVE, TWELVE.replace("12,", "012,")), "numbers such as '012' (line 5)"),
    "spaces": (NEEDED.replace(",", ", "), "spaces around the cells"),
    "numpy": (by_numpy(), "spaces between the cells, no header"),
    "numpy, no commas": (by_numpy(fmt="%d", header=LINES[0].replace(",", " ")), "spaces between the cells"),
    "numpy, comment": (by_numpy(fmt="%d", delimiter=",", header=LINES[0]), "a '#' before the header"),
}


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "a table.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("case", USUAL)
def test_what_every_reader_takes_is_valid(tmp_path: Path, case: str) -> None:
    text, way = USUAL[case]
    path = written(tmp_path, text)
    assert pd.read_csv(path).equals(TABLE), "another reader takes it for the same table"
    checked = check_submission(path, **SMALL)
    assert checked.num_rows == 10 and way in checked.usual


@pytest.mark.parametrize("case", ODD)
def test_what_means_the_same_is_read_and_not_called_ready(tmp_path: Path, case: str) -> None:
    text, way = ODD[case]
    path = written(tmp_path, text)
    assert read_as_meant(path.read_bytes(), 24).content.decode() + "\n" == NEEDED
    (line,) = find_faults(path, **SMALL)
    assert line.startswith("the values are valid, but Kaggle would refuse or misread the file: it has ")
    assert way in line and "--mend" in line
    with pytest.raises(UserError, match="Kaggle would refuse"):
        check_submission(path, **SMALL)


def test_a_fault_of_the_values_is_named_with_the_line_of_the_file(tmp_path: Path) -> None:
    """The rows are in another order and two lines are blank, and the line is still the file's."""
    faulty = [LINES[0], "", *LINES[:0:-1], ""]
    place = next(number for number, line in enumerate(faulty, start=1) if line.startswith("3,"))
    faulty[place - 1] = faulty[place - 1].replace(",12,", ",700,")
    (line,) = find_faults(written(tmp_path, "\n".join(faulty).replace(",", ";")), **SMALL)
    assert line.startswith(f"line {place}, column '1': '700' is outside 0..255")


def test_thousands_of_nan_are_one_fault(tmp_path: Path) -> None:
    table = TABLE.astype(float)
    table.iloc[1:, 1:] = np.nan
    (line,) = find_faults(written(tmp_path, table.to_csv(index=False)), **SMALL)
    assert line.startswith("line 3, column '0': empty") and "NaN" in line and line.endswith("; 8 more like it")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (TABLE.assign(id=range(1, 11)).to_csv(index=False), "the first id is 1, needs 0"),
        (TABLE.drop(columns="7").to_csv(index=False, sep=";"), "the header has 24 columns, needs 25"),
        (TABLE.assign(note="a").to_csv(index=False), "the header has 26 columns, needs 25"),
        ((TABLE / 255).round(3).assign(id=range(10)).to_csv(index=False, sep=";", decimal=","), "multiply them by 255"),
        (b"\x1f\x8b\x08" + NEEDED.encode(), "packed with gzip"),
    ],
)
def test_what_is_not_certain_is_one_cause(tmp_path: Path, text: str | bytes, cause: str) -> None:
    (line,) = find_faults(written(tmp_path, text), **SMALL)
    assert cause in line


def run_check(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["submission", "check", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        run_main(main)
        raise SystemExit(0)
    return int(stop.value.code or 0)


def test_one_command_writes_the_file_that_kaggle_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("src.submission.FRAME_SIZE", (2, 4))
    path, mended = written(tmp_path, ODD["R"][0]), tmp_path / "mended.csv"
    assert run_check(monkeypatch, path, "--length", 5) == 2
    assert f"--mend '{tmp_path}/a table-mended.csv'" in capsys.readouterr().err
    assert run_check(monkeypatch, path, "--length", 5, "--mend", mended) == 0
    out = capsys.readouterr().out
    assert "without a column that numbers the rows" in out and "valid: 10 rows, 2 sequences" in out
    assert mended.read_text() == NEEDED
    assert run_check(monkeypatch, path, "--length", 5, "--mend", mended) == 2
    assert "exists already" in capsys.readouterr().err
    faulty = written(tmp_path, ODD["R"][0].replace(",12,", ",700,"))
    assert run_check(monkeypatch, faulty, "--length", 5, "--mend", tmp_path / "other.csv") == 2
    assert "'700' is outside" in capsys.readouterr().err and not (tmp_path / "other.csv").exists()
