"""Tests of a grid from the first run to the report, with the real trainer and tester, and of mistakes in grid files."""

import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from src import experiments, tester, trainer
from src.base.children import Start
from src.base.console import UserError, run_main
from src.base.devices import hardware
from src.base.ownership import owned
from src.config import load_config, replaced, to_json
from src.dance import cost as dance_cost
from src.dance import pictures as dance_pictures
from src.dance import scores as dance_scores
from src.experiments import Grid, GridRun, is_done, jobs_of, load_grid, main
from src.intake.manifest import Manifest
from src.pushing import cost as pushing_cost
from src.reporting import comparison
from src.reporting.results import read_run
from src.training.log import LOG_NAMES
from src.training.saved_config import read_config, write_config
from tests.conftest import ROOT, tiny_config

GRID = """
title = "Two KL weights"
base = "tiny"
seeds = [0, 1]
set = "training.num_epochs=2"

[arms]
constant = ""
monotonic = "kl_weight.kind=monotonic"

[comparisons]
kl_weight = ["constant", "monotonic"]
"""
SHIPPED = sorted((ROOT / "configs" / "experiments").glob("*.toml"))


@pytest.fixture
def grid_path(tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Changes into a folder with the data set `tiny` and one configuration. Returns the path of its grid file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(data_folder)
    (tmp_path / "configs").mkdir()
    table = json.loads(to_json(tiny_config("reference_cvae", validate_every=1)))
    lines = [f"{name} = {json.dumps(table.pop(name))}" for name in ("dataset", "seed")]
    for section, settings in table.items():
        if settings is None:  # `minutes`, which is no section
            continue
        lines.append(f"[{section}]")
        lines += [
            f"{key} = {json.dumps(value)}" for key, value in settings.items() if not isinstance(value, dict | None)
        ]
    (tmp_path / "configs" / "tiny.toml").write_text("\n".join(lines))
    path = tmp_path / "grids" / "small.toml"
    path.parent.mkdir()
    path.write_text(GRID)
    return path


class Ended:
    """A child process that has ended."""

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code

    def send_signal(self, number: int, /) -> None:
        raise AssertionError("it has ended")


def run_grid(path: Path, start: Start, **options: Any) -> tuple[Path, dict[str, str]]:
    """Makes the missing runs of a grid. Returns the Markdown file and {failed run: reason}."""
    grid = GridRun(path, **options)
    return grid.make(start), grid.failures


class Children:
    """Runs the commands of child processes in this process, to save imports. Commands that contain `broken` fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.commands: list[str] = []
        self.broken = ""

    def __call__(self, command: Sequence[str], *, label: str, place: int) -> "Ended":
        return Ended(self.run(command))

    def run(self, command: Sequence[str]) -> int:
        """Runs a command and returns its exit code."""
        interpreter, _, module, *arguments = command
        assert interpreter == sys.executable
        self.commands.append(f"{module} {arguments[-1]}")
        if self.broken and self.broken in " ".join(command):
            return 1
        self.monkeypatch.setattr("sys.argv", [module, *arguments])
        try:
            run_main({"src.trainer": trainer.main, "src.tester": tester.main}[module])
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Children:
    for module, name in ((dance_pictures, "save_gif"), (tester, "plot_history"), (dance_pictures, "plot_psnr")):
        # drawing and SSIM take longer than these short trainings
        monkeypatch.setattr(module, name, lambda path, *content, **options: path.write_bytes(b""))
    monkeypatch.setattr(dance_scores, "ssim_per_frame", lambda clip, truth: torch.full((len(clip),), 0.5))
    monkeypatch.setattr(comparison, "plot_bands", lambda paths, panels, xlabel: paths[0].write_bytes(b""))
    return Children(monkeypatch)


def test_a_grid_from_the_first_run_to_the_report(
    grid_path: Path, children: Children, capsys: pytest.CaptureFixture[str]
) -> None:
    children.broken = "small-monotonic-s1"
    path, failures = run_grid(grid_path, children)
    assert failures == {"small-monotonic-s1": "training ended with exit code 1"}
    assert children.commands[:4] == [
        "src.trainer small-constant-s0",
        "src.tester small-constant-s0",
        "src.trainer small-monotonic-s0",
        "src.tester small-monotonic-s0",
    ]
    assert "| constant | 2 of 2 |" in path.read_text() and "| monotonic | 1 of 2 |" in path.read_text()
    assert "Missing: small-monotonic-s1: training ended with exit code 1." in path.read_text()

    children.broken = ""
    children.commands = []
    (Path("runs") / "small-constant-s0" / "scores.json").unlink()
    path, failures = run_grid(grid_path, children)
    assert failures == {} and {command.split()[1] for command in children.commands} == {
        "small-constant-s0",
        "small-monotonic-s1",
    }
    assert "[3/4] small-constant-s1: already done" in capsys.readouterr().out

    children.commands = []
    run_grid(grid_path, children)
    assert children.commands == []

    folder, config = Path("runs/small-constant-s0"), read_config(Path("runs/small-constant-s0"))
    write_config(folder, replaced(config, "evaluation.mirror=false"))  # as `make evaluate SET=...` does
    path, failures = run_grid(grid_path, children)
    assert failures == {}
    assert read_config(folder) == config
    table = json.loads(Path("reports/small.json").read_text())
    for arm in ("constant", "monotonic"):
        files = [json.loads(Path(f"runs/small-{arm}-s{seed}/scores.json").read_text()) for seed in (0, 1)]
        reached = [scores["score"] for scores in files]
        found = table["arms"][arm]["score"]
        assert found["mean"] == pytest.approx(statistics.fmean(reached))
        assert found["deviation"] == pytest.approx(statistics.stdev(reached))
        assert table["arms"][arm]["training_seconds"]["mean"] > 0
    assert hardware() in path.read_text() and files[0]["protocol"] in path.read_text()
    logged = read_run(Path("runs/small-constant-s0")).log.rows[-1]
    assert logged.keys() <= LOG_NAMES.keys()
    weights = [
        [row["kl_weight"] for row in read_run(Path(f"runs/small-{arm}-s0")).log.rows]
        for arm in ("constant", "monotonic")
    ]
    assert weights[0] == [1e-4, 1e-4] and weights[1][0] == 0


def test_a_stopped_grid_has_the_table_of_what_was_run(grid_path: Path, children: Children) -> None:
    def stopped_at_the_second_run(command: Sequence[str], *, label: str, place: int) -> Ended:
        if "small-monotonic-s0" in " ".join(command):
            raise KeyboardInterrupt
        return children(command, label=label, place=place)

    with pytest.raises(KeyboardInterrupt):
        run_grid(grid_path, stopped_at_the_second_run)
    text = Path("reports/small.md").read_text()
    assert "| constant | 1 of 2 |" in text and "| monotonic | 0 of 2 |" in text
    assert "Missing: small-monotonic-s0: not run yet." in text


def test_a_run_is_done_only_with_the_same_settings_data_and_weights(grid_path: Path, children: Children) -> None:
    shorter = GRID.replace("seeds = [0, 1]", "seeds = [0]").replace(', "monotonic"]', "]")
    grid_path.write_text(shorter.replace('monotonic = "kl_weight.kind=monotonic"', ""))
    run_grid(grid_path, children)
    (job,) = jobs_of(load_grid(grid_path), "small")
    folder = Path("runs") / job.run
    assert is_done(job)
    for name in ("config.json", "log.jsonl", "scores.json", "best.pt"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        assert not is_done(job), name
        (folder / name).write_bytes(content)
    for name, change in {
        "config.json": lambda table: table["training"].update(num_epochs=3),
        "scores.json": lambda table: table.update(dataset_fingerprint="other"),
    }.items():
        content = (folder / name).read_text()
        table = json.loads(content)
        table.pop("checksum", None)
        change(table)
        (folder / name).write_text(json.dumps(table))
        assert not is_done(job), name
        (folder / name).write_text(content)
    scores = json.loads((folder / "scores.json").read_text())
    del scores["checksum"]
    (folder / "scores.json").write_text(json.dumps(scores | {"config_sha256": 64 * "0"}))  # scores of other settings
    assert not is_done(job)
    (folder / "scores.json").write_text(json.dumps(scores))
    assert is_done(job)
    (folder / "best.pt").write_bytes(b"other weights")
    assert not is_done(job)


def test_failures_end_in_one_line_and_exit_code_2(
    grid_path: Path, children: Children, monkeypatch: pytest.MonkeyPatch, outcome: Callable[..., tuple[int, str]]
) -> None:
    children.broken = "src."
    monkeypatch.setattr(experiments, "Starter", lambda at_once, gpus: children)
    code, text = outcome(main, grid_path)
    assert code == 2 and text.count("\n") == 1
    assert (
        "4 runs failed; the same command tries them again: small-constant-s0: training ended with exit code 1" in text
    )
    assert "Missing: small-constant-s0" in Path("reports/small.md").read_text()


def test_a_child_that_did_nothing_is_a_failure(grid_path: Path) -> None:
    for arm in ("constant", "monotonic"):
        for seed in (0, 1):
            (Path("runs") / f"small-{arm}-s{seed}").mkdir(parents=True)
    _, failures = run_grid(grid_path, lambda command, *, label, place: Ended(0))
    assert len(failures) == 4 and all("do not show a finished run" in reason for reason in failures.values())


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('title = "Two KL weights"', "title = 3", "title: input should be a valid string"),
        ("set =", "sets =", "unknown key sets; did you mean set?"),
        ("set =", "colour =", "unknown key colour; known: title, base, seeds, set, arms, comparisons"),
        ("seeds = [0, 1]", "seeds = []", "seeds: tuple should have at least 1 item"),
        ("seeds = [0, 1]", "seeds = [-1]", "seeds.0: input should be greater than or equal to 0"),
        ("seeds = [0, 1]", "seeds = [0.5]", "seeds.0: input should be a valid integer"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "seeds: 1 occurs twice"),
        ("constant = ", "not-good = ", "should match pattern"),
        (
            '["constant", ',
            '["konstant", ',
            "comparisons.kl_weight: there is no arm konstant; arms: constant, monotonic",
        ),
        ("[arms]", "[arms", "is not valid TOML"),
        ('base = "tiny"', 'base = "huge"', "configs/huge.toml does not exist"),
        ("kl_weight.kind=monotonic", "kl_weight.kund=monotonic", "did you mean kl_weight.kind?"),
        (
            "kl_weight.kind=monotonic",
            "kl_weight.kind=constant",
            "small-constant-s0 and small-monotonic-s0 have the same settings",
        ),
        ("training.num_epochs=2", "dataset=nowhere", "data/nowhere does not exist"),
        ("training.num_epochs=2", "seed=3", None),  # the grid's seeds override it
    ],
)
def test_a_wrong_grid_file_is_refused_before_anything_runs(
    grid_path: Path, old: str, new: str, expected: str | None
) -> None:
    assert old in GRID
    grid_path.write_text(GRID.replace(old, new))
    if expected is None:
        assert [job.config.seed for job in jobs_of(load_grid(grid_path), "small")] == [0, 0, 1, 1]
        return
    with pytest.raises(UserError) as error:
        jobs_of(load_grid(grid_path), "small")
    assert expected.lower() in str(error.value).lower()


def test_for_a_missing_grid_file_the_message_names_the_existing_ones(grid_path: Path) -> None:
    folder = Path("configs/experiments")
    folder.mkdir()
    for name in ("b", "a"):
        (folder / f"{name}.toml").touch()
    with pytest.raises(UserError, match=r"none.toml does not exist; there are: a, b$"):
        load_grid(folder / "none.toml")
    with pytest.raises(UserError, match=r"none.toml does not exist; did you mean GRID=small\?|there are: small$"):
        load_grid(grid_path.with_name("none.toml"))  # those beside it
    (folder / "nine.toml").touch()
    with pytest.raises(UserError, match=r"none.toml does not exist; did you mean GRID=nine\?$"):
        load_grid(folder / "none.toml")


def packed_as_its_name_says(folder: Path) -> SimpleNamespace:
    """What is known of a data set that is not here: which system its name means."""
    return SimpleNamespace(
        fingerprint="", facts=(pushing_cost if folder.name.startswith("pushing") else dance_cost).ASSUMED
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_grids_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Manifest, "load", packed_as_its_name_says)
    grid = load_grid(path)
    assert len(jobs_of(grid, path.stem)) == len(grid.arms) * len(grid.seeds)
    assert set(grid.arms) == {arm for arms in grid.comparisons.values() for arm in arms}


def test_the_lab_comparison_has_the_required_arms() -> None:
    grid: Grid = load_grid(ROOT / "configs" / "experiments" / "dance_lab_schedules.toml")
    found = {
        arm: load_config(ROOT / "configs" / "dance_lab.toml", f"{grid.set} {words}") for arm, words in grid.arms.items()
    }
    assert {config.training.num_epochs for config in found.values()} == {30} and len(grid.seeds) == 3
    teacher = {arm: config.model.teacher_forcing for arm, config in found.items()}
    base = teacher["forced_cyclical"]
    assert (base.kind, base.start, base.decay_from, base.decay_step) == ("decay", 1.0, 10, 0.1)
    assert teacher["free_cyclical"].start == 0
    assert (teacher["late_cyclical"].kind, teacher["late_cyclical"].begin) == ("late", 15)
    kinds = {arm: (config.kl_weight.kind, config.kl_weight.cycles) for arm, config in found.items()}
    assert kinds["forced_cyclical"] == ("cyclical", 10)
    assert kinds["forced_monotonic"] == ("monotonic", 1) and kinds["forced_constant"] == ("constant", 1)


def test_results_outlive_the_folders_of_the_runs(
    grid_path: Path, children: Children, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = run_grid(grid_path, children)
    before = path.read_text(), Path("reports/small.json").read_text()
    lines = Path("reports/small.jsonl").read_bytes().splitlines()
    assert len(lines) == 4
    shutil.rmtree("runs")
    children.commands = []
    capsys.readouterr()
    run_grid(grid_path, children)
    assert children.commands == [] and (path.read_text(), Path("reports/small.json").read_text()) == before
    assert "[4/4] small-monotonic-s1: already measured (reports/small.jsonl)" in capsys.readouterr().out

    other = GRID.replace('"kl_weight.kind=monotonic"', '"kl_weight.kind=monotonic augmentation.mirror=false"')
    grid_path.write_text(other)
    grid = GridRun(grid_path)
    assert [bool(grid._kept(job)) for job in grid.jobs] == [True, False, True, False]  # an arm with other settings
    grid_path.write_text(GRID)

    _, failures = run_grid(grid_path, children, anew=True)
    assert len(children.commands) == 8 and failures == {}


def test_a_damaged_line_of_kept_results_is_named(grid_path: Path, children: Children) -> None:
    run_grid(grid_path, children)
    kept = Path("reports/small.jsonl")
    kept.write_bytes(kept.read_bytes().replace(b'"score":', b'"score":1', 1))
    with pytest.raises(UserError, match=r"small.jsonl line 1 is damaged: it does not match its checksum; restore"):
        GridRun(grid_path)


def test_a_run_that_somebody_else_uses_does_not_stop_the_others(grid_path: Path, children: Children) -> None:
    Path("runs").mkdir()
    with owned(Path("runs/small-constant-s0")):
        _, failures = run_grid(grid_path, children)
    assert list(failures) == ["small-constant-s0"]


def test_the_hardware_line() -> None:
    assert f"{os.cpu_count()} cores" in hardware() and "\n" not in hardware()
