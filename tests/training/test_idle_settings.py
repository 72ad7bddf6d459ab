"""Settings without effect are refused when a run starts, but not when it is resumed."""

import json
from pathlib import Path
from typing import Any

import pytest

from src.base.console import UserError
from src.config import load_config, to_json
from src.experiments import load_grid
from src.trainer import train
from src.training.idle_settings import refuse_idle_settings
from tests.conftest import ROOT, tiny_config

MANY = 10_000  # steps
FORCED = {"start": 1.0, "decay_step": 0.0}


@pytest.mark.parametrize(
    ("model", "settings", "line"),
    [
        (
            "lab_cvae",
            {"model": {"teacher_forcing": {"decay_from": 3}}},
            "decay_from would have no effect with start = 0",
        ),
        ("svg", {"model": {"teacher_forcing": {"coin": "batch"}}}, "coin would have no effect with start = 0"),
        ("svg", {"model": {"teacher_forcing": {"decay_step": 0.3}}}, "decay_step would have no effect with start = 0"),
        (
            "lab_cvae",
            {"model": {"teacher_forcing": FORCED | {"decay_from": 3}}},
            "decay_from would have no effect with decay_step = 0",
        ),
        (
            "lab_cvae",
            {"model": {"teacher_forcing": FORCED | {"coin": "batch"}}},
            "coin would have no effect with start = 1 and decay_step = 0",
        ),
        (
            "reference_cvae",
            {"model": {"prior_probability": 1.0}, "kl_weight": {"kind": "cyclical", "cycles": 3, "stop": 0.1}},
            "kl_weight.kind, kl_weight.stop, kl_weight.cycles would have no effect with model.prior_probability = 1",
        ),
        ("conv_svg", {"model": {"prior_probability": 1.0}}, "kl_weight.stop would have no effect"),
        ("lab_cvae", {"kl_weight": {"maximum": 2e-4}}, "kl_weight.maximum = 0.0002 is never reached"),
        ("lab_cvae", {"kl_weight": {"maximum": 1e-4}}, "kl_weight.maximum = 0.0001 is never reached"),
        ("lab_cvae", {"kl_weight": {"kind": "monotonic", "start": 1e-4, "ratio": 0.3}}, "the weight never changes"),
        ("svg", {"clips_per_epoch": 1, "batch_size": 64}, "batches of 64 use 64 clips per epoch"),
        ("svg", {"clips_per_epoch": 100, "batch_size": 64}, "batches of 64 use 64 clips per epoch"),
        (
            "svg",
            {"clips_per_epoch": 130, "batch_size": 64},
            "needed: a multiple of training.batch_size, for example 128",
        ),
        ("svg", {"warmup_steps": MANY + 1}, "the run has 10000 steps: it never reaches its learning rate"),
    ],
)
def test_a_setting_without_effect_is_refused(model: str, settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as error:
        refuse_idle_settings(tiny_config(model, **settings), MANY)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("lab_cvae", {"model": {"teacher_forcing": {"start": 0.1, "decay_from": 3, "coin": "batch"}}}),
        (
            "lab_cvae",
            {"model": {"teacher_forcing": FORCED | {"kind": "late", "coin": "batch"}}},
        ),
        ("lab_cvae", {"model": {"teacher_forcing": {"kind": "plan", "coin": "batch"}}}),
        ("lab_cvae", {"kl_weight": {"kind": "monotonic", "start": 3e-4, "maximum": 2e-4}}),
        ("reference_cvae", {"model": {"prior_probability": 0.99}, "kl_weight": {"stop": 0.1}}),
        ("svg", {"clips_per_epoch": 0, "batch_size": 64}),
        ("svg", {"clips_per_epoch": 128, "batch_size": 64, "warmup_steps": MANY}),
    ],
)
def test_a_setting_with_effect_is_not(model: str, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    refuse_idle_settings(tiny_config(model, **settings), MANY)
    assert capsys.readouterr().out == ""


def test_the_default_warm_up_of_a_short_run_is_only_said(capsys: pytest.CaptureFixture[str]) -> None:
    refuse_idle_settings(tiny_config("svg", warmup_steps=100), 40)
    assert capsys.readouterr().out.startswith("note: training.warmup_steps = 100, but the run has 40 steps")


def test_no_shipped_recipe_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for path in (ROOT / "configs").glob("*.toml"):
        refuse_idle_settings(load_config(path), MANY)
    for path in (ROOT / "configs/experiments").glob("*.toml"):
        grid = load_grid(path)
        for words in grid.arms.values():
            refuse_idle_settings(load_config(ROOT / f"configs/{grid.base}.toml", f"{grid.set} {words}"), MANY)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("small_data")
def test_a_run_that_has_begun_goes_on(tmp_path: Path) -> None:
    config, folder = tiny_config("reference_cvae", num_epochs=1, clips_per_epoch=9), tmp_path / "run"
    with pytest.raises(UserError, match=r"needed: a multiple of training.batch_size, for example 8"):
        train(config, folder)
    assert not folder.exists()
    folder.mkdir()
    (folder / "config.json").write_text(to_json(config))  # as if an earlier version had started the run
    assert train(config, folder)
    assert json.loads((folder / "config.json").read_text())["training"]["clips_per_epoch"] == 9
