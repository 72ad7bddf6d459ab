"""What a run did, epoch by epoch: runs/<run>/log.jsonl for people and report.py, TensorBoard beside it.

Names: total, reconstruction, kl (training, mean over the epoch) and the same with `validation_` before them; kl_weight,
teacher_forcing_ratio, learning_rate as at the epoch's last step, and the losses of validation are with that weight and
at that ratio; validation_score, the score of a free rollout with latents from the prior and without evaluation.shift,
validation_score_posterior, the same with latents that have seen the true frames, and held_out_score, as
validation_score on the takes held out of training, in dB; clips_per_s; data_share, the part of the time spent waiting
for batches; skipped_steps, whose gradient was not finite.
"""

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from src.base.console import UserError
from src.base.files import write_atomically


class History:
    """The log of one run, written by one process."""

    def __init__(self, folder: Path, step: int) -> None:
        """Opens the log; rows after `step` are dropped: a stopped run takes those steps again."""
        self.path = folder / "log.jsonl"
        rows = [row for row in read_history(folder) if row["step"] <= step]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, row: dict[str, Any]) -> None:
        """Appends the row of an epoch."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self.tensorboard.add_scalar(name, value, row["step"])
        self.tensorboard.flush()

    def close(self) -> None:
        """Closes TensorBoard's file."""
        self.tensorboard.close()


def score_to_choose_by(row: dict[str, float]) -> float:
    """Returns the score in dB of a validated epoch's row that best.pt and patience go by.

    Where takes are held out of training it is theirs, so that nothing is chosen on the take that is reported.
    """
    return row.get("held_out_score", row["validation_score"])


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of a run's log, oldest first; none where it has not trained yet; UserError if damaged."""
    path = folder / "log.jsonl"
    if not path.is_file():
        return []
    *lines, _cut_off = path.read_text(encoding="utf-8", errors="replace").split("\n")  # what a kill cut off, or nothing
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            raise UserError(f"{path} is damaged in line {number}; restore it, or delete that line") from None
    return rows


def epoch_line(row: dict[str, float], num_epochs: int) -> str:
    """Returns what is said when an epoch has ended."""
    text = f"epoch {row['epoch']:.0f}/{num_epochs}  loss {row['total']:.4f}  kl {row['kl']:.3g}"
    text += f"  {row['clips_per_s']:.0f} clips/s"
    if row["skipped_steps"]:
        text += f"  skipped steps: {row['skipped_steps']:.0f} (gradient not finite)"
    if "validation_score" in row:
        text += f"  validation {row['validation_score']:.2f} dB"
    if "held_out_score" in row:
        text += f"  held out {row['held_out_score']:.2f} dB"
    return text
