"""The log of a run, one row for each epoch: runs/<run>/log.jsonl, and the same numbers for TensorBoard."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from torch.utils.tensorboard import SummaryWriter

from src.base.console import UserError, say
from src.base.files import write_atomically
from src.base.reading import MAX_TEXT_BYTES, read_bytes, reason_of, seal, unseal
from src.config import Config
from src.maths.schedules import schedule

FILE = "log.jsonl"
LOG_NAMES = {  # every name in a row, and its meaning
    "epoch": "number of finished epochs",
    "step": "optimiser steps taken",
    "total": "the training loss, mean over the epoch's steps",
    "reconstruction": "reconstruction loss, mean over the epoch's steps",
    "kl": "KL divergence in nats per frame, mean over the epoch's steps",
    "kl_weight": "weight of the KL divergence at the epoch's last step",
    "teacher_forcing_ratio": "probability that the model sees a true previous frame, at the epoch's last step",
    "learning_rate": "learning rate at the epoch's last step",
    "skipped_steps": "steps skipped because their gradient was not finite",
    "clips_per_s": "clips trained per second",
    "data_share": "share of the time that is spent waiting for batches",
    "validation_score": "score in dB of a free rollout of the validation data, latents from the prior, no shifts",
    "validation_score_posterior": "the same score with latents from the posterior, which sees the true frames",
    "held_out_score": "the same as validation_score, for the takes held out of training",
    "validation_total": "loss of validation clips as long as training clips, with the epoch's last weight and ratio",
    "validation_reconstruction": "reconstruction loss of the same clips",
    "validation_kl": "KL divergence of the same clips, in nats per frame",
}
SCHEDULES = ("kl_weight", "teacher_forcing_ratio")
CURVE_POINTS = 2_000  # a schedule's curve has this many points, or up to twice as many
LogRow = dict[str, int | float]  # the keys are names of LOG_NAMES
ROW = TypeAdapter(LogRow)
LARGEST = 2**53
FARTHEST = 1e30  # no number of a log is as large, and plots cannot draw what is much larger
BOUNDS = {  # of numbers that are never infinite or undefined
    "kl_weight": (0.0, 1e300),
    "teacher_forcing_ratio": (0.0, 1.0),
    "learning_rate": (0.0, 1e300),
    "skipped_steps": (0.0, LARGEST),
    "clips_per_s": (0.0, 1e300),
}


@dataclass(frozen=True)
class TrainingLog:
    """The rows of a run's log, oldest first.

    `damage` says which line is damaged; "" for a whole file. The rows after a damaged line are not read.
    """

    rows: list[LogRow]
    damage: str = ""

    @property
    def num_epochs(self) -> int:
        """The number of epochs trained so far."""
        return int(self.rows[-1]["epoch"]) if self.rows else 0

    @property
    def clips_per_s(self) -> float | None:
        """Training speed, the median over epochs, because the first epochs are slower. None without a log."""
        speeds = [row["clips_per_s"] for row in self.rows if "clips_per_s" in row]
        return median(speeds) if speeds else None

    @property
    def kl_nats(self) -> float | None:
        """KL divergence of the posterior from the prior at the last validation, in nats per frame."""
        return next((row["validation_kl"] for row in reversed(self.rows) if "validation_kl" in row), None)

    def training_seconds(self, config: Config) -> float | None:
        """Returns the training time in seconds, without validation; None without a log."""
        if not self.rows or any(row.get("clips_per_s", 0) <= 0 for row in self.rows):
            return None
        rows = [{"step": 0.0}, *self.rows]
        num_steps = [after["step"] - before["step"] for before, after in pairwise(rows)]
        clips = [steps * config.training.batch_size for steps in num_steps]
        return sum(count / row["clips_per_s"] for count, row in zip(clips, self.rows, strict=True))

    def schedules(self, config: Config) -> dict[str, tuple[list[float], list[float]]]:
        """Returns {name: (epochs, values)} for the KL weight and the teacher-forcing ratio, up to the last row.

        They are computed step by step, because a row of the log has only the values of an epoch's last step. There are
        none if the log has more epochs than the configuration, because it then belongs to another run.
        """
        if not self.rows or self.num_epochs > config.training.num_epochs or config.kl_weight.stop is None:
            return {}  # without rows, of another run, or with settings that no training has resolved
        num_steps = int(self.rows[-1]["step"])
        per_epoch = num_steps // self.num_epochs
        steps = range(0, num_steps, max(1, num_steps // CURVE_POINTS))
        values = [schedule(config, step, per_epoch) for step in steps]
        epochs = [step / per_epoch for step in steps]
        names = [name for name in SCHEDULES if name in self.rows[-1]]
        return {name: (epochs, [value[name] for value in values]) for name in names}

    def is_finished(self, config: Config) -> bool:
        """Returns whether training has ended: all epochs are trained, or the patience is used up."""
        patience = config.training.patience
        scores = [score_to_choose_by(row) for row in self.rows if "validation_score" in row]
        validations_without_improvement = len(scores) - 1 - scores.index(max(scores)) if scores else 0
        return self.num_epochs >= config.training.num_epochs or 0 < patience <= validations_without_improvement


class History:
    """Writes the log of one run. Only one process may do so."""

    def __init__(self, folder: Path, step: int, num_epochs: int = 0) -> None:
        """Opens the log and drops the rows after `step`, because a resumed run takes those steps again.

        num_epochs: epochs that are finished at `step`. Says if the log lacks the row of one.
        """
        self.path = folder / FILE
        rows = [row for row in read_history(folder) if row["step"] <= step]
        if lacking := lacking_epochs(rows, num_epochs):
            say(f"{folder}/{lacking}; their numbers are lost")
        write_atomically(self.path, b"".join(map(_line, rows)))
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, row: Mapping[str, int | float]) -> None:
        """Appends the row of an epoch."""
        with self.path.open("ab") as file:
            file.write(_line(row))
            file.flush()
            os.fsync(file.fileno())
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self.tensorboard.add_scalar(name, value, row["step"])
        self.tensorboard.flush()

    def close(self) -> None:
        """Closes TensorBoard's file."""
        self.tensorboard.close()


