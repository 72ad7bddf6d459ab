"""The table of runs: order, baselines, protocols, and Markdown compared with tables written by hand."""

import json
from pathlib import Path

from src.evaluation.scores import decimal
from src.reporting.results import read_run, read_runs
from src.reporting.tables import markdown_runs, markdown_table, table_of
from tests.conftest import tiny_config
from tests.run_folders import write_run


def test_rows_go_from_the_best_score_down_within_a_data_set(tmp_path: Path) -> None:
    write_run(tmp_path / "worst", score=17.0)
    write_run(tmp_path / "best", score=25.0)
    (write_run(tmp_path / "untested") / "scores.json").unlink()
    (write_run(tmp_path / "unknown", score=99.0) / "config.json").unlink()
    table = table_of(read_runs(tmp_path))
    names = [row.cells[0] for row in table.rows if row.dataset == "tiny"]
    assert names == ["best", "median frame", "first frame", "worst", "untested"]
    assert [row.cells[0] for row in table.rows if row.dataset != "tiny"] == ["unknown", "median frame", "first frame"]
    assert [row.run is None for row in table.rows][:5] == [False, True, True, False, False]
    assert all(len(row.cells) == len(table.header) for row in table.rows)


def test_the_cells_of_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "one", score=18.0, num_epochs=3)
    table = table_of(read_runs(tmp_path))
    (row,) = (row for row in table.rows if row.run)
    cells = dict(zip(table.header, row.cells, strict=True))
    assert cells == {
        "run": "one",
        "data set": "tiny",
        "model": "reference_cvae",
        "epochs": "3 of 5",
        "parameters": "1.586 M",
        "score (dB)": "18.00",
        "SSIM": "0.812",
        "mean PSNR": "24.00",
        "PSNR 1-10": "30.00",
        "PSNR 100": "26.50",
        "posterior minus prior (dB)": "+0.25",
        "prior's mean (dB)": "20.50",
        "one sample (dB)": "18.50",
        "mean of samples (dB)": "19.50",
        "between samples (dB)": "40.00",
        "of vague poses (dB)": "35.00",
        "best baseline (dB)": "median frame, 19.50",
        "over baseline (dB)": "-1.50",
        "clips/s": "4",
        "seed": "5",
        "commit": "0123456789ab",
        "protocol": "[1]",
    }


def test_each_protocol_and_each_data_fingerprint_is_numbered(tmp_path: Path) -> None:
    for name, changes in {
        "a": {},
        "b": {"protocol": "other"},
        "c": {"dataset_fingerprint": "cd" * 32},
        "d": {},
    }.items():
        path = write_run(tmp_path / name) / "scores.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    table = table_of(read_runs(tmp_path))
    marks = {row.cells[0]: row.cells[-1] for row in table.rows if row.run}
    assert marks == {"a": "[1]", "b": "[2]", "c": "[3]", "d": "[1]"}
    assert table.protocols[0] == "free rollout of 12 frames of tiny; data abababababab"
    assert len(table.protocols) == 3
    assert sum(row.run is None for row in table.rows) == 2 * 2  # the baselines of each of the two data sets


def test_a_perfect_run_and_one_without_a_commit(tmp_path: Path) -> None:
    path = write_run(tmp_path / "perfect") / "scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"score": "inf", "commit": None}))
    table = table_of([read_run(path.parent)])
    cells = dict(zip(table.header, table.rows[0].cells, strict=True))
    assert (cells["score (dB)"], cells["over baseline (dB)"]) == ("∞", "+∞")
    assert "commit" not in cells, "a column in which no run has anything is left out"


def test_decimals() -> None:
    assert [decimal(value, 2) for value in (None, float("nan"), 1.005, -3.14159, float("inf"))] == [
        "-",
        "-",
        "1.00",
        "-3.14",
        "∞",
    ]
    assert decimal(2.0, 1, "+") == "+2.0"


def test_markdown_table() -> None:
    text = markdown_table(["run", "score"], [["a|b", "1.0"], ["c", "-"]])
    assert text == "| run | score |\n| --- | ---: |\n| a\\|b | 1.0 |\n| c | - |\n"


def test_markdown_of_runs_has_protocols_and_notes(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    (write_run(tmp_path / "untested", config=tiny_config("lab_cvae")) / "scores.json").unlink()
    lines = markdown_runs(read_runs(tmp_path)).splitlines()
    sides = dict(zip(lines[0].split(" | "), lines[1].split(" | "), strict=True))
    left = {heading.strip("| ") for heading, side in sides.items() if side.strip("| ") == "---"}
    assert left == {"run", "data set", "model", "best baseline (dB)", "commit", "protocol"}
    assert any(line.startswith("| untested ") and "| not evaluated |" in line for line in lines)
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| good", "| median frame", "| first frame", "| untested"]
    assert "[1] free rollout of 12 frames of tiny; data abababababab" in lines
    assert any(line.startswith("untested: not evaluated") for line in lines)
