import hashlib
import json
import re
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src import submission
from src.base.console import UserError, run_main
from src.submission import (
    CheckedSubmission,
    Provenance,
    check_submission,
    find_faults,
    layout_of,
    main,
    provenance_path,
    read_first_frames,
    safe_to_replace,
    write_submission,
)

SHAPE = (3, 2, 4)  # C, H, W of the frames in these tests
LENGTH = 5  # rows of a sequence in these tests
SMALL = {"frame_shape": SHAPE, "sequence_length": LENGTH}


def rollouts(num_sequences: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num_sequences, LENGTH, *SHAPE), dtype=torch.uint8, generator=generator)


def first_frames(num_sequences: int = 2) -> np.ndarray:
    return rollouts(num_sequences)[:, 0].numpy()


def write(folder: Path, num_sequences: int = 2) -> Path:
    path = folder / "run.csv"
    write_submission(path, rollouts(num_sequences), **SMALL)
    return path


def provenance(path: Path, **changes: object) -> Provenance:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    fields = {
        "run": "dance",
        "csv_sha256": digest,
        "num_rows": 10,
        "num_sequences": 2,
        "created": "2025-01-31T12:00:00+00:00",
        "commit": None,
        "dataset": "demo",
        "dataset_fingerprint": "abc",
        "config_sha256": digest,
        "checkpoint_sha256": digest,
        "checkpoint_step": 7,
        "local_score": 33.25,
        "seed": 0,
    }
    return Provenance(**fields | changes)


# Writing


