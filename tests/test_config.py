"""Configurations: all files load, errors name the setting, and a change of a setting is found when a run resumes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.base.console import UserError
from src.config import Config, differences, flatten, from_json, load_config, parse_config, to_json
from src.models.configs import MODELS
from tests.conftest import POSE_MODELS, PUSHING_MODELS, ROOT

FREE = (
    *("training.num_epochs", "training.patience", "training.validate_every", "training.device", "training.compile"),
    "training.cuda_graph",
    "evaluation.",
)

SETTINGS = [(ROOT / "src" / name).read_text(encoding="utf-8") for name in ("config.py", "models/configs.py")]


def default(model: str) -> Config:
    """Returns a configuration of a model in which every setting has an effect."""
    table: dict[str, dict[str, Any]] = {
        "model": {"name": model},
        "kl_weight": {"kind": "cyclical"},
        "training": {"window": 4},
        "evaluation": {"latent": "mean_of_samples"},
    }
    if model == "reference_cvae":
        table["model"]["previous_frame"] = True
    if model != "conv_svg":
        table["model"]["teacher_forcing"] = {"kind": "late", "start": 1.0}
    return parse_config(table, "test")


def load(tmp_path: Path, text: str, overrides: str = "") -> Config:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_every_config_loads_and_survives_json(path: Path) -> None:
    config = load_config(path)
    assert from_json(to_json(config), "test") == config


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"trainig": {}}, "unknown setting trainig; did you mean training?"),
        (
            {"training": {"num_epoch": 3}},
            "training.num_epoch; did you mean training.num_epochs?",
        ),
        ({"training": {"epochs": 3}}, "training.epochs; did you mean training.num_epochs?"),
        ({"num_epochs": 3}, "unknown setting num_epochs; did you mean training.num_epochs?"),
        ({"epochs": 3}, "unknown setting epochs; did you mean training.num_epochs?"),
        ({"mirror": False}, "unknown setting mirror; did you mean augmentation.mirror or evaluation.mirror?"),
        ({"training": {"mirror": False}}, "training.mirror; did you mean augmentation.mirror or evaluation.mirror?"),
        ({"augmentation": {"shift": 2}}, "did you mean evaluation.shift or augmentation.shift_"),
        ({"model": {"name": "svg"}, "num_hidden": 3}, "unknown setting num_hidden; did you mean model.num_hidden?"),
        ({"teacher_forcing": {"start": 1.0}}, "teacher_forcing; did you mean model.teacher_forcing?"),
        ({"negative_slope": 0.1}, "unknown setting negative_slope; known there: dataset, seed, "),
        ({"model": {"name": "lab_cvae"}, "negative_slope": 0.1}, "did you mean model.negative_slope?"),
        ({"kl_weight": {"zzz": 1}}, "unknown setting kl_weight.zzz; known there: kind, start, stop, ratio"),
        ({"model": {"name": "lab_cvae", "depth": 8}}, "unknown setting model.depth; known there: name, width"),
        ({"model": {"name": "reference_cvae", "negative_slope": 0.1}}, "unknown setting model.negative_slope"),
        ({"model": {"name": "conv_svg", "teacher_forcing": {}}}, "unknown setting model.teacher_forcing"),
        (
            {"model": {"name": "lab_cvae", "teacher_forcing": {"begn": 1}}},
            "model.teacher_forcing.begn; did you mean model.teacher_forcing.begin?",
        ),
        ({"model": {"name": "vgs"}}, "model.name must be one of conv_svg, lab_cvae, reference_cvae, svg; found 'vgs'"),
        ({"model": {"width": 8}}, "model.name must be one of conv_svg, lab_cvae, reference_cvae, svg; found None"),
        ({"model": 3}, "model = 3; "),
        ({"training": 3}, "training = 3: "),
        ({"seed": "0"}, "seed = '0': input should be a valid integer"),
        ({"seed": True}, "seed = True: input should be a valid integer"),
        ({"seed": -1}, "seed = -1: input should be greater than or equal to 0"),
        ({"dataset": 3}, "dataset = 3: input should be a valid string"),
        ({"training": {"batch_size": 2.0}}, "training.batch_size = 2.0: input should be a valid integer"),
        ({"training": {"batch_size": 0}}, "training.batch_size = 0: input should be greater than or equal to 1"),
        ({"training": {"compile": 1}}, "training.compile = 1; needed: true or false"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate = 0: input should be greater than 0"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate = nan"),
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate = inf"),
        ({"training": {"ema_decay": 1.0}}, "training.ema_decay = 1.0: input should be less than 1"),
        ({"training": {"loss": "mae"}}, "training.loss = 'mae': input should be 'mse' or 'log_mse'"),
        ({"kl_weight": {"ratio": 0.0}}, "kl_weight.ratio = 0.0: input should be greater than 0"),
        ({"model": {"name": "reference_cvae", "width": 12}}, "model.width = 12: input should be a multiple of 8"),
        ({"model": {"name": "reference_cvae", "num_levels": 5}}, "model.num_levels = 5"),
        ({"model": {"name": "lab_cvae", "num_latents": 3}}, "model.num_latents = 3"),
        ({"model": {"name": "lab_cvae", "teacher_forcing": {"start": 1.5}}}, "model.teacher_forcing.start = 1.5"),
        (
            {"model": {"name": "lab_cvae", "teacher_forcing": {"begin": 3}}},
            'begin would have no effect with kind = "decay"',
        ),
        ({"model": {"name": "lab_cvae"}}, "training.window = 1: lab_cvae needs at least 2 frames"),
        ({"evaluation": {"num_samples": 1}}, "evaluation.num_samples = 1"),
        ({"evaluation": {"shift": -1}}, "evaluation.shift = -1"),
        (
            {"model": {"name": "lab_cvae", "teacher_forcing": {"kind": "late", "begin": 3}}},
            'model.teacher_forcing: start = 0 with kind = "late" would never feed a true frame',
        ),
        (
            {"model": {"name": "lab_cvae", "teacher_forcing": {"kind": "late", "begin": 15, "start": 1.0}}},
            "decay_from = 10 is before begin = 15",
        ),
        (
            {
                "model": {"name": "lab_cvae", "teacher_forcing": {"kind": "late", "begin": 9, "start": 1.0}},
                "training": {"window": 2, "num_epochs": 9},
            },
            "model.teacher_forcing.begin = 9: a run of 9 epochs would never feed a true frame",
        ),
        ({"evaluation": {"num_samples": 3}}, "evaluation.num_samples would have no effect with latent"),
        (
            {"training": {"learning_rate_kind": "constant", "final_ratio": 0.5}},
            "training: final_ratio would have no effect with learning_rate_kind",
        ),
        (
            {"training": {"shuffle": False}},
            "training.shuffle = false, but reference_cvae always draws its clips at random",
        ),
        ({"model": {"name": "svg"}, "training": {"window": 2}}, "training.window = 2: svg needs at least 3 frames"),
        (
            {"model": {"name": "svg"}, "training": {"window": 12}, "evaluation": {"mirror": True}},
            "svg cannot mirror or shift clips",
        ),
        ({"kl_weight": {"cycles": 3}}, "kl_weight: cycles would have no effect with kind"),
        (
            {"seed": -1, "dataset": 3, "model": {"name": "svg", "width": 8.0}, "training": {"lr": 1}},
            "dataset = 3: input should be a valid string; wrong as well: seed, model.width, training.lr",
        ),
    ],
)
def test_a_mistake_is_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_config(table, "configs/run.toml")
    text = str(error.value)
    assert text.startswith("configs/run.toml: ")
    assert message in text
    assert "\n" not in text


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "dance.toml").touch()
    with pytest.raises(UserError, match=r"nance.toml does not exist; did you mean RUN=dance\?"):
        load_config(tmp_path / "nance.toml")
    with pytest.raises(UserError, match=r"run.toml is not valid TOML: .*line 2"):
        load(tmp_path, "seed = 1\nseed = 2\n")
    (tmp_path / "run.toml").write_bytes(b"dataset = '\xff'")
    with pytest.raises(UserError, match=r"run.toml is no text in UTF-8"):
        load_config(tmp_path / "run.toml")


@pytest.mark.parametrize("text", ["", "{", '{"seed": 0', "\0\0", "[]", "3", '{"sed": 0}'])
def test_a_damaged_json_is_named(text: str) -> None:
    with pytest.raises(UserError, match=r"^runs/x/config.json"):
        from_json(text, "runs/x/config.json")


@pytest.mark.parametrize(
    ("overrides", "key", "value"),
    [
        ("seed=7", "seed", 7),
        ("dataset=demo", "dataset", "demo"),
        ("dataset=2024-01-01x", "dataset", "2024-01-01x"),
        ("dataset='two'_words", "dataset", "two_words"),
        ("""'dataset="12"'""", "dataset", "12"),
        ("training.learning_rate=1e-4", "training.learning_rate", 1e-4),
        ("training.compile=true", "training.compile", True),
        ("seed=7 training.num_epochs=3", "training.num_epochs", 3),
        ("seed=7 seed=8", "seed", 8),
        ("model.name=lab_cvae training.window=5 model.teacher_forcing.start=0.5", "model.teacher_forcing.start", 0.5),
    ],
)
def test_set_replaces_settings(tmp_path: Path, overrides: str, key: str, value: object) -> None:
    config = load(tmp_path, "seed = 1\n[training]\nnum_epochs = 9\n", overrides)
    assert flatten(config)[key] == value
    assert type(flatten(config)[key]) is type(value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("seed", "found 'seed'; needed: section.key=value"),
        ("=3", "found '=3'"),
        ("training.=3", "found 'training.=3'"),
        ("seed.x=3", "treats 'seed' as a section"),
        ("dataset='", "cannot be read"),
        ("seed=", "seed = ''"),
        ("sed=3", "unknown setting sed; did you mean seed?"),
        ("num_epochs=3", "unknown setting num_epochs; did you mean training.num_epochs?"),
        ("augmentation.mirror=yes", "augmentation.mirror = 'yes'; needed: true or false"),
        ("model.name=lab_cvae", "training.window = 1: lab_cvae needs at least 2 frames"),
    ],
)
def test_a_malformed_set_is_named(tmp_path: Path, overrides: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^SET.*{re.escape(message)}"):
        load(tmp_path, "seed = 1\n", overrides)


@pytest.mark.parametrize("overrides", ["", "seed=2", "dataset=3"])
def test_a_mistake_of_the_file_is_not_one_of_set(tmp_path: Path, overrides: str) -> None:
    with pytest.raises(UserError, match=r"run.toml: seed = -1: "):
        load(tmp_path, "seed = -1\n", overrides)


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        default("lab_cvae").training.batch_size = 3  # type: ignore[misc]


def others(value: object) -> Iterator[object]:
    """Yields other values of the same type. For every setting, at least one of them is valid."""
    words = set(re.findall(r'"(\w+)"', " ".join(SETTINGS)))
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, str):
        yield from sorted(words - {value})
    elif value is None:
        yield from (0.25, False)
    elif isinstance(value, list):
        yield [*value, 1]
    else:
        assert isinstance(value, int | float)
        yield from (value + 8, value + 1, value - 1, value / 2 if value else 0.125, value + 32)


def altered(config: Config, key: str) -> Config:
    """Returns the configuration with another valid value of one setting."""
    *sections, name = key.split(".")
    for value in others(flatten(config)[key]):
        table = json.loads(to_json(config))
        place = table
        for section in sections:
            place = place[section]
        place[name] = value
        try:
            return parse_config(table, "test")
        except UserError:
            continue
    raise AssertionError(f"no other value of {key}")


FINAL = "training.final_of"  # it needs evaluation.checkpoint = "last"
ONE_VALUE = {  # model -> settings that have only one valid value for its system, or for its other settings
    **dict.fromkeys(
        PUSHING_MODELS,
        ("model.name", "augmentation.", "evaluation.mirror", "evaluation.shift", "training.held_out_takes", FINAL),
    ),
    **dict.fromkeys(POSE_MODELS, ("model.name", "training.shuffle", "model.previous_frame", FINAL)),
}


@pytest.mark.parametrize(
    ("model", "key"),
    [(model, key) for model in MODELS for key in flatten(default(model)) if not key.startswith(ONE_VALUE[model])],
)
def test_only_a_change_that_alters_weights_is_a_difference(model: str, key: str) -> None:
    old = default(model)
    new = altered(old, key)
    assert from_json(to_json(new), "test") == new != old
    changed = [line.split(": ")[0] for line in differences(old, new)]
    free = key.startswith(FREE)
    assert changed == ([] if free else [key])


def test_a_difference_shows_both_values() -> None:
    old, new = (parse_config({"seed": seed, "training": {"window": 3}}, "test") for seed in (1, 2))
    assert differences(old, new) == ["seed: 1 -> 2"]
    assert "model.name: reference_cvae -> lab_cvae" in differences(default("reference_cvae"), default("lab_cvae"))
