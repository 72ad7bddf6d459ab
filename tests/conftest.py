"""Shared fixtures: a small packed data set, a smaller one of 4 x 8 pixels, configurations that train in a second."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from src import trainer
from src.base.console import run_main
from src.base.systems import SYSTEMS
from src.config import Config, parse_config
from src.dataset import Batch, DanceData, Footage, open_data
from src.models.conv_svg import ConvSVG
from src.models.svg import SVG
from src.packing import pack_synthetic
from src.pushing.data import PushingBatch, PushingData
from src.training.resolution import resolved

torch.set_num_threads(1)  # the tests' tensors are small: more threads cost more than they bring
os.environ["OMP_NUM_THREADS"] = "1"  # nor in the processes that tests start
ROOT = Path(__file__).parents[1]
SAMPLE = ROOT.parent / "shared" / "data" / "dance-mini.zip"
TEST_LENGTH = 12
POSE_MODELS = ("reference_cvae", "lab_cvae")
PUSHING_MODELS = ("svg", "conv_svg")


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says a line at the end of the test run, in whatever process the test ran."""
    return partial(record_property, "told")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what tests told, whether they passed or not."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for line in (value for name, value in report.user_properties if name == "told" and report.when == "call"):
                terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def sample() -> Path:
    """The real sample, where it lies beside the checkout."""
    if not SAMPLE.is_file():
        pytest.skip("the real sample is not here")
    return SAMPLE


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with `tiny`, packed: 2 takes of 24 synthetic frames, 12 frames for validation, 2 tests of 12."""
    folder = tmp_path_factory.mktemp("data")
    lengths = {"take_length": 24, "val_length": TEST_LENGTH, "test_length": TEST_LENGTH}
    pack_synthetic(
        "synthetic", "tiny", data_folder=folder, seed=3, num_takes=2, num_tests=2, num_processes=1, **lengths
    )
    return folder


@pytest.fixture(scope="session")
def pushing_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with `pushed`, packed: 4 synthetic clips of robot pushing to train on, 3 to validate, 3 to test."""
    folder = tmp_path_factory.mktemp("pushing")
    pack_synthetic("synthetic-pushing", "pushed", data_folder=folder, seed=3, num_train=4, num_validate=3, num_test=3)
    return folder


@pytest.fixture
def pushing_data(pushing_folder: Path) -> PushingData:
    """`pushed`, opened."""
    return open_data("pushed", pushing_folder)


@pytest.fixture
def small_data(data_folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DanceData:
    """`tiny` at 4 x 8 pixels, where the lab model trains in a second, too; the trainer opens it in place of `tiny`."""
    small = shrink(open_data("tiny", data_folder))

    def open_either(name: str, folder: Path) -> DanceData | PushingData:
        return request.getfixturevalue("pushing_data") if name == "pushed" else small

    monkeypatch.setattr(trainer, "open_data", open_either)
    return small


def shrink(data: DanceData) -> DanceData:
    """The same data set with every eighth row and column: 4 x 8 pixels."""

    def smaller(pixels: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(pixels[..., ::8, ::8])

    def footage(whole: Footage) -> Footage:
        return Footage(smaller(whole.frames), smaller(whole.poses), whole.takes)

    given, poses = smaller(data.test_frames), smaller(data.test_poses)
    manifest = data.manifest.model_copy(update={"frame_size": (4, 8)})
    parts = {"train": footage(data.train), "val": footage(data.val)}
    return replace(data, manifest=manifest, test_frames=given, test_poses=poses, **parts)


def tiny_config(model: str, /, **settings: object) -> Config:
    """A resolved configuration of any model, for `tiny` or `pushed`; settings: sections by name, others of training."""
    table: dict[str, dict[str, object]] = {
        "model": {"name": model},
        "kl_weight": {"stop": 1e-4},
        "training": {"num_epochs": 5, "warmup_steps": 2, "validate_every": 2, "device": "cpu", "precision": "float32"},
    }
    if model == "lab_cvae":
        table["training"] |= {"window": 3, "batch_size": 2, "clips_per_epoch": 4, "loss": "mse"}
    elif model in PUSHING_MODELS:
        table["model"] |= {"width": 8, "num_latents": 3}
        table["model"] |= {"num_features": 32, "num_hidden": 16} if model == "svg" else {}
        table["training"] |= {"window": 5, "batch_size": 2, "clips_per_epoch": 4, "loss": "mse"}
    else:
        table["model"] |= {"width": 8, "patch": 2, "num_levels": 2, "num_blocks": 1, "num_latents": 3}
        table["training"] |= {"batch_size": 4, "clips_per_epoch": 8}
    for name, value in settings.items():
        if isinstance(value, dict):
            table[name] = table.get(name, {}) | value
        else:
            table["training"][name] = value
    dataset = "pushed" if model in PUSHING_MODELS else "tiny"
    config = parse_config({"dataset": dataset, "seed": 5} | table, "tiny_config")
    return resolved(config, SYSTEMS[config.model.system].part("cost").ASSUMED)


def random_batch(model: torch.nn.Module, num_frames: int, *, seed: int = 1) -> Batch | PushingBatch:
    """Two clips of noise for a model of either system: poses of 8 x 16 pixels, or numbers with frames of 64 x 64."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    if isinstance(model, SVG | ConvSVG):
        return PushingBatch(rand(2, num_frames, 3, 64, 64), rand(2, num_frames, 7))
    size = (3, 8, 16)
    return Batch(
        rand(2, num_frames, *size), rand(2, num_frames + 2 * model.context, *size), rand(2, *size), rand(2, *size)
    )


def frame_size(model: str) -> dict[str, int]:
    """Height and width at which a model of that name is tested."""
    return {"height": 64, "width": 64} if model in PUSHING_MODELS else {"height": 8, "width": 16}


def roughen(model: torch.nn.Module, scale: float = 0.05) -> torch.nn.Module:
    """The model with noise on every weight, since layers that start at zero would hide what stands behind them."""
    noise = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=noise))
    return model.eval()


@pytest.fixture
def outcome(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs a command's main with arguments; returns its exit code and what it wrote to standard error."""

    def run(main: Callable[[], None], *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
        capsys.readouterr()
        try:
            run_main(main)
        except SystemExit as stop:
            return int(stop.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run