def test_a_whole_submission_is_what_pandas_writes_and_reads(tmp_path: Path):
    frames = torch.randint(0, 256, (1, 630, 3, 32, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "run.csv"
    write_submission(path, frames)
    table = pd.DataFrame(frames.numpy().reshape(630, 3 * 64 * 32), columns=[str(column) for column in range(6144)])
    table.insert(0, "id", range(630))
    assert path.read_bytes() == table.to_csv(index=False, lineterminator="\n").encode()
    back = pd.read_csv(path)
    assert back.columns.tolist() == ["id", *(str(column) for column in range(6144))]
    assert np.array_equal(back.to_numpy()[:, 1:].reshape(630, 3, 32, 64), frames[0].numpy())
    checked = check_submission(path, first_frames=frames[:, 0].numpy(), num_sequences=1)
    assert checked == CheckedSubmission(630, 1, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_submission_by_hand(tmp_path: Path):
    frames = torch.tensor([[0.0, 1.0], [0.4999, 1.5], [-0.3, 0.5 / 255]]).reshape(1, 3, 1, 1, 2)
    path = tmp_path / "new" / "run.csv"
    write_submission(path, frames, frame_shape=(1, 1, 2), sequence_length=3)
    assert path.read_text() == "id,0,1\n0,0,255\n1,127,255\n2,0,0\n"
    assert [found.name for found in path.parent.iterdir()] == ["run.csv"]


@settings(deadline=None, max_examples=25)
@given(
    num_sequences=st.integers(1, 4),
    length=st.integers(1, 6),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(4, 6)),
    seed=st.integers(0, 2**16),
)
def test_what_is_written_is_read_back_and_valid(tmp_path_factory, num_sequences, length, shape, seed):
    path = tmp_path_factory.mktemp("written") / "run.csv"
    frames = 2 * torch.rand(num_sequences, length, *shape, generator=torch.Generator().manual_seed(seed)) - 0.5
    write_submission(path, frames, frame_shape=shape, sequence_length=length)
    back = pd.read_csv(path)
    assert back["id"].tolist() == list(range(num_sequences * length))
    expected = np.clip(np.rint(255 * frames.numpy()), 0, 255).reshape(num_sequences * length, -1)
    assert np.array_equal(back.to_numpy()[:, 1:], expected)
    given_frames = expected[::length].reshape(num_sequences, *shape).astype(np.uint8)
    checked = check_submission(path, first_frames=given_frames, frame_shape=shape, sequence_length=length)
    assert (checked.num_rows, checked.num_sequences) == (num_sequences * length, num_sequences)


@pytest.mark.parametrize("shape", [(1, 629, 3, 32, 64), (1, 630, 3, 64, 32), (630, 3, 32, 64), (0, 630, 3, 32, 64)])
def test_rollouts_of_another_shape_are_never_written(tmp_path: Path, shape: tuple[int, ...]):
    with pytest.raises(AssertionError):
        write_submission(tmp_path / "run.csv", torch.zeros(shape, dtype=torch.uint8))
    assert not list(tmp_path.iterdir())


def test_predictions_that_are_no_numbers_are_never_written(tmp_path: Path):
    with pytest.raises(ValueError, match="NaN"):
        write_submission(tmp_path / "run.csv", torch.full((1, LENGTH, *SHAPE), torch.nan), **SMALL)
    assert not list(tmp_path.iterdir())


# Checking


def lines(change: Callable[[list[str]], object]) -> Callable[[str], str]:
    """Returns an edit of a file's text that changes its list of lines; the first line is the header."""

    def edited(text: str) -> str:
        found = text.splitlines()
        change(found)
        return "\n".join(found) + "\n"

    return edited


def cells(line: int, change: Callable[[list[str]], object]) -> Callable[[str], str]:
    """Returns an edit that changes the cells of one line; lines are counted from 1."""

    def edited(found: list[str]) -> None:
        row = found[line - 1].split(",")
        change(row)
        found[line - 1] = ",".join(row)

    return lines(edited)


def cell(line: int, column: int, text: str) -> Callable[[str], str]:
    return cells(line, lambda row: row.__setitem__(column, text))


def numbered_from_1(found: list[str]) -> None:
    found[1:] = [f"{number},{row.split(',', 1)[1]}" for number, row in enumerate(found[1:], start=1)]


FAULTS = {
    "empty": (lambda _: "", ["the file is empty"]),
    "blank": (lambda _: "\n \n", ["the file is empty"]),
    "not text": (lambda text: text.replace("id", "PK\0", 1), ["not a text file"]),
    "header order": (cell(1, 3, "7"), ["line 1: header column 4 is '7', needs '2'"]),
    "header short": (cells(1, list.pop), ["line 1: the header has 24 columns, needs 25: id,0,...,23"]),
    "no rows": (lines(lambda found: found.__delitem__(slice(1, None))), ["a header and no rows below it"]),
    "row missing": (lines(lambda found: found.pop(4)), ["line 5: id 3 is missing before id 4"]),
    "last row missing": (lines(list.pop), ["9 rows below the header, not a multiple of 5"]),
    "rows missing": (lines(lambda found: found.__delitem__(slice(4, 9))), ["line 5: ids 3..7 are missing before id 8"]),
    "row twice": (lines(lambda found: found.insert(4, found[3])), ["line 5: id 2 occurs twice"]),
    "ids from 1": (lines(numbered_from_1), ["line 2: the first id is 1, needs 0"]),
    "id empty": (cell(4, 0, ""), ["line 4: the id is '', needs 2"]),
    "cell missing": (cells(4, list.pop), ["line 4 has 24 cells, needs 25"]),
    "cell too many": (cells(4, lambda row: row.append("1")), ["line 4 has 26 cells, needs 25"]),
    "cell empty": (cell(4, 3, ""), ["line 4, column '2': empty"]),
    "NaN": (cell(4, 3, "nan"), ["line 4, column '2': 'nan' is not a number"]),
    "word": (cell(4, 3, "zwölf"), ["line 4, column '2': 'zwölf' is not written as an integer"]),
    "above": (
        cell(4, 3, "256"),
        ["line 4, column '2': '256' is outside 0..255; clip to 0..255 and round before writing"],
    ),
    "below": (cell(4, 3, "-1"), ["line 4, column '2': '-1' is outside 0..255"]),
    "decimal": (
        cell(4, 3, "12.5"),
        ["line 4, column '2': '12.5' is not written as an integer 0..255; round, then use .astype(int), before to_csv"],
    ),
    "infinity": (cell(4, 3, "-inf"), ["line 4, column '2': '-inf' is not a number"]),
    "two files": (lambda text: text + text, ["line 12 repeats the header", "line 13: id 0 occurs twice"]),
    "no ids": (
        lambda text: "\n".join(row.partition(",")[2] for row in text.splitlines()),
        ["the header has 24 columns, needs 25: id,0,...,23; the column of ids is missing"],
    ),
    "a quote": (cell(4, 3, '"1'), ["line 11: the quotes do not fit"]),
    "workbook": (lambda text: "PK\3\4" + text, ["it is no csv but a zip or an Excel workbook"]),
    "far above": (cell(4, 3, "9" * 5000), ["line 4, column '2': '99999999999999999999...' is outside 0..255"]),
    "two cells": (
        cells(4, lambda row: row.__setitem__(slice(3, 5), ["", ""])),
        ["column '2': empty, needs an integer 0..255; pandas writes NaN so"],
    ),
}


@pytest.mark.parametrize(("change", "expected"), FAULTS.values(), ids=FAULTS.keys())
def test_each_fault_is_named_with_its_place(tmp_path: Path, change: Callable[[str], str], expected: list[str]):
    path = write(tmp_path)
    path.write_text(change(path.read_text()), encoding="utf-8")
    faults = find_faults(path, **SMALL)
    assert len(faults) == len(expected), faults
    assert all(text in fault for text, fault in zip(expected, faults, strict=True)), "the most useful fault comes first"
    assert all("\n" not in fault and len(fault) < 200 for fault in faults)
    with pytest.raises(UserError, match=rf"run\.csv: {re.escape(faults[0])}"):
        check_submission(path, **SMALL)


def test_a_valid_file_has_no_faults_with_any_line_ending(tmp_path: Path):
    path = write(tmp_path)
    text = path.read_bytes()
    for content in (text, text.replace(b"\n", b"\r\n"), text.rstrip(b"\n")):
        path.write_bytes(content)
        assert find_faults(path, **SMALL, first_frames=first_frames(), num_sequences=2) == []
        checked = check_submission(path, **SMALL)
        assert checked == CheckedSubmission(10, 2, hashlib.sha256(content).hexdigest())


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_change_of_a_byte_goes_unseen_unless_it_is_another_number(tmp_path_factory, data: st.DataObject):
    path = write(tmp_path_factory.mktemp("changed"))
    content = bytearray(path.read_bytes())
    place, byte = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 255))
    content[place] = byte
    path.write_bytes(content)
    if find_faults(path, **SMALL):
        return
    table = pd.read_csv(StringIO(content.decode()))  # pandas must understand every file that passes the check
    assert table["id"].tolist() == list(range(10))
    assert (table.dtypes == "int64").all()
    assert table.shape == (10, 25)
    assert ((table.to_numpy()[:, 1:] >= 0) & (table.to_numpy()[:, 1:] <= 255)).all()


