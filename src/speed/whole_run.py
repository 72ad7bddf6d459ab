"""A run of dancers from synthetic data to a csv, with a training of a fixed time."""

import time
from pathlib import Path

from src.base.systems import SYSTEMS
from src.config import load_config
from src.packing import pack_synthetic
from src.speed.clock import forget_peak, peak_gib
from src.speed.steps import Row
from src.tester import evaluate, submission
from src.trainer import train

FULL_SIZE = {"num_takes": 37, "take_length": 633}  # 23,421 training frames; the competition has 23,410
RUN = "gpu_check"


def whole_run(folder: Path, name: str, *, step_seconds: float, seconds: float, data: dict[str, int]) -> Row:
    """Packs, trains configs/<name>.toml for about `seconds`, evaluates and writes a csv, all in `folder`.

    step_seconds: time of a training step. data: the numbers that `write_dance` takes. Returns the seconds of each part.
    """
    row: Row = {"recipe": name}
    started = time.monotonic()

    def ended(part: str) -> None:
        nonlocal started
        row[f"{part}_s"], started = time.monotonic() - started, time.monotonic()

    manifest = pack_synthetic("synthetic", RUN, data_folder=folder, **data)
    ended("data")
    path = Path("configs") / f"{name}.toml"
    config = load_config(path, f"dataset={RUN}")
    num_clips, _ = SYSTEMS["dance"].part("cost").clips_of_an_epoch(config, manifest)
    steps_per_epoch = (config.training.clips_per_epoch or num_clips) // config.training.batch_size
    num_epochs = max(1, int(seconds / (step_seconds * steps_per_epoch)))
    forget_peak()
    run = folder / "runs" / RUN
    train(load_config(path, f"dataset={RUN} training.num_epochs={num_epochs}"), run, data_folder=folder)
    ended("train")
    row |= {"steps": num_epochs * steps_per_epoch, "peak_gib": peak_gib()}
    row["score_db"] = evaluate(RUN, data_folder=folder, runs_folder=run.parent).score
    ended("evaluate")
    submission(RUN, data_folder=folder, runs_folder=run.parent, submissions_folder=folder / "submissions")
    ended("submission")
    return row
