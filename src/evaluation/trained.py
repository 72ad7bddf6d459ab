"""runs/<run>/ -> its trained model, and the data set that it was trained on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from src.base.console import UserError
from src.base.devices import pick_device
from src.base.files import file_hash
from src.base.provenance import commit
from src.base.reading import read_bytes
from src.config import Config, to_json
from src.dataset import open_data
from src.intake.facts import FRAME_SIZE, DataFacts
from src.models.interface import build_model
from src.training.checkpoint import WEIGHTS, State, check_settings, load_checkpoint, load_weights
from src.training.resolution import resolved
from src.training.saved_config import read_trained_config, write_config


@dataclass(frozen=True)
class Trained:
    """A trained run: its configuration, its network in evaluation mode, and the checkpoint of its weights."""

    folder: Path
    config: Config
    model: Any
    checkpoint: Path
    step: int
    frame_size: tuple[int, int]  # height and width
    dataset_fingerprint: str
    device: torch.device


def open_run(run: str, runs_folder: Path = Path("runs"), overrides: str = "") -> Trained:
    """Returns the trained model of a run; UserError if it is missing, damaged or trained with other settings.

    `overrides` is the text of SET: evaluation settings to change. Only `save_settings` writes them to the run.
    """
    folder = runs_folder / run
    config = read_trained_config(folder, overrides)
    device = pick_device(config.training.device)
    path = folder / f"{config.evaluation.checkpoint}.pt"
    state = load_checkpoint(path, device, WEIGHTS)
    check_settings(state, config, path)
    facts = _facts(state)
    config = resolved(config, facts)
    model = build_model(config, **facts.network).to(device)
    load_weights(model, state["ema"], path)
    fingerprint = state["dataset_fingerprint"]
    return Trained(folder, config, model.eval(), path, state["step"], facts.frame_size, fingerprint, device)


def _facts(state: State) -> DataFacts:
    """Returns the facts of the data set that a checkpoint was trained on. Old checkpoints only hold the frame size."""
    if "facts" in state:
        return state["facts"]
    height, width = state.get("frame_size", FRAME_SIZE)
    return DataFacts({"height": height, "width": width})


def data_of(trained: Trained, data_folder: Path = Path("data")) -> Any:
    """Returns the data set of a run; UserError if it is missing or has changed since the training."""
    dataset = trained.config.dataset
    data = open_data(dataset, data_folder)
    if data.manifest.fingerprint != trained.dataset_fingerprint:
        raise UserError(
            f"{trained.checkpoint} was trained on other data than {data_folder / dataset} now holds; "
            "pack that data again, or train on this one under another name"
        )
    return data


def save_settings(trained: Trained) -> None:
    """Saves the evaluation settings in config.json, because scores.json or the csv was made with them."""
    if read_bytes(trained.folder / "config.json") != to_json(trained.config).encode():
        write_config(trained.folder, trained.config)


def latent_of(config: Config) -> str:
    """Describes the latents that a run's rollouts use."""
    settings = config.evaluation
    return f"mean of {settings.num_samples} samples" if settings.latent == "mean_of_samples" else settings.latent


def origin_of(trained: Trained) -> dict[str, Any]:
    """Returns the origin of the numbers in scores.json: size, checkpoint, settings, data and code."""
    return {
        "num_parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "checkpoint_step": trained.step,
        "checkpoint_sha256": file_hash(trained.checkpoint),
        "config_sha256": hashlib.sha256(to_json(trained.config).encode()).hexdigest(),
        "dataset_fingerprint": trained.dataset_fingerprint,
        "commit": commit(),
    }