def test_another_number_of_sequences_than_needed_is_a_fault(tmp_path: Path):
    path = write(tmp_path)
    assert find_faults(path, **SMALL, num_sequences=3) == ["10 rows below the header, needs 15: 3 sequences of 5"]
    assert find_faults(path, **SMALL, first_frames=first_frames(3)) == find_faults(path, **SMALL, num_sequences=3)


def test_a_frame_0_that_is_not_the_given_one_is_a_fault(tmp_path: Path):
    frames = first_frames().astype(int)
    changed = np.where(frames < 128, frames + 5, frames - 5)
    expected = frames.copy()
    expected[1, 0, 0, :2] = changed[1, 0, 0, :2]
    fault = "line 7: frame 0 of sequence 1 is not the given first frame: 2 of 24 values differ, by up to 5"
    assert find_faults(write(tmp_path), **SMALL, first_frames=expected.astype(np.uint8)) == [fault]


def test_faults_of_one_kind_are_counted(tmp_path: Path):
    path = write(tmp_path, num_sequences=4)
    path.write_text(
        lines(lambda found: found.__setitem__(slice(1, None), [row + ",1" for row in found[1:]]))(path.read_text())
    )
    assert find_faults(path, **SMALL) == ["line 2 has 26 cells, needs 25; 19 more like it"]
    with pytest.raises(UserError, match=r"line 2 has 26 cells"):
        check_submission(path, **SMALL)


def test_at_most_ten_faults_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path)
    words = "abcdefghijkl"
    monkeypatch.setattr(submission, "faults_of", lambda *_, **_named: (f"word {word}" for word in words))
    assert find_faults(path, **SMALL) == [f"word {word}" for word in words[:10]]
    with pytest.raises(UserError, match=r"word a \(10 or more faults"):
        check_submission(path, **SMALL)


def test_a_missing_file_is_the_user_s_mistake(tmp_path: Path):
    for look in (check_submission, find_faults):
        with pytest.raises(UserError, match="does not exist"):
            look(tmp_path / "run.csv")


# Provenance


