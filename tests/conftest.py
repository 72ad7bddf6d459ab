"""Shared fixtures: small packed data sets, one of them with 4 x 8 pixels, and configurations that train in a second."""

import os
import signal
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

torch.set_num_threads(1)  # the tensors of the tests are small, so more threads are slower
os.environ["OMP_NUM_THREADS"] = "1"  # the same for processes that tests start
for number in (signal.SIGINT, signal.SIGHUP):  # ignored where the tests run in the background of a shell
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
ROOT = Path(__file__).parents[1]
SAMPLE = ROOT.parent / "shared" / "data" / "dance-mini.zip"
TEST_LENGTH = 12
POSE_MODELS = ("reference_cvae", "lab_cvae")
PUSHING_MODELS = ("svg", "conv_svg")


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Prints a line at the end of the test run, from any test process."""
    return partial(record_property, "told")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the lines that tests have reported, whether they passed or not."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for line in (value for name, value in report.user_properties if name == "told" and report.when == "call"):
                terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def sample() -> Path:
    """The real sample, if it is in a folder next to the checkout."""
    if not SAMPLE.is_file():
        pytest.skip("the real sample is not here")
    return SAMPLE


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the packed set `tiny`: 2 synthetic takes of 24 frames, 12 validation frames, 2 tests of 12."""
    folder = tmp_path_factory.mktemp("data")
    lengths = {"take_length": 24, "val_length": TEST_LENGTH, "test_length": TEST_LENGTH}
    pack_synthetic(
        "synthetic", "tiny", data_folder=folder, seed=3, num_takes=2, num_tests=2, num_processes=1, **lengths
    )
    return folder


@pytest.fixture(scope="session")
def pushing_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the packed set `pushed`: synthetic clips, 4 for training, 3 for validation and 3 for tests."""
    folder = tmp_path_factory.mktemp("pushing")
    pack_synthetic("synthetic-pushing", "pushed", data_folder=folder, seed=3, num_train=4, num_validate=3, num_test=3)
    return folder


@pytest.fixture
def pushing_data(pushing_folder: Path) -> PushingData:
    """The opened data set `pushed`."""
    return open_data("pushed", pushing_folder)


@pytest.fixture
def small_data(data_folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DanceData:
    """`tiny` at 4 x 8 pixels, so that the lab model also trains in a second. The trainer opens it instead of `tiny`."""
    small = shrink(open_data("tiny", data_folder))

    def open_either(name: str, folder: Path) -> DanceData | PushingData:
        return request.getfixturevalue("pushing_data") if name == "pushed" else small

    monkeypatch.setattr(trainer, "open_data", open_either)
    return small


def shrink(data: DanceData) -> DanceData:
    """Returns the same data set with only every eighth row and column: 4 x 8 pixels."""

    def smaller(pixels: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(pixels[..., ::8, ::8])

    def footage(whole: Footage) -> Footage:
        return Footage(smaller(whole.frames), smaller(whole.poses), whole.takes)

    given, poses = smaller(data.test_frames), smaller(data.test_poses)
    manifest = data.manifest.model_copy(update={"frame_size": (4, 8)})
    parts = {"train": footage(data.train), "val": footage(data.val)}
    return replace(data, manifest=manifest, test_frames=given, test_poses=poses, **parts)


def tiny_config(model: str, /, **settings: object) -> Config:
    """Returns a resolved configuration for `tiny` or `pushed`. settings: whole sections, or settings of [training]."""
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
    """Returns two clips of noise for any model: 8 x 16 pixels with poses, or 64 x 64 pixels with numbers."""
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
    """Returns the height and width at which this model is tested."""
    return {"height": 64, "width": 64} if model in PUSHING_MODELS else {"height": 8, "width": 16}


def roughen(model: torch.nn.Module, scale: float = 0.05) -> torch.nn.Module:
    """Adds noise to every weight, because layers that start at zero would hide the layers behind them."""
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests marked `gpu` where no GPU is."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
