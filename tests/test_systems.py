"""One key names the system of a model. No other code asks for it, and a new model needs a file, settings and a line."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from src import tester
from src.base.console import UserError
from src.base.systems import SYSTEMS
from src.config import Config, parse_config
from src.models.configs import MODELS, PoseModelConfig, PushingModelConfig, models_of
from src.trainer import train
from tests.conftest import ROOT
from tests.models.toys import ToyPoseConfig, ToyPushingConfig

DOOR = ("intake", "synthetic")  # these folders read and write data of both systems
OF_A_SYSTEM = ("Dance", "Pushing", "Pose", "SVG", "CVAE", "Footage", "Clips", "TakeValidation", "ClipValidation")
LAYERS = ("data", "validation", "schema", "scores", "pictures", "cost")


def switches(tree: ast.AST) -> list[int]:
    """Returns the lines that ask for the system or for the class of a model."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            if any(word in ast.unparse(node.args[1]) for word in OF_A_SYSTEM):
                lines.append(node.lineno)
        elif isinstance(node, ast.Compare):
            sides = [side.value for side in (node.left, *node.comparators) if isinstance(side, ast.Constant)]
            if {*SYSTEMS, *MODELS} & {side for side in sides if isinstance(side, str)}:
                lines.append(node.lineno)
        elif isinstance(node, ast.Attribute) and node.attr.startswith("is_") and node.attr[3:] in SYSTEMS:
            lines.append(node.lineno)
    return lines


def test_a_switch_is_seen() -> None:
    code = "a = isinstance(b, SVGConfig)\nc = b.system == 'dance'\nd = run.is_pushing\ne = isinstance(b, dict)\n"
    assert switches(ast.parse(code)) == [1, 2, 3]


def test_no_file_asks_which_system_it_serves() -> None:
    files = [
        path for path in (ROOT / "src").rglob("*.py") if path.parent.name not in DOOR and path.name != "packing.py"
    ]
    found = {str(path): switches(ast.parse(path.read_text(encoding="utf-8"))) for path in files}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_has_a_module_for_every_layer(name: str) -> None:
    for layer in LAYERS:
        assert SYSTEMS[name].part(layer).__doc__
    assert models_of(name)


def test_the_way_of_a_dancer_imports_no_robot_code() -> None:
    """From the zip to the csv: packing, training, evaluation and submission of the default model."""
    code = (
        "import sys, src.packing, src.intake.dance, src.trainer, src.tester, src.submission\n"
        "from src.base.systems import SYSTEMS\n"
        "from src.config import Config\n"
        "from src.models.interface import build_model\n"
        "[SYSTEMS['dance'].part(layer) for layer in ('data', 'validation', 'scores', 'pictures')]\n"
        "build_model(Config(), height=32, width=64)\n"
        "print(*sorted(name for name in sys.modules if name.startswith('src.')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    robots = ("pushing", "svg", "bair", "clip_folders", "tfrecords", "tabletop")
    assert [name for name in done.stdout.split() if any(word in name for word in robots)] == []


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds a toy model to each system, with one line per model."""
    monkeypatch.setitem(MODELS, "toy_pose", ToyPoseConfig)
    monkeypatch.setitem(MODELS, "toy_pushing", ToyPushingConfig)


def toy_config(model: str, dataset: str, **evaluation: object) -> Config:
    """A run of two steps."""
    table = {
        "dataset": dataset,
        "model": {"name": model},
        "training": {"num_epochs": 1, "clips_per_epoch": 4, "batch_size": 2, "window": 3, "warmup_steps": 0},
        "evaluation": evaluation,
    }
    return parse_config(table, "test")


@pytest.mark.usefixtures("toys")
def test_a_new_pose_model_goes_all_the_way(data_folder: Path, tmp_path: Path) -> None:
    config = toy_config("toy_pose", "tiny")
    assert isinstance(config.model, PoseModelConfig)
    assert train(config, tmp_path / "runs" / "toy", data_folder=data_folder)
    folders = {"data_folder": data_folder, "runs_folder": tmp_path / "runs"}
    tester.evaluate("toy", **folders)
    assert (tmp_path / "runs" / "toy" / "scores.json").is_file()
    path = tester.submission("toy", submissions_folder=tmp_path / "submissions", **folders)
    assert path.read_text(encoding="utf-8").startswith("id,0,1,")


@pytest.mark.usefixtures("toys")
def test_a_new_pushing_model_goes_all_the_way(pushing_folder: Path, tmp_path: Path) -> None:
    config = toy_config("toy_pushing", "pushed", num_samples=2)
    assert isinstance(config.model, PushingModelConfig)
    assert train(config, tmp_path / "runs" / "toy", data_folder=pushing_folder)
    folders = {"data_folder": pushing_folder, "runs_folder": tmp_path / "runs"}
    tester.evaluate("toy", **folders)
    assert (tmp_path / "runs" / "toy" / "scores.json").is_file()
    with pytest.raises(UserError, match="robot pushing"):
        tester.submission("toy", submissions_folder=tmp_path / "submissions", **folders)


@pytest.mark.usefixtures("toys")
def test_a_model_of_one_system_refuses_data_of_the_other(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its models are reference_cvae or lab_cvae or toy_pose, not toy_pushing"):
        train(toy_config("toy_pushing", "tiny"), tmp_path / "toy", data_folder=data_folder)