def test_provenance_is_read_back_as_it_was(tmp_path: Path):
    path = write(tmp_path)
    for kept in (
        provenance(path),
        provenance(path, local_score=None, commit="abc-dirty"),
        provenance(path, local_score=float("inf")),
    ):
        kept.save(provenance_path(path))
        assert Provenance.load(tmp_path / "run.json") == kept


@pytest.mark.parametrize(
    "change",
    [{"num_rows": n} for n in (0, -5, 9, 10**40)]
    + [{"num_sequences": n} for n in (0, 20, 10**30)]
    + [{"frame_size": size} for size in ((0, 64), (20_000, 20_000))],
    ids=str,
)
def test_a_provenance_of_no_possible_csv_is_refused(tmp_path: Path, change: dict[str, object]):
    path = write(tmp_path)
    place = provenance_path(path)
    place.write_text(json.dumps(json.loads(provenance(path).model_dump_json()) | change))
    with pytest.raises(UserError, match=r"run.json cannot be read \(.*; the origin of its csv is unknown"):
        layout_of(path, None)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        ("{}", "cannot be read .run:"),
        ('{"run": 3}', "cannot be read .run:"),
        ("[]", "is damaged"),
    ],
)
def test_a_damaged_provenance_is_named(tmp_path: Path, text: str, place: str):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"run\.json {place}"):
        Provenance.load(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("csv_sha256", "123"), ("created", "yesterday"), ("created", "2025-01-31T12:00:00+02:00"), ("more", 1)],
)
def test_provenance_takes_no_other_fields_and_values(tmp_path: Path, field: str, value: object):
    with pytest.raises(ValueError, match=field):
        provenance(write(tmp_path), **{field: value})


def test_only_a_csv_whose_origin_is_known_is_replaced(tmp_path: Path):
    path = tmp_path / "run.csv"
    safe_to_replace(path)
    write(tmp_path)
    with pytest.raises(UserError, match="mv "):
        safe_to_replace(path)
    with pytest.raises(UserError, match="mv "):
        write(tmp_path)
    provenance(path).save(provenance_path(path))
    safe_to_replace(path)
    write(tmp_path)
    path.write_text("mine\n")
    with pytest.raises(UserError, match=r"is not the file that run\.json describes"):
        write(tmp_path)
    assert path.read_text() == "mine\n"


# The command


def picture_folder(folder: Path, frames: np.ndarray) -> Path:
    for sequence, frame in enumerate(frames):
        (folder / str(sequence)).mkdir(parents=True)
        Image.fromarray(frame.transpose(1, 2, 0)).save(folder / str(sequence) / "0.png")
    return folder


