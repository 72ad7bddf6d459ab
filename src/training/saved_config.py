"""The configuration of a run on disk: runs/<run>/config.json."""

import json
from pathlib import Path

from src.base.console import UserError
from src.base.files import write_atomically
from src.base.names import nearest
from src.base.reading import read_bytes
from src.config import Config, differences, flatten, from_json, replaced, to_json


def check_config(folder: Path, config: Config) -> None:
    """Raises UserError with the differing settings if runs/<run>/config.json has another configuration."""
    path = folder / "config.json"
    if not path.is_file():
        return
    before = read_config(folder)
    if changed := differences(before, config):
        raise UserError(
            f"{path} belongs to another configuration ({'; '.join(changed)}); if an earlier command had "
            f'SET="{as_set(before, changed)}", repeat it; else undo the change, or train under another name, '
            f"or move {folder} away"
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


def as_set(config: Config, changed: list[str]) -> str:
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


def refuse_unknown_run(folder: Path, variable: str) -> None:
    """Raises UserError, which names the nearest run, if there is no folder of this run."""
    if not folder.is_dir():
        raise _unknown(folder, variable)


def _unknown(folder: Path, variable: str) -> UserError:
    if (folder.parent.parent / "configs" / f"{folder.name}.toml").is_file():
        return UserError(f"{folder} is not trained yet: make train RUN={folder.name}")
    runs = sorted(found.parent.name for found in folder.parent.glob("*/config.json"))
    return UserError(f"there is no run {folder.name}; {nearest(folder.name, runs, variable)}")


def read_config(folder: Path) -> Config:
    """Returns the configuration of a run; UserError if the run does not exist."""
    path = folder / "config.json"
    if not path.is_file():
        raise _unknown(folder, "RUN")
    return from_json(read_bytes(path), str(path))
