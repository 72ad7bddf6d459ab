"""`make compare`: arms of runs that differ in their seed, the numbers, and runs that cannot be compared."""

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from src.compare import arms_of, compare, main
from src.reporting.comparison import read_comparison
from src.reporting.results import read_run
from tests.conftest import tiny_config
from tests.run_folders import write_run


def trained(folder: Path, name: str, score: float, words: str = "", **numbers: object) -> Path:
    from src.config import replaced  # noqa: PLC0415

    config = replaced(tiny_config("reference_cvae"), words)
    return write_run(folder / "runs" / name, score=score, config=config, run=name, **numbers)


def test_runs_that_differ_in_their_seed_are_one_arm(tmp_path: Path) -> None:
    trained(tmp_path, "wide-s0", 24.0, "seed=0")
    trained(tmp_path, "wide-s1", 25.0, "seed=1")
    trained(tmp_path, "narrow", 23.0, "training.learning_rate=0.5")
    path = compare(["narrow", "wide-s0", "wide-s1"], tmp_path / "runs", tmp_path / "reports")
    found = read_comparison(tmp_path / "reports" / "compare.json")
    assert found is not None and list(found.arms) == ["narrow", "wide"]
    assert found.arms["wide"]["score"].mean == 24.5
    assert found.arms["wide"]["score"].deviation == pytest.approx(statistics.stdev([24.0, 25.0]))
    assert "training.learning_rate=" in found.settings["wide"] and "seed" not in found.settings["wide"]
    text = path.read_text()
    assert "| wide | 2 of 2 | 24.50 ± 0.71 |" in text and 'make compare RUNS="narrow wide-s0 wide-s1"' in text
    assert (tmp_path / "reports" / "compare" / "runs_psnr_by_frame.svg").is_file()


def test_names_of_arms_never_collide(tmp_path: Path) -> None:
    trained(tmp_path, "a", 24.0, "training.learning_rate=0.5")
    for seed, name in enumerate(("a-s0", "a-s1", "b1", "c")):
        trained(tmp_path, name, 24.0, f"seed={seed}")
    runs = [read_run(tmp_path / "runs" / name) for name in ("a", "a-s0", "a-s1")]
    assert {arm: [run.name for run in of_arm] for arm, of_arm in arms_of(runs).items()} == {
        "a": ["a"],
        "a-s0": ["a-s0", "a-s1"],
    }
    assert list(arms_of(runs[1:] + runs[:1])) == ["a-s0", "a"]
    unlike = [read_run(tmp_path / "runs" / name) for name in ("b1", "c")]
    assert list(arms_of(unlike)) == ["b1"]  # their names share nothing


def test_runs_that_cannot_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Callable[..., tuple[int, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    trained(tmp_path, "first", 24.0)
    trained(tmp_path, "elsewhere", 24.0, dataset_fingerprint="cd" * 32)
    (trained(tmp_path, "unscored", 24.0) / "scores.json").unlink()
    for words, expected in {
        "first": "RUNS names 1 runs; needed: 2 to 1000",
        "first first": "RUNS names 1 runs",
        "": "RUNS names 0 runs",
        "first furst": "there is no run furst; did you mean RUNS=first?",
        "first unscored": "runs/unscored cannot be compared: not evaluated: scores.json is missing; make evaluate",
        "first elsewhere": "first and elsewhere differ in their data set: abababababab, cdcdcdcdcdcd; needed: the",
        "first ../x": "RUNS=../x; needed: up to 100 letters",
    }.items():
        code, text = outcome(main, words)
        assert (code, text.count("\n")) == (2, 1) and expected in text, words
    assert not Path("reports/compare.md").exists()
