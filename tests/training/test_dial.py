"""The dial chooses the recipe with the best expected score, times only widths that it needs, and keeps to the time."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch

from src.base.console import UserError
from src.config import to_json
from src.dataset import open_data
from src.trainer import main
from src.training.dial import (
    BATCH_SIZE,
    MEMBERS_GAIN,
    MOST_EPOCHS,
    WIDTHS,
    Recipe,
    as_started,
    choose,
    dialled,
    expected_score,
    learning_rate,
    recipe_for,
    recipe_of,
    with_minutes,
    with_recipe,
)
from src.training.saved_config import check_config, read_config
from tests.conftest import ROOT, tiny_config

SPEED = 85e9  # FLOP/s of two CPU cores
NUM_FRAMES = 1890


def cpu_seconds(width: int) -> float:
    """Seconds of a step of 32 clips, if time is proportional to arithmetic: 0.0029 GFLOP times width squared."""
    return BATCH_SIZE * (0.0028755 * width**2 + 0.002984 * width) * 1e9 / SPEED


def timed(asked: list[int]) -> Iterator[tuple[int, float]]:
    for width in WIDTHS:
        asked.append(width)
        yield width, cpu_seconds(width)


def best_by_search(seconds: float) -> tuple[float, int, int]:
    """The best recipe of all widths and members, found by trying each."""
    steps_per_epoch = NUM_FRAMES // BATCH_SIZE
    found = []
    for width in WIDTHS:
        for members in MEMBERS_GAIN:
            epochs = min(MOST_EPOCHS, int(seconds / (members * cpu_seconds(width) * steps_per_epoch)))
            if epochs:
                found.append((expected_score(width, epochs * steps_per_epoch, members), width, members))
    return max(found)


@pytest.mark.parametrize("minutes", [2, 5, 10, 30, 60, 240, 1000])
def test_it_finds_what_a_search_of_everything_finds(minutes: int) -> None:
    recipe = choose(60 * minutes, NUM_FRAMES, timed([]))
    score, width, members = best_by_search(60 * minutes)
    assert (recipe.width, recipe.num_members) == (width, members)
    steps = recipe.num_epochs * (NUM_FRAMES // BATCH_SIZE)
    assert expected_score(recipe.width, steps, recipe.num_members) == pytest.approx(score)


@pytest.mark.parametrize("minutes", [1, 5, 30, 300])
def test_it_stays_within_the_time(minutes: int) -> None:
    recipe = choose(60 * minutes, NUM_FRAMES, timed([]))
    steps = recipe.num_epochs * (NUM_FRAMES // BATCH_SIZE)
    assert steps * recipe.num_members * cpu_seconds(recipe.width) <= 60 * minutes
    assert 1 <= recipe.num_epochs <= MOST_EPOCHS


def test_more_time_is_never_worse_and_wide_networks_are_not_timed_for_a_short_run() -> None:
    asked: list[int] = []
    short = choose(120, NUM_FRAMES, timed(asked))
    long = choose(36_000, NUM_FRAMES, timed([]))
    assert asked[-1] <= 32
    assert long.num_epochs * long.num_members > short.num_epochs
    assert long.width > short.width


def test_the_law_fits_the_study() -> None:
    """Reads reports/dial/rows.jsonl: the rows with one member, patch 1, batches of 32 and the law's learning rate."""
    errors = []
    for line in (ROOT / "reports" / "dial" / "rows.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        plain = (row["members"], row["patch"], row["batch"], row["train_frames"]) == (1, 1, 32, 1260)
        usual = (row["warmup"], row["ema"], row["lr"]) == (100, 0.998, 4e-3 if row["width"] == 8 else 2e-3)
        if plain and usual and row["steps"] > 300:
            errors.append(expected_score(row["width"], row["steps"], 1) - (row["held_out"] + row["val"]) / 2)
    assert len(errors) > 12
    assert math.sqrt(fmean(error**2 for error in errors)) < 0.12


def test_learning_rates() -> None:
    assert [learning_rate(width) for width in (8, 16, 64)] == [4e-3, 2e-3, 1e-3]


def test_too_little_time_says_how_much_is_needed() -> None:
    with pytest.raises(UserError, match=r"not one epoch of 1,890 training frames fits.*needed: MINUTES=0\.\d or more"):
        choose(0.5, NUM_FRAMES, timed([]))


def test_a_recipe_becomes_settings_of_the_run() -> None:
    config = with_recipe(tiny_config("reference_cvae"), Recipe(24, 2, 7, 1.5e-3, 0.998), 5)
    assert config.model.model_dump()["width"] == 24
    assert config.training.num_epochs == config.training.validate_every == 7
    assert config.training.learning_rate == 1.5e-3
    assert config.minutes == 5
    assert recipe_of(config) == Recipe(24, 2, 7, 1.5e-3, 0.998)


@pytest.fixture
def two_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the dial time only two narrow networks, one step each."""
    monkeypatch.setattr("src.training.dial.WIDTHS", (8, 16))
    monkeypatch.setattr("src.training.dial.TIMED_STEPS", 1)


@pytest.mark.usefixtures("two_widths")
def test_a_run_keeps_its_recipe(data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config("reference_cvae", model={"num_blocks": 1, "num_levels": 2})
    data = open_data("tiny", data_folder)
    cpu = torch.device("cpu")
    folder = tmp_path / "run"
    assert dialled(config, folder, data, cpu) is config, "without MINUTES nothing is chosen"
    asked = config.model_copy(update={"minutes": 0.5})
    chosen = dialled(asked, folder, data, cpu)
    assert "for 0.5 minutes on this machine: " in capsys.readouterr().out
    assert recipe_of(chosen).width in (8, 16)
    folder.mkdir()
    (folder / "config.json").write_text(to_json(chosen), encoding="utf-8")
    assert dialled(asked, folder, data, cpu) is asked, "nothing is timed for a run that has begun"
    assert as_started(config, folder, "") == as_started(asked, folder, "") == chosen
    extended = as_started(config, folder, "training.num_epochs=300")
    assert extended == with_recipe(chosen, replace(recipe_of(chosen), num_epochs=300), 0.5).model_copy(
        update={"training": chosen.training.model_copy(update={"num_epochs": 300})}
    )
    with pytest.raises(UserError, match=r"model.width: \d+ -> 48"):
        check_config(folder, as_started(config, folder, "model.width=48"))
    with pytest.raises(UserError, match=r"started with MINUTES=0.5, but now the command has MINUTES=9"):
        as_started(config.model_copy(update={"minutes": 9.0}), folder, "")
    (folder / "config.json").write_text(to_json(config), encoding="utf-8")
    assert as_started(config, folder, "") is config
    with pytest.raises(UserError, match="started without MINUTES"):
        as_started(asked, folder, "")


@pytest.mark.usefixtures("two_widths")
def test_clips_of_several_frames_are_refused() -> None:
    config = tiny_config("reference_cvae", window=9)
    with pytest.raises(UserError, match=r"MINUTES=1 is for clips of one frame, but training.window = 9"):
        recipe_for(config, 1, 64, (32, 64), torch.device("cpu"))


def test_another_model_is_refused() -> None:
    with pytest.raises(UserError, match="MINUTES=1 chooses the recipe of reference_cvae"):
        recipe_for(tiny_config("lab_cvae"), 1, 64, (32, 64), torch.device("cpu"))


def test_a_setting_is_not_given_twice() -> None:
    assert with_minutes("seed=1 model.num_blocks=1", "30") == "seed=1 model.num_blocks=1 minutes=30"
    assert with_minutes("model.width=16", "") == "model.width=16"
    with pytest.raises(UserError, match=r"SET has model.width, but MINUTES chooses it"):
        with_minutes("seed=1 model.width=16", "30")


@pytest.mark.usefixtures("two_widths")
def test_a_run_of_some_seconds_is_trained_and_goes_on(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command: the recipe is chosen once, and the run can be resumed with or without MINUTES."""
    (tmp_path / "configs").mkdir()
    toml = 'dataset = "tiny"\n[model]\nname = "reference_cvae"\nnum_levels = 2\nnum_blocks = 1\n'
    (tmp_path / "configs" / "tiny.toml").write_text(toml, encoding="utf-8")
    (tmp_path / "data").symlink_to(data_folder)
    monkeypatch.chdir(tmp_path)
    for words in (["--minutes", "0.02"], [], ["--minutes", "0.02"]):
        monkeypatch.setattr("sys.argv", ["trainer", "configs/tiny.toml", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    config = read_config(Path("runs/tiny"))
    assert config.minutes == 0.02
    assert config.training.batch_size == BATCH_SIZE
