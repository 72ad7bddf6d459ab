"""The log: rows are read as written, rows of repeated steps are dropped, an incomplete last line is ignored."""

import json
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from src.base.console import UserError
from src.config import parse_config
from src.training.log import History, epoch_line, read_history, read_log

ROWS = [{"epoch": epoch, "step": 10 * epoch, "total": 1.0 / epoch} for epoch in (1, 2, 3)]


def write(folder: Path) -> None:
    history = History(folder, 0)
    for row in ROWS:
        history.add(row)
    history.close()


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []
    write(tmp_path)
    assert read_history(tmp_path) == ROWS
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [{name: value for name, value in line.items() if name != "checksum"} for line in lines] == ROWS


def test_no_flipped_bit_changes_a_number(tmp_path: Path) -> None:
    write(tmp_path)
    whole = (tmp_path / "log.jsonl").read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "log.jsonl").write_bytes(flipped)
        log = read_log(tmp_path)
        assert log.rows == ROWS[: len(log.rows)], f"bit {bit}"
        is_cut_off = bit // 8 == len(whole) - 1  # the last line lacks its line break
        assert log.damage or log.rows == ROWS or is_cut_off, f"bit {bit}"


def test_a_log_of_an_older_version_has_no_checksums(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    assert read_history(tmp_path) == ROWS
    History(tmp_path, 30).close()
    assert (tmp_path / "log.jsonl").read_text().count('"checksum":"') == 3
    assert read_history(tmp_path) == ROWS


def test_steps_that_will_be_repeated_are_dropped(tmp_path: Path) -> None:
    write(tmp_path)
    history = History(tmp_path, 20)
    assert read_history(tmp_path) == ROWS[:2]
    history.add(ROWS[2] | {"total": 0.5})
    history.close()
    assert [row["total"] for row in read_history(tmp_path)] == [1.0, 0.5, 0.5]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"epoch": 1, "step": 2}\n{"epoch": \n{"epoch": 3, "step": 6}\n')
    with pytest.raises(UserError, match=r"log\.jsonl is damaged in line 2: .*; restore it, or delete that line"):
        read_history(tmp_path)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"epoch": 2, "step": 21}, "step 21 does not belong to epoch 2"),
        ({"epoch": 2, "step": 40}, "step 40 does not belong to epoch 2"),
        ({"epoch": 1, "step": 10}, "epoch 1 comes after epoch 1"),
        ({"epoch": 0, "step": 10}, "not whole numbers"),
        ({"epoch": 2, "step": 1}, "not whole numbers"),
        ({"epoch": 2, "step": 2**60}, "not whole numbers"),
        ({"epoch": 2, "step": 20, "teacher_forcing_ratio": 1.5}, "out of its bounds"),
        ({"epoch": 2, "step": 20, "total": -1e31}, "beyond"),
    ],
    ids=str,
)
def test_a_row_that_no_training_writes_is_named(tmp_path: Path, row: dict[str, float], words: str) -> None:
    (tmp_path / "log.jsonl").write_text(f"{json.dumps(ROWS[0])}\n{json.dumps(row)}\n")
    with pytest.raises(UserError, match=rf"log\.jsonl is damaged in line 2: .*{words}"):
        read_history(tmp_path)


def test_a_line_cut_off_is_no_row(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "log.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert read_history(tmp_path) == ROWS[:2]
    history = History(tmp_path, 30)
    history.add(ROWS[2])
    history.close()
    assert read_history(tmp_path) == ROWS


def test_tensorboard_shows_the_same(tmp_path: Path) -> None:
    write(tmp_path)
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = [event for event in EventFileLoader(str(file)).Load() if event.summary.value]
    shown = [(event.step, value.tag, value.tensor.float_val[0]) for event in events for value in event.summary.value]
    assert shown == [(row["step"], "total", shown[number][2]) for number, row in enumerate(ROWS)]
    assert all(abs(shown[number][2] - row["total"]) < 1e-6 for number, row in enumerate(ROWS))


def test_what_json_has_no_number_for_is_a_string(tmp_path: Path) -> None:
    history = History(tmp_path, 0)
    history.add(ROWS[0] | {"validation_total": math.nan, "validation_score": math.inf})
    history.close()
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    written = json.loads(line, parse_constant=pytest.fail)
    assert (written["validation_total"], written["validation_score"]) == ("NaN", "Infinity")
    (row,) = read_history(tmp_path)
    assert math.isnan(row["validation_total"]) and row["validation_score"] == math.inf
    assert (tmp_path / "log.jsonl").read_text().startswith('{"epoch":1,"step":10,')


@pytest.mark.parametrize(("window", "loss", "shown"), [(1, "log_mse", "20.00 dB)"), (2, "mse", "loss -4.6052  kl")])
def test_an_epoch_is_told_in_frames_and_dB(window: int, loss: str, shown: str) -> None:
    row = {"epoch": 3.0, "total": -4.6052, "reconstruction": math.log(0.01), "kl": 0.5, "clips_per_s": 7.0}
    config = parse_config({"training": {"window": window, "loss": loss}}, "test")
    line = epoch_line(row | {"skipped_steps": 0.0}, config)
    assert shown in line and f"7 {'frames' if window == 1 else 'clips'}/s" in line
