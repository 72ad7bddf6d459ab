"""The first ten losses of small runs, written down for each version of torch, instruction set and processor.

python -m tests.training.golden     adds the losses of this machine to golden_losses.json
"""

import json
import sys
import tempfile
from pathlib import Path

import torch

from src.base.bfloat16 import instruction_set
from src.base.devices import hardware
from src.config import Config, parse_config
from src.dataset import open_data
from src.packing import pack_synthetic
from src.trainer import Trainer
from src.training.resolution import resolved_for
from src.training.update import LOSSES

FILE = Path(__file__).with_name("golden_losses.json")
STEPS = 10
Losses = dict[str, list[list[float]]]  # run -> for each step, the numbers of `LOSSES`
RUNS = {
    "smoke": {
        "dataset": "dancers",
        "model": {"name": "reference_cvae", "width": 8, "num_levels": 3, "num_members": 2},
        "training": {"batch_size": 8, "warmup_steps": 3, "precision": "float32"},
    },
    "lab": {
        "dataset": "dancers",
        "model": {"name": "lab_cvae", "teacher_forcing": {"start": 1.0, "decay_from": 0}},
        "training": {"batch_size": 1, "window": 3, "loss": "mse", "warmup_steps": 3, "precision": "float32"},
        "kl_weight": {"kind": "cyclical", "stop": 0.001, "cycles": 2, "per": "within_epoch"},
    },
    "svg": {
        "dataset": "robot",
        "model": {"name": "svg", "prior": "learned", "width": 8, "num_features": 32, "num_hidden": 32},
        "training": {"batch_size": 2, "window": 5, "loss": "mse", "warmup_steps": 3, "precision": "float32"},
    },
}


def key() -> str:
    """Returns what the last digits depend on: the minor version of torch, the instruction set and the processor."""
    processor = hardware().partition(", ")[0]
    return f"torch {'.'.join(torch.__version__.split('.')[:2])}, {instruction_set()}, {processor}"


def losses_here(folder: Path) -> Losses:
    """Returns the losses of the first steps of all runs on this machine, with one thread. `folder` gets the data."""
    torch.set_num_threads(1)
    drawn = {"num_takes": 1, "take_length": 40, "val_length": 12, "num_tests": 1, "test_length": 12}
    pack_synthetic("synthetic", "dancers", data_folder=folder, **drawn)
    pack_synthetic("synthetic-pushing", "robot", data_folder=folder, num_train=4, num_validate=2, num_test=2)
    return {name: _losses(parse_config(table, name), folder) for name, table in RUNS.items()}


def _losses(config: Config, folder: Path) -> list[list[float]]:
    data = open_data(config.dataset, folder)
    trainer = Trainer(resolved_for(config, data.manifest), data, folder / "run", torch.device("cpu"))
    rows = []
    for _ in range(STEPS):
        trainer.sums.zero_()
        trainer.train_step()
        rows.append([float(f"{value:.9g}") for value in trainer.sums[: len(LOSSES)].tolist()])
    return rows


def known() -> dict[str, Losses]:
    """Returns the losses that are written down, by `key`."""
    found: dict[str, Losses] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return found


def main() -> None:
    """Adds the losses of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        table = known() | {key(): losses_here(Path(folder))}
    lines = [f" {json.dumps(name)}: {json.dumps(losses)}" for name, losses in sorted(table.items())]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{FILE}: {key()}", file=sys.stderr)


if __name__ == "__main__":
    main()
