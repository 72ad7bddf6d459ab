"""Final trainings: they see all footage, choose nothing, and have the score of their recipe."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from src.base.console import UserError
from src.config import load_config, parse_config
from src.dance.cost import clips_of_an_epoch
from src.dataset import joined, open_data, sampler
from src.reporting.results import read_run
from src.submission import Provenance
from src.tester import evaluate, submission
from src.trainer import train
from src.training.saved_config import read_config
from tests.conftest import ROOT, tiny_config

RECIPE = tiny_config(
    "reference_cvae", num_epochs=2, validate_every=1, clips_per_epoch=0, evaluation={"checkpoint": "last"}
)
FINAL = RECIPE.model_copy(
    update={"training": RECIPE.training.model_copy(update={"final_of": "recipe", "validate_every": 10})}
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `recipe`, evaluated, and its final training `last`."""
    folder = tmp_path_factory.mktemp("runs")
    train(RECIPE, folder / "recipe", data_folder=data_folder)
    evaluate("recipe", data_folder=data_folder, runs_folder=folder)
    train(FINAL, folder / "last", data_folder=data_folder)
    return folder


def test_every_frame_of_both_is_drawn_and_no_clip_crosses_the_seam(data_folder: Path) -> None:
    data = open_data("tiny", data_folder)
    both = joined(data.train, data.val)
    assert both.takes == ((0, 24), (24, 48), (48, 60))
    assert np.array_equal(both.frames[48:], data.val.frames) and np.array_equal(both.poses[:48], data.train.poses)
    config = FINAL.model_copy(update={"augmentation": FINAL.augmentation.model_copy(update={"mirror": False})})
    clips = sampler(config, data, context=0, device=CPU)
    drawn = clips.batch(0, 0, range(len(clips))).frames.mul(255).round().to(torch.uint8).flatten(1)
    expected = torch.from_numpy(both.frames).flatten(1)
    assert sorted(map(bytes, drawn.numpy())) == sorted(map(bytes, expected.numpy()))
    assert clips_of_an_epoch(FINAL, data.manifest) == (60, "60 frames")


def test_a_final_training_validates_nothing(runs: Path) -> None:
    run = read_run(runs / "last")
    assert [row["epoch"] for row in run.log.rows] == [1, 2] and run.is_trained()
    assert not any(name.startswith("validation") for row in run.log.rows for name in row)
    assert not (runs / "last" / "best.pt").exists()
    assert run.notes == (
        "not evaluated, because it was trained on the validation take as well; its score is that of recipe",
    )


def test_it_has_the_score_of_its_recipe_and_none_of_its_own(runs: Path, data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"so it has no score of its own; .* make evaluate RUN=recipe$"):
        evaluate("last", data_folder=data_folder, runs_folder=runs)
    path = submission("last", data_folder=data_folder, runs_folder=runs, submissions_folder=tmp_path)
    recipe = read_run(runs / "recipe").scores
    assert recipe is not None
    assert Provenance.load(path.with_suffix(".json")).local_score == recipe.score


def test_another_recipe_is_refused_before_training(runs: Path, data_folder: Path) -> None:
    longer = FINAL.model_copy(update={"training": FINAL.training.model_copy(update={"num_epochs": 3})})
    with pytest.raises(UserError, match=re.escape("another recipe (training.num_epochs: 2 -> 3); needed: the same")):
        train(longer, runs / "longer", data_folder=data_folder)
    assert not (runs / "longer").exists()


def test_the_start_says_where_the_score_is(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(FINAL, tmp_path / "last", data_folder=data_folder, stop_at_step=1)
    line = f"the score is that of {tmp_path}/recipe, which is not evaluated yet: make train RUN=recipe"
    assert line in capsys.readouterr().out
    assert read_config(tmp_path / "last").training.final_of == "recipe"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"training": {"final_of": "a"}}, 'needed: evaluation.checkpoint = "last"'),
        ({"training": {"final_of": "a", "patience": 1}}, "patience would have no effect with final_of"),
        ({"training": {"final_of": "a", "held_out_takes": [0]}}, "held_out_takes would have no effect"),
        ({"training": {"final_of": "a", "validate_every": 2}}, "validate_every would have no effect"),
        ({"training": {"final_of": "../a"}}, "'../a' is no name of a run"),
        ({"model": {"name": "svg"}, "training": {"final_of": "a", "window": 5}}, "checkpoint"),
    ],
)
def test_settings_that_do_not_fit_are_refused(section: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse_config(section, "run")


def test_the_shipped_final_training_has_the_recipe_of_its_run() -> None:
    recipe, final = (load_config(ROOT / "configs" / f"{name}.toml") for name in ("dance_mini", "dance_mini_final"))
    assert final.training.final_of == "dance_mini"
    same = final.training.model_copy(update={"final_of": "", "validate_every": recipe.training.validate_every})
    assert final.model_copy(update={"training": same}) == recipe
