"""Every setting of every model has an effect: a tiny run with another value differs, or the value is refused."""

import itertools
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from src.base.console import UserError
from src.config import Config, flatten, parse_config, to_json
from src.dataset import DanceData
from src.maths.schedules import schedule
from src.pushing.data import PushingData
from src.trainer import Trainer
from src.training.idle_settings import refuse_idle_settings
from tests.conftest import PUSHING_MODELS, ROOT, roughen, tiny_config

CPU = torch.device("cpu")
SETTINGS = (ROOT / "src/config.py", ROOT / "src/models/configs.py")
FORCED = {"kind": "late", "start": 0.9, "begin": 1, "decay_from": 2, "decay_step": 0.2}
RISING = {"kind": "cyclical", "start": 0.1, "stop": 1.0, "cycles": 2, "ratio": 0.7}
SAMPLED = {"latent": "mean_of_samples"}
MODELS: dict[str, dict[str, Any]] = {  # configurations in which as many settings as possible have an effect
    "reference_cvae": {},
    "reference_cvae, autoregressive": {"previous_frame": True, "teacher_forcing": FORCED},
    "lab_cvae": {"teacher_forcing": FORCED},
    "svg": {"prior": "learned", "teacher_forcing": FORCED},
    "conv_svg": {},
}
OTHER = {  # values with a visible effect in one step that fit 4 x 8 pixels; a value nearby might do neither
    "training.gradient_clip": 1e-3,
    "training.ema_decay": 0.0,
    "training.held_out_takes": [1],
    "augmentation.shift_x": 1,
    "augmentation.shift_y": 1,
    "evaluation.shift": 1,
    "evaluation.num_samples": 2,
    "model.num_levels": 1,
    "model.num_features": 64,
    "kl_weight.maximum": 0.05,
}
ELSEWHERE = {  # settings without effect in one step, and the test that shows their effect
    "kl_weight.kind": "test_trainer.py::test_pushing_trains_under_every_kl_schedule",
    "model.teacher_forcing.kind": "test_trainer.py::test_svg_trains_through_the_plan_of_teacher_forcing",
    "dataset": "test_pipeline.py::test_from_pictures_to_a_valid_csv",
    "model.name": "test_trainer.py::test_the_seed_decides",
    "training.device": "test_trainer.py::test_impossible_settings_are_refused",
    "training.compile": "test_trainer.py::test_the_blocks_are_compiled_where_asked",
    "training.cuda_graph": "training/test_update.py::test_updates_are_recorded_on_one_gpu",
    "training.channels_last": "training/test_step.py::test_weights_have_the_layout_that_is_asked_for",
    "training.validate_every": "test_trainer.py::test_the_number_of_validations_changes_no_weight",
    "training.patience": "test_trainer.py::test_patience_ends_a_run_early",
    "training.final_of": "evaluation/test_final.py::test_every_frame_of_both_is_drawn_and_no_clip_crosses_the_seam",
    "evaluation.checkpoint": "test_tester.py::test_the_last_checkpoint_can_be_read",
}
REFUSED = {  # settings for which a model accepts only one value
    "reference_cvae": {"training.shuffle", *(f"model.teacher_forcing.{setting}" for setting in ("coin", *FORCED))},
    "reference_cvae, autoregressive": {"training.shuffle", "model.previous_frame"},
    "lab_cvae": {"training.shuffle"},
    **dict.fromkeys(
        PUSHING_MODELS,
        {"augmentation.mirror", "augmentation.shift_x", "augmentation.shift_y"}
        | {"evaluation.mirror", "evaluation.shift", "training.held_out_takes"},
    ),
}


def base(name: str) -> Config:
    """The tiny configuration whose settings are changed one by one."""
    model = name.partition(",")[0]
    training = {"num_epochs": 6, "window": 4 if model in PUSHING_MODELS else 3, "clips_per_epoch": 4, "batch_size": 2}
    evaluation = SAMPLED | ({"mirror": False} if model in PUSHING_MODELS else {})
    return tiny_config(model, model=MODELS[name], kl_weight=RISING, evaluation=evaluation, **training)


def others(value: object, key: str) -> Iterator[object]:
    """Returns other values of the same type; the first is the most likely to have an effect. Some may be invalid."""
    words = {word for path in SETTINGS for word in re.findall(r'"(\w+)"', path.read_text(encoding="utf-8"))}
    if key in OTHER:
        yield OTHER[key]
    elif value is None:
        yield from (False, 0.25)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, str):
        yield from sorted(words - {value})
    else:
        assert isinstance(value, int | float), key
        yield from (value + 8, value + 1, value - 1, value / 2 if value else 0.125, value + 32)


def altered(config: Config, key: str) -> Config | None:
    """Returns the configuration with another valid value of one setting; None if all other values are refused."""
    *sections, name = key.split(".")
    for value in others(flatten(config)[key], key):
        table: dict[str, Any] = json.loads(to_json(config))
        place = table
        for section in sections:
            place = place[section]
        place[name] = value
        try:
            changed = parse_config(table, "test")
            refuse_idle_settings(changed, 1000)
        except UserError:
            continue
        return changed
    return None


def evidence(config: Config, data: DanceData | PushingData) -> Iterator[list[torch.Tensor]]:
    """Yields results that depend on the settings, the cheapest first: the schedules, a training step, a rollout."""
    subject = Trainer(config, data, Path("nowhere"), CPU)
    steps = range(subject.num_steps)
    plan = [[*schedule(config, step, subject.steps_per_epoch).values(), subject.learning_rate(step)] for step in steps]
    yield [torch.tensor(plan)]
    yield [weight.detach().clone() for weight in subject.model.parameters()]
    subject.step = subject.num_steps // 2 + 1
    subject.train_step()
    yield [subject.sums.clone()]
    yield [weight.grad for weight in subject.model.parameters() if weight.grad is not None]
    yield [weight.detach() for weight in (*subject.model.parameters(), *subject.ema.parameters())]
    model = roughen(subject.ema)
    known = subject.validation
    yield [known.draw(model, settings=config.evaluation).float()]


def differ(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    """Returns whether two lists of tensors differ in any bit."""
    same = len(first) == len(second) and all(itertools.starmap(torch.equal, zip(first, second, strict=True)))
    return not same


@pytest.mark.parametrize("name", MODELS)
def test_every_setting_changes_something(name: str, small_data: DanceData, pushing_data: PushingData) -> None:
    config = base(name)
    data = pushing_data if config.model.system == "pushing" else small_data
    shown = cache(lambda: list(evidence(config, data)))
    silent, refused = [], set()
    for key in sorted(flatten(config).keys() - ELSEWHERE.keys()):
        changed = altered(config, key)
        if changed is None:
            refused.add(key)
        elif not any(itertools.starmap(differ, zip(shown(), evidence(changed, data), strict=True))):
            silent.append(key)
    assert silent == []
    assert refused == REFUSED[name] - ELSEWHERE.keys()


def test_what_is_shown_elsewhere_is_shown_there() -> None:
    for place in ELSEWHERE.values():
        file, _, test = place.partition("::")
        assert f"def {test}" in (ROOT / "tests" / file).read_text(encoding="utf-8"), place
