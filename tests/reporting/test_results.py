"""Runs read from disk: numbers computed by hand, and a note for everything that is missing, damaged or old."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from src.reporting.results import read_run, read_runs
from src.training.checkpoint import save_checkpoint
from tests.conftest import tiny_config
from tests.run_folders import log_rows, write_run

CONFIG = tiny_config("reference_cvae")


def test_a_whole_run_has_no_notes(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "one", score=25.0))
    assert run.notes == ()
    assert run.config == CONFIG
    assert (run.name, run.log.num_epochs, run.log.clips_per_s) == ("one", 5, 4.0)
    assert [row | {"teacher_forcing_ratio": 0.0} for row in run.log.rows] == log_rows(5)
    assert run.scores is not None
    assert (run.scores.score, run.scores.psnr_300, run.scores.num_parameters) == (25.0, None, 1_585_620)
    assert run.best_baseline == ("median frame", 19.5)


def test_training_seconds_are_clips_over_speed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    rows = log_rows(3)
    rows[0]["clips_per_s"], rows[2]["clips_per_s"] = 2.0, 16.0
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(folder)
    assert run.training_seconds == pytest.approx(2 * 4 / 2 + 2 * 4 / 4 + 2 * 4 / 16)  # 2 steps of 4 clips per epoch
    assert run.log.clips_per_s == 4.0


def test_schedules_are_read_step_by_step(tmp_path: Path) -> None:
    rises = {"kind": "cyclical", "cycles": 3, "stop": 1.0, "per": "within_epoch"}
    forcing = {"teacher_forcing": {"kind": "plan"}}
    config = tiny_config("lab_cvae", num_epochs=6, kl_weight=rises, model=forcing)
    folder = write_run(tmp_path / "one", config=config, num_epochs=6)
    rows = [row | {"step": 12 * row["epoch"]} for row in log_rows(6)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curves = read_run(folder).schedules
    for epochs, _ in curves.values():
        assert epochs == pytest.approx([step / 12 for step in range(72)])
    assert curves["kl_weight"][1] == pytest.approx([0, 0.5, 1, 1] * 3 * 6)
    ratios = [ratio for ratio in (1, 1, 1, 2 / 3, 1 / 3, 0) for _ in range(12)]
    assert curves["teacher_forcing_ratio"][1] == pytest.approx(ratios)


def cut(path: Path, part: float) -> None:
    path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * part)])


def rewrite(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def without(path: Path, key: str) -> None:
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key}))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda run: (run / "config.json").unlink(), "config.json is missing"),
    "cut config": (lambda run: cut(run / "config.json", 0.5), "config.json cannot be read"),
    "config of bytes": (lambda run: (run / "config.json").write_bytes(b"\xff\xfe"), "config.json cannot be read"),
    "other config": (lambda run: (run / "config.json").write_text('{"colour": 1}'), "unknown setting colour"),
    "no log": (lambda run: (run / "log.jsonl").unlink(), "log.jsonl is missing"),
    "empty log": (lambda run: (run / "log.jsonl").write_text(""), "log.jsonl is empty"),
    "torn log": (lambda run: rewrite(run / "log.jsonl", '"epoch": 5', '"epoch": '), "log.jsonl is damaged in line 5"),
    "foreign log": (lambda run: (run / "log.jsonl").write_text('{"epoch": 1}\n'), "damaged in line 1"),
    "no scores": (lambda run: (run / "scores.json").unlink(), "make evaluate RUN=one"),
    "cut scores": (lambda run: cut(run / "scores.json", 0.5), "scores.json is damaged"),
    "list of scores": (lambda run: (run / "scores.json").write_text("[]"), "scores.json is damaged"),
    "no protocol": (lambda run: without(run / "scores.json", "protocol"), "cannot be read (protocol: field required)"),
    "old scores": (lambda run: without(run / "scores.json", "system"), "as in earlier versions; to write it again"),
    "no score": (lambda run: without(run / "scores.json", "score"), "cannot be read (score: field required)"),
    "trained on": (lambda run: save_checkpoint(run / "best.pt", {"step": 9}, CONFIG), "new training, or damage"),
    "cut weights": (lambda run: cut(run / "best.pt", 0.5), "best.pt is no checkpoint of this project, or a"),
    "other settings": (lambda run: rewrite(run / "config.json", '"mirror": true', '"mirror": false'), "have changed"),
    "no weights": (lambda run: (run / "best.pt").unlink(), "best.pt does not exist"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noted_and_the_rest_is_read(tmp_path: Path, damage: str) -> None:
    folder = write_run(tmp_path / "one")
    spoil, expected = DAMAGES[damage]
    spoil(folder)
    run = read_run(folder)
    assert len(run.notes) == 1 and expected in run.notes[0]
    assert (run.config is None) == ("config" in damage)
    assert (run.scores is None) == ("score" in damage or "protocol" in damage)
    assert run.log.num_epochs == {"no log": 0, "empty log": 0, "torn log": 4, "foreign log": 0}.get(damage, 5)
    assert (run.training_seconds is None) == ("config" in damage or run.log.num_epochs == 0)


def test_a_finished_run_needs_its_weights_and_an_unfinished_one_does_not(tmp_path: Path) -> None:
    for num_epochs, expected in ((5, True), (4, False)):
        folder = write_run(tmp_path / str(num_epochs), num_epochs=num_epochs)
        (folder / "scores.json").unlink()
        (folder / "best.pt").unlink()
        assert any("best.pt" in note for note in read_run(folder).notes) == expected


def test_the_log_has_no_teacher_forcing_where_the_model_has_none(tmp_path: Path) -> None:
    for model, expected in {"lab_cvae": True, "reference_cvae": False, "svg": True, "conv_svg": False}.items():
        run = read_run(write_run(tmp_path / model, config=tiny_config(model)))
        assert all(("teacher_forcing_ratio" in row) == expected for row in run.log.rows) and run.log.rows
        assert run.system == ("pushing" if "svg" in model else "dance")


def test_an_infinite_score_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "perfect")
    table = json.loads((folder / "scores.json").read_text())
    (folder / "scores.json").write_text(json.dumps(table | {"score": "inf"}))
    found = read_run(folder).scores
    assert found is not None and found.score == float("inf")


def test_hidden_folders_and_files_are_no_runs(tmp_path: Path) -> None:
    for name in ("b", "a", ".cache"):
        write_run(tmp_path / name)
    (tmp_path / "readme.txt").write_text("not a run")
    assert [run.name for run in read_runs(tmp_path)] == ["a", "b"]
    assert read_runs(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("num_epochs", "patience", "reached", "expected"),
    [
        (3, 0, [1.0, 2.0, 3.0], True),
        (4, 0, [1.0, 2.0, 3.0], False),
        (9, 2, [1.0, 3.0, 2.0, 2.5], True),
        (9, 2, [1.0, 3.0, 2.0], False),
        (9, 2, [3.0, 3.0, 3.0], True),  # an equal score is no improvement
        (9, 1, [], False),
    ],
)
def test_training_ends_after_all_epochs_or_without_patience(
    tmp_path: Path, num_epochs: int, patience: int, reached: list[float], expected: bool
) -> None:
    config = tiny_config("reference_cvae", num_epochs=num_epochs, patience=patience)
    folder = write_run(tmp_path / "one", config=config)
    rows = [{"epoch": epoch, "step": epoch, "validation_score": score} for epoch, score in enumerate(reached, start=1)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_run(folder).is_trained() == expected
