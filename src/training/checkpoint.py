"""The state of a run on disk: its checkpoints and its configuration."""

import difflib
import io
import json
import math
import pickle
from pathlib import Path
from typing import Any

import torch

from src.base.console import UserError
from src.base.files import write_atomically
from src.base.provenance import commit
from src.config import Config, differences, flatten, from_json, replaced, to_json

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any], config: Config) -> None:
    """Writes state dicts and plain values to `path`. A reader sees the old file or the new one, never a part."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "config": to_json(config), "commit": commit(), **state}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Returns what `save_checkpoint` wrote, with the tensors on `device`. It never runs code from the file.

    Raises UserError for a missing, truncated or foreign file; the message says how to fix it.
    """
    try:
        return _load(path, device)
    except UserError as error:
        raise UserError(f"{error}; {_suggest_fix(path, device)}") from None


def _load(path: Path, device: torch.device) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    content = path.read_bytes()  # an error of the disk is then not mistaken for a damaged checkpoint
    try:
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError):
        raise UserError(f"{path} is no checkpoint of this project, or a truncated one") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise UserError(f"{path} has format {found}; this version reads format {FORMAT}")
    return state


def _suggest_fix(path: Path, device: torch.device) -> str:
    """Suggests a fix for an unreadable checkpoint: use the run's other one, resume, or retrain."""
    folder = path.parent
    other = path.with_name("best.pt" if path.stem == "last" else "last.pt")
    train = f"make train RUN={folder.name}"
    try:
        state = _load(other, device)
    except UserError:
        if not path.exists() and not other.exists():
            return f"train the run first: {train}"
        return f"restore it, or delete {folder} and train again: {train}"
    step = state["step"]
    if not path.exists() and state["best_score"] == -math.inf and not state["without_gain"]:
        return f"{folder} stopped at step {step}, before its first validation; resume it: {train}"
    evaluate = f'make evaluate RUN={folder.name} SET="evaluation.checkpoint={other.stem}"'
    again = f"; to train again, delete {folder}" if path.stem == "last" else ""
    return f"restore it, or evaluate {other.name}, of step {step}: {evaluate}{again}"


def load_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Loads weights into the model; UserError if they belong to another model."""
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise UserError(f"{path} does not hold the weights of the model in {path.parent}/config.json") from None


def check_settings(state: dict[str, Any], config: Config, path: Path) -> None:
    """Raises UserError if the settings in a checkpoint differ from those of its run's configuration."""
    changed = differences(from_json(state["config"], str(path)), config)
    if changed:
        raise UserError(
            f"{path} was trained with other settings than {path.parent}/config.json has ({'; '.join(changed)}); "
            "restore one of the two files"
        )


def check_config(folder: Path, config: Config) -> None:
    """Raises UserError with the differing settings if runs/<run>/config.json has another configuration."""
    path = folder / "config.json"
    if not path.is_file():
        return
    before = read_config(folder)
    if changed := differences(before, config):
        raise UserError(
            f"{path} belongs to another configuration ({'; '.join(changed)}); if an earlier command had "
            f'SET="{_as_set(before, changed)}", repeat it; else undo the change, or train under another name, '
            f"or delete {folder}"
        )


def refuse_moved_schedules(before: Config, config: Config, folder: Path) -> None:
    """Raises UserError if a new number of epochs would make a schedule jump in the middle of the run."""
    depends_on_length = config.kl_weight.kind != "constant" and config.kl_weight.per != "within_epoch"
    forcing = config.teacher_forcing
    depends_on_length |= forcing is not None and forcing.kind == "plan"
    old = before.training.num_epochs
    new = config.training.num_epochs
    if depends_on_length and old != new:
        raise UserError(
            f"training.num_epochs: {old} -> {new}, but a schedule of {folder.name} spans the whole run "
            "and would jump; keep the number, or train under another name"
        )


def _as_set(config: Config, changed: list[str]) -> str:
    """Returns the words of SET that set the changed settings to their values in `config`."""
    values = {key: value for key, value in flatten(config).items() if value is not None}
    keys = [key for key in (line.partition(":")[0] for line in changed) if key in values]
    return " ".join(
        f"{key}={values[key] if isinstance(values[key], str) else json.dumps(values[key], separators=(',', ':'))}"
        for key in keys
    )


def write_config(folder: Path, config: Config) -> None:
    """Writes runs/<run>/config.json, and replaces an existing one."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "config.json", to_json(config).encode())


def read_trained_config(folder: Path, overrides: str) -> Config:
    """Returns a trained run's configuration, changed by `overrides`, the words of SET.

    Raises UserError for a setting that cannot change after training.
    """
    before = read_config(folder)
    after = replaced(before, overrides)
    old_values = flatten(before)
    changed = [key for key, value in flatten(after).items() if old_values.get(key) != value]
    if fixed := [key for key in changed if not key.startswith("evaluation.") and key != "training.device"]:
        raise UserError(
            f"SET changes {', '.join(fixed)} of {folder}, which is trained; needed: only settings of [evaluation], "
            "or another run that is trained with these"
        )
    return after


def refuse_path_as_run(config: Path) -> None:
    """Raises UserError if RUN was given as configs/<run>.toml, because make adds the folder and .toml again."""
    run = config.name.split(".toml")[0]
    if not config.is_file() and Path("configs", f"{run}.toml").is_file():
        raise UserError(f"{config} does not exist; did you mean RUN={run}?")


def read_config(folder: Path) -> Config:
    """Returns the configuration of a run; UserError if the run does not exist."""
    path = folder / "config.json"
    if not path.is_file():
        folder = Path(*folder.parts[:-2], folder.name) if folder.parent.name == "configs" else folder
        runs = sorted(found.parent.name for found in folder.parent.glob("*/config.json"))
        name = folder.name.removesuffix(".toml")
        if name not in runs and (folder.parent.parent / "configs" / f"{name}.toml").is_file():
            raise UserError(f"{folder.parent / name} is not trained yet: make train RUN={name}")
        close = difflib.get_close_matches(name, runs, n=1)
        needed = f"did you mean RUN={close[0]}?" if close else f"trained so far: {', '.join(runs) or 'none'}"
        raise UserError(f"there is no run {folder.name}; {needed}")
    return from_json(path.read_bytes(), str(path))
