"""The GPU check without a GPU: its parts, its report, and its refusal."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from src import gpu_check
from src.base.console import UserError
from src.cost import Cost
from src.evaluation.scores import read_scores
from src.speed.rollouts import rollout_rows
from src.speed.steps import Peaks, floor_ms, recipe, step_of, step_rows
from src.speed.whole_run import whole_run
from src.training.log import read_history

CPU = torch.device("cpu")
PEAKS = Peaks(dict.fromkeys(("float32", "TF32", "bfloat16", "float16"), 0.1), 1e10)


def test_without_a_gpu_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu-check"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device is usable here; needed: a GPU and its driver"):
        gpu_check.main()


def test_the_report_names_what_failed_and_what_had_no_time(tmp_path: Path) -> None:
    def broken() -> Iterator[gpu_check.Row]:
        yield {"recipe": "a", "ms": 2.0}
        raise RuntimeError("no kernel\nmore")

    check = gpu_check.Check(100, tmp_path / "gpu")
    check.run("Steps", "broken", broken)
    check.run("Steps", "long", broken, expected=1000)
    check.run("Steps", "whole", lambda: [{"recipe": "b", "ms": 1234.5}])
    text = (tmp_path / "gpu.md").read_text()
    assert "| recipe | ms |\n|---|---|\n| a | 2 |\n| b | 1,234 |" in text
    assert "## Failed\n\n* Steps: broken: RuntimeError: no kernel\n" in text
    assert "## No time was left\n\n* Steps: long\n" in text
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert content["parts"] == {"Steps": [{"recipe": "a", "ms": 2.0}, {"recipe": "b", "ms": 1234.5}]}
    assert content["machine"]["torch"] == torch.__version__
    assert content["failures"] == ["Steps: broken: RuntimeError: no kernel"]
    assert content["left_out"] == ["Steps: long"]


def test_the_floor_is_the_slower_of_arithmetic_and_memory() -> None:
    cost = Cost(num_parameters=1, flops=1e9, num_kernels=1, activation_bytes=1e6, step_seconds=1.0, num_clips=1)
    peaks = Peaks({"float32": 1.0, "bfloat16": 100.0}, 1e10)
    assert floor_ms(cost, 4, peaks, "float32") == pytest.approx(4.0)  # 4 GFLOP at 1 TFLOP/s
    assert floor_ms(cost, 4, peaks, "bfloat16") == pytest.approx(0.4)  # 2 x 2 MB at 10 GB/s


@pytest.mark.parametrize("name", gpu_check.RECIPES)
def test_every_recipe_is_one_that_exists(name: str) -> None:
    config, facts = recipe(name, precision="TF32")
    assert config.training.precision == "float32"
    assert facts.frame_size


def test_a_step_and_a_rollout_are_timed() -> None:
    rows = list(step_rows("smoke", "eager", ("float32",), peaks=PEAKS, repeats=2, device=CPU))
    assert [row["precision"] for row in rows] == ["float32"]
    assert 0 < rows[0]["smallest"] <= rows[0]["ms"] <= rows[0]["largest"]
    assert rows[0]["times_floor"] == pytest.approx(rows[0]["ms"] / rows[0]["floor_ms"])
    drawn = list(rollout_rows("smoke", ("eager", "CUDA graph"), 1, CPU, length=4))
    assert [row["mode"] for row in drawn] == ["eager", "CUDA graph"]
    assert drawn[1]["largest_difference"] == 0.0


def test_a_timed_step_changes_the_weights() -> None:
    config, facts = recipe("smoke", precision="float32")
    step = step_of(config, facts, "eager", CPU)
    first, second = step(), step()
    assert first[0] != second[0]
    assert first[3] == second[3] == 0


def test_a_run_goes_from_data_to_a_csv(tmp_path: Path) -> None:
    lengths = {"take_length": 40, "val_length": 12, "test_length": 12}
    data = {"num_takes": 1, "num_tests": 1, "num_processes": 1, **lengths}
    row = whole_run(tmp_path, "smoke", step_seconds=1.0, seconds=1.0, data=data)
    assert (tmp_path / "submissions" / "gpu_check.csv").is_file()
    log = read_history(tmp_path / "runs" / "gpu_check")
    assert row["steps"] == log[-1]["step"]
    assert row["score_db"] == pytest.approx(read_scores(tmp_path / "runs" / "gpu_check" / "scores.json").score)
    assert all(row[f"{part}_s"] > 0 for part in ("data", "train", "evaluate", "submission"))