def run_check(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["submission", "check", *map(str, arguments)])
    try:
        run_main(main)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Returns a valid csv with two sequences of 3 frames of full size, and its first frames."""
    frames = torch.randint(0, 256, (2, 3, 3, 32, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_submission(tmp_path / "run.csv", frames, sequence_length=3)
    return tmp_path / "run.csv", frames[:, 0].numpy()


def test_the_command_says_what_a_valid_file_holds(whole, tmp_path, monkeypatch, capsys):
    path, frames = whole
    folder = picture_folder(tmp_path / "test_img", frames)
    assert run_check(monkeypatch, path, "--length", 3, "--first-frames", folder) == 0
    output = capsys.readouterr()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    known = "3 frames of 32 x 64 a sequence, by --length and the competition's format"
    assert output.out == f"valid: 6 rows, 2 sequences, sha256 {sha256}; {known}\n"
    assert output.err == ""


def test_the_command_lists_faults_line_by_line_and_exits_2(whole, tmp_path, monkeypatch, capsys):
    path, frames = whole
    folder = picture_folder(tmp_path / "test_img", 255 - frames)
    assert run_check(monkeypatch, path, "--length", 3, "--first-frames", folder) == 2
    output = capsys.readouterr()
    assert output.out == "needed: 3 frames of 32 x 64 a sequence, by --length and the competition's format\n"
    (line,) = output.err.splitlines()
    assert line.startswith(f"error: {path}: line 2: frame 0 of sequence 0 is not the given first frame")
    assert line.endswith("; 1 more like it")
    assert run_check(monkeypatch, path) == 2
    assert "6 rows below the header, not a multiple of 630" in capsys.readouterr().err
    assert run_check(monkeypatch, path, "--length", 0) == 2
    assert "needed: a whole number from 1" in capsys.readouterr().err


def test_a_valid_file_that_its_json_does_not_describe_is_named(tmp_path, monkeypatch, capsys):
    path = write(tmp_path)
    provenance(path, frame_size=SHAPE[1:]).save(provenance_path(path))
    run_check(monkeypatch, path)
    assert "warning: " + str(path) + " is not" not in capsys.readouterr().out
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:-1] + ("1" if lines[2][-1] == "0" else "0")
    path.write_text("\n".join(lines) + "\n")
    run_check(monkeypatch, path)
    output = capsys.readouterr().out
    assert f"warning: {path} is not the file that {provenance_path(path)} describes" in output and "valid: 10" in output


def test_the_command_says_in_one_line_that_a_file_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ours = "submissions/no.csv does not exist; `make submission RUN=no` writes it"
    for path, line in {
        tmp_path / "no.csv": f"{tmp_path}/no.csv does not exist; needed: the csv file to check",
        "submissions/no.txt": "submissions/no.txt does not exist; needed: the csv file to check",
        "submissions/no.csv": ours,
        tmp_path / "submissions" / "no.csv": f"{tmp_path}/{ours}",
        tmp_path: f"{tmp_path} is a folder; needed: a csv file, such as submissions/<run>.csv",
    }.items():
        assert run_check(monkeypatch, path) == 2
        assert capsys.readouterr().err == f"error: {line}\n"


def test_the_command_says_in_one_line_that_no_file_is_given(monkeypatch, capsys):
    assert run_check(monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the following arguments are required: FILE; `")


def test_first_frames_are_read_in_the_order_of_their_numbers(tmp_path: Path):
    frames = np.random.default_rng(0).integers(0, 256, (11, 3, 32, 64), dtype=np.uint8)
    assert np.array_equal(read_first_frames(picture_folder(tmp_path, frames)), frames)


def test_folders_that_hold_no_first_frames_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="holds the folders none"):
        read_first_frames(tmp_path)
    folder = picture_folder(tmp_path / "gap", np.zeros((3, 3, 32, 64), dtype=np.uint8))
    (folder / "2" / "0.png").rename(folder / "2" / "1.txt")
    with pytest.raises(UserError, match="holds 0 pictures"):
        read_first_frames(folder)
    (folder / "2" / "0.png").write_text("no picture")
    with pytest.raises(UserError, match=r"0\.png"):
        read_first_frames(folder)
    (folder / "1").rename(folder / "7")
    with pytest.raises(UserError, match="holds the folders 0, 2, 7"):
        read_first_frames(folder)


SENSELESS = {
    "values in 0..1": (lambda frames: frames % 2, "all drawn values are 0 or 1, so the frames are black"),
    "one value": (
        lambda frames: frames * 0 + np.arange(2, 12).reshape(2, 5, 1, 1, 1),
        "every drawn frame has one single value",
    ),
    "one frame": (lambda frames: frames * 0 + frames[0, 0], "all drawn frames are equal"),
    "first frame": (lambda frames: frames * 0 + frames[:, :1], "every sequence repeats its first frame"),
}


@pytest.mark.parametrize("case", SENSELESS)
def test_a_csv_that_makes_no_sense_is_valid_with_a_warning(tmp_path: Path, case: str) -> None:
    change, doubt = SENSELESS[case]
    path = tmp_path / "run.csv"
    written = change(rollouts().numpy()).astype(np.uint8)
    for first in (written[:, :1], rollouts()[:, :1].numpy()) if case != "first frame" else (written[:, :1],):
        # the given frames are often copied rightly, whatever the drawn ones are
        write_submission(path, torch.from_numpy(np.concatenate([first, written[:, 1:]], axis=1)), **SMALL)
        checked = check_submission(path, **SMALL)
        assert checked.num_rows == 10 and len(checked.doubts) == 1 and checked.doubts[0].startswith(doubt)
        path.unlink()
    assert check_submission(write(tmp_path), **SMALL).doubts == ()


def test_decimals_in_0_to_1_are_to_be_multiplied_first(tmp_path: Path) -> None:
    """Rounding alone would make every value 0 or 1."""
    path = write(tmp_path)
    lines = path.read_text().splitlines()
    lines[3] = f"2,{','.join(['0.25'] * 24)}"
    path.write_text("\n".join(lines) + "\n")
    assert "multiply them by 255, round, then use .astype(int)" in find_faults(path, **SMALL)[0]
