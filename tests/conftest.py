"""Shared fixtures: a small packed data set, and configurations small enough to train in a second."""

from pathlib import Path

import pytest
import torch

from src.config import Config, parse_config
from src.packing import pack
from src.synthetic import write_dance

torch.set_num_threads(1)  # the tests' tensors are small: more threads cost more than they bring
SAMPLE = Path(__file__).parents[2] / "shared" / "data" / "dance-mini.zip"
TEST_LENGTH = 12


@pytest.fixture(scope="session")
def sample() -> Path:
    """The real sample, where it lies beside the checkout."""
    if not SAMPLE.is_file():
        pytest.skip("the real sample is not here")
    return SAMPLE


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the packed data set `tiny`: 2 takes of 24 synthetic frames, 12 for validation, 2 tests of 12."""
    folder = tmp_path_factory.mktemp("data")
    images = tmp_path_factory.mktemp("images") / "tiny"
    write_dance(images, seed=3, num_takes=2, take_length=24, val_length=TEST_LENGTH, num_tests=2, test_length=TEST_LENGTH)
    pack(images, "tiny", folder, cuts=(24,), test_length=TEST_LENGTH)
    return folder


def tiny_config(model: str, **training: object) -> Config:
    """A configuration of either model that trains on `tiny` in a second."""
    sections: dict[str, dict[str, object]] = {
        "reference_cvae": {"name": "reference_cvae", "width": 8, "num_levels": 2, "num_blocks": 1, "num_latents": 3},
        "lab_cvae": {"name": "lab_cvae"},
    }
    settings = {"num_epochs": 5, "clips_per_epoch": 8, "batch_size": 4, "warmup_steps": 2, "validate_every": 2, "device": "cpu"}
    if model == "lab_cvae":
        settings |= {"window": 3, "batch_size": 2, "clips_per_epoch": 4, "loss": "mse"}
    table = {"dataset": "tiny", "seed": 5, "model": sections[model], "kl_weight": {"stop": 1e-4}, "training": settings | training}
    return parse_config(table, "tiny_config")
