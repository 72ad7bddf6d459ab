"""`dance.toml` from synthetic data of the competition's size to a csv, with a training of a fixed time."""

import time
from pathlib import Path

from src.config import load_config
from src.packing import pack_synthetic
from src.speed.clock import forget_peak, peak_gib
from src.speed.steps import Row
from src.tester import evaluate, submission
from src.trainer import train

TAKES, TAKE_LENGTH = 37, 633  # 23,421 training frames; the competition has 23,410
RUN = "gpu_check"


def whole_run(folder: Path, *, step_seconds: float, seconds: float, num_takes: int = TAKES) -> Row:
    """Packs, trains for about `seconds`, evaluates and writes a csv, in `folder`. Returns the seconds of each part."""
    row: Row = {"recipe": "dance", "training_frames": num_takes * TAKE_LENGTH}
    started = time.monotonic()

    def ended(part: str) -> None:
        nonlocal started
        row[f"{part}_s"], started = time.monotonic() - started, time.monotonic()

    pack_synthetic("synthetic", RUN, data_folder=folder, num_takes=num_takes, take_length=TAKE_LENGTH)
    ended("data")
    steps_per_epoch = num_takes * TAKE_LENGTH // 64
    num_epochs = max(1, int(seconds / (step_seconds * steps_per_epoch)))
    overrides = f"dataset={RUN} training.num_epochs={num_epochs} training.device=auto"
    forget_peak()
    run = folder / "runs" / RUN
    train(load_config(Path("configs/dance.toml"), overrides), run, data_folder=folder)
    ended("train")
    row |= {"steps": num_epochs * steps_per_epoch, "peak_gib": peak_gib()}
    scores = evaluate(RUN, data_folder=folder, runs_folder=run.parent)
    ended("evaluate")
    row["score_db"] = scores.score
    submission(RUN, data_folder=folder, runs_folder=run.parent, submissions_folder=folder / "submissions")
    ended("submission")
    return row
