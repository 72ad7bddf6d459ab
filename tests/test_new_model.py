"""The model that CONTRIBUTING.md adds, as it is written there, goes through training, evaluation and submission."""

import re
import sys
import types
from pathlib import Path

import pytest
from torch import nn

from src.config import parse_config
from src.models import configs
from src.models.configs import MODELS, PoseModelConfig
from src.submission import check_submission
from src.tester import evaluate, submission
from src.trainer import train
from tests.conftest import ROOT, TEST_LENGTH

CHAPTER = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Adding a model")[2].partition("\n## ")[0]
SETTINGS, MODEL = re.findall(r"```python\n(.*?)```", CHAPTER, re.DOTALL)


@pytest.fixture
def tint(monkeypatch: pytest.MonkeyPatch) -> type[nn.Module]:
    """The class of the new model, which is known by its name as long as the test runs."""
    names = dict(vars(configs))
    exec(SETTINGS, names)
    settings: type[PoseModelConfig] = names["TintCVAEConfig"]
    monkeypatch.setattr(configs, "TintCVAEConfig", settings, raising=False)
    monkeypatch.setitem(MODELS, "tint_cvae", settings)
    module = types.ModuleType("src.models.tint_cvae")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(MODEL, module.__dict__)
    return module.TintCVAE


def test_the_model_of_the_example_runs_through_all_stages(
    tint: type[nn.Module], data_folder: Path, tmp_path: Path
) -> None:
    training = {"num_epochs": 2, "window": 3, "batch_size": 4, "warmup_steps": 2, "device": "cpu"}
    config = parse_config({"dataset": "tiny", "model": {"name": "tint_cvae"}, "training": training}, "test")
    runs = tmp_path / "runs"
    assert train(config, runs / "tint", data_folder=data_folder)
    scores = evaluate("tint", data_folder=data_folder, runs_folder=runs)
    assert 5 < scores.score < 60
    csv = submission("tint", data_folder=data_folder, runs_folder=runs, submissions_folder=tmp_path)
    assert check_submission(csv, sequence_length=TEST_LENGTH).num_sequences == 2