def lacking_epochs(rows: Sequence[LogRow], num_epochs: int) -> str:
    """Returns which rows a log lacks of a run that has finished `num_epochs` epochs; "" if it has them all."""
    lacking = sorted(set(range(1, num_epochs + 1)) - {int(row["epoch"]) for row in rows})
    return f"{FILE} lacks {len(lacking)} of {num_epochs} epochs, such as epoch {lacking[0]}" if lacking else ""


def _line(row: Mapping[str, int | float]) -> bytes:
    """Returns a row as a line of JSON with a checksum. NaN and infinity become strings."""
    return seal(to_json(dict(row), inf_nan_mode="strings"))


def score_to_choose_by(row: Mapping[str, float]) -> float:
    """Returns the score in dB that chooses best.pt and that patience watches, from the row of a validated epoch.

    If takes are held out of training, it is their score. So no choice depends on the take that is reported.
    """
    return row.get("held_out_score", row["validation_score"])


def read_log(folder: Path) -> TrainingLog:
    """Returns a run's log up to the first damaged line. It has no rows if the run has not trained yet.

    A last line without a line break is ignored: the run was killed while it wrote that line.
    """
    path = folder / FILE
    if not path.exists():
        return TrainingLog([])
    if not path.is_file():
        return TrainingLog([], f"{FILE} is no plain file")
    *lines, _cut_off = read_bytes(path, MAX_TEXT_BYTES).split(b"\n")
    rows: list[LogRow] = []
    for number, line in enumerate(lines, start=1):
        table = unseal(line)
        problem = "it does not match its checksum" if table is None else _add_row(rows, table)
        if problem:
            return TrainingLog(rows, f"{FILE} is damaged in line {number}: {problem}")
    return TrainingLog(rows)


def _add_row(rows: list[LogRow], line: bytes) -> str:
    """Adds the row of a line to the rows before it; returns what is wrong with the line, "" if nothing is."""
    try:
        row = ROW.validate_json(line)
    except ValidationError as error:
        return reason_of(error)
    epoch, step = row.get("epoch"), row.get("step")
    if not (isinstance(epoch, int) and isinstance(step, int) and 1 <= epoch <= step <= LARGEST):
        return "its epoch and its step are not whole numbers from 1 on"
    is_far = any(FARTHEST < abs(value) < math.inf for value in row.values())
    if is_far or any(not low <= row.get(name, low) <= high for name, (low, high) in BOUNDS.items()):
        return f"a number is beyond {FARTHEST:g}, or one of {', '.join(BOUNDS)} is out of its bounds"
    if rows and row["epoch"] <= rows[-1]["epoch"]:
        return f"epoch {epoch} comes after epoch {rows[-1]['epoch']}"
    if step % epoch or (rows and step // epoch != rows[0]["step"] // rows[0]["epoch"]):
        return f"step {step} does not belong to epoch {epoch}"
    rows.append(row)
    return ""


def read_history(folder: Path) -> list[LogRow]:
    """Returns the rows of a run's log; UserError if it is damaged, because training cannot resume from it."""
    log = read_log(folder)
    if log.damage:
        raise UserError(f"{folder}/{log.damage}; restore it, or delete that line")
    return log.rows


def epoch_line(row: dict[str, float], config: Config) -> str:
    """Returns the line that training prints after an epoch. The loss "log_mse" is shown in dB, too, as PSNR."""
    settings = config.training
    text = f"epoch {row['epoch']:.0f}/{settings.num_epochs}  loss {row['total']:.4f}"
    if settings.loss == "log_mse":
        text += f" (training {-10 / math.log(10) * row['reconstruction']:.2f} dB)"
    text += f"  kl {row['kl']:.3g}  {row['clips_per_s']:.0f} {'frames' if settings.window == 1 else 'clips'}/s"
    if row["skipped_steps"]:
        text += f"  skipped steps: {row['skipped_steps']:.0f} (gradient not finite)"
    if "validation_score" in row:
        text += f"  validation {row['validation_score']:.2f} dB"
    if "held_out_score" in row:
        text += f"  held out {row['held_out_score']:.2f} dB"
    return text
