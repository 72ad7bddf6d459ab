"""runs/*/ -> the settings, log and scores of each run, and notes on missing or damaged files."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from src.base.console import UserError
from src.base.files import file_hash
from src.base.system_errors import explained
from src.config import Config
from src.evaluation.scores import Scores, read_scores
from src.training.checkpoint import load_checkpoint
from src.training.log import FILE as LOG_FILE
from src.training.log import TrainingLog, lacking_epochs, read_log
from src.training.saved_config import read_config


@dataclass(frozen=True)
class Run:
    """The files of one run. A file that cannot be read gives None or no rows, and `notes` says why."""

    folder: Path
    config: Config | None
    log: TrainingLog
    scores: Scores | None
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def training_seconds(self) -> float | None:
        """Training time in seconds, without validation; None if the settings or the log are missing."""
        return self.log.training_seconds(self.config) if self.config else None

    @property
    def schedules(self) -> dict[str, tuple[list[float], list[float]]]:
        """{name: (epochs, values)} of the KL weight and the teacher-forcing ratio, for the steps taken so far."""
        return self.log.schedules(self.config) if self.config else {}

    @property
    def best_baseline(self) -> tuple[str, float] | None:
        """Name and score of the best baseline; None if the run is not evaluated."""
        if self.scores is None or not self.scores.baselines:
            return None
        return max(((name, numbers.score) for name, numbers in self.scores.baselines.items()), key=lambda pair: pair[1])

    @property
    def system(self) -> str | None:
        """The system of its model, from its settings or its scores; None if both are missing."""
        if self.config is not None:
            return self.config.model.system
        return self.scores.system if self.scores else None

    def is_trained(self) -> bool:
        """Whether training has ended: all epochs are trained, or the patience is used up."""
        return self.config is not None and self.log.is_finished(self.config)


def read_runs(folder: Path) -> list[Run]:
    """Returns all runs of a folder, sorted by name. Hidden folders and those of `strange_names` are no runs."""
    return [_run_in(path) for path in sorted(folder.glob("[!.]*")) if path.is_dir() and path.name.isprintable()]


def strange_names(folder: Path) -> list[str]:
    """Returns a line for each folder whose name cannot be printed, because it holds control characters or no text."""
    found = [path for path in sorted(folder.glob("[!.]*")) if path.is_dir() and not path.name.isprintable()]
    return [f"{str(path)!r} is left out, because its name cannot be printed; rename it" for path in found]


def _run_in(folder: Path) -> Run:
    """Returns a run. If the system refuses to read one of its files, it has nothing but a note."""
    try:
        return read_run(folder)
    except OSError as error:
        return Run(folder, None, TrainingLog([]), None, (explained(error) or str(error),))


def read_run(folder: Path) -> Run:
    """Returns a run. It has a note for each file that is missing, damaged or out of date."""
    notes: list[str] = []
    config = None
    if not (folder / "config.json").is_file():
        notes.append("config.json is missing: its settings are unknown")
    else:
        try:
            config = read_config(folder)
        except UserError as error:
            notes.append(f"config.json cannot be read: {error}")
    log = read_log(folder)
    if config and config.teacher_forcing is None:
        rows = [{name: value for name, value in row.items() if name != "teacher_forcing_ratio"} for row in log.rows]
        log = replace(log, rows=rows)
    notes += _notes_on_log(folder / LOG_FILE, log)
    if config and log.num_epochs > config.training.num_epochs:
        planned = config.training.num_epochs
        notes.append(f"{LOG_FILE} has {log.num_epochs} epochs, config.json {planned}: one of them is of another run")
    scores = None
    if not (folder / "scores.json").exists():
        notes.append(_why_without_scores(folder, config))
    else:
        try:
            scores = read_scores(folder / "scores.json")
        except UserError as error:
            notes.append(str(error))
    if config and scores and scores.config_sha256 != file_hash(folder / "config.json"):
        notes.append(f"the settings have changed since the evaluation; make evaluate RUN={folder.name}")
    run = Run(folder, config, log, scores, ())
    return replace(run, notes=(*notes, *_notes_on_checkpoint(run)))


def _why_without_scores(folder: Path, config: Config | None) -> str:
    """Returns why a run has no scores."""
    if config and config.training.final_of:
        recipe = config.training.final_of
        return f"not evaluated, because it was trained on the validation take as well; its score is that of {recipe}"
    return f"not evaluated: scores.json is missing; make evaluate RUN={folder.name}"


def _notes_on_log(path: Path, log: TrainingLog) -> list[str]:
    """Returns notes on a missing, damaged or empty log."""
    if not path.exists():
        return [f"{path.name} is missing: the run has not trained yet"]
    if log.damage:
        return [f"{log.damage}: only the lines before it are shown"]
    if lacking := lacking_epochs(log.rows, log.num_epochs):
        return [f"{lacking}; restore it from a copy"]
    return [] if log.rows else [f"{path.name} is empty: the first epoch has not ended yet"]


def _notes_on_checkpoint(run: Run) -> list[str]:
    """Returns a note if the evaluated checkpoint, or that of a finished run, is missing, damaged or has changed."""
    if run.config is None or not (run.scores or run.is_trained()):
        return []
    path = run.folder / f"{run.config.evaluation.checkpoint}.pt"
    if path.is_file() and (run.scores is None or file_hash(path) == run.scores.checkpoint_sha256):
        return []
    try:
        load_checkpoint(path, torch.device("cpu"))
    except UserError as error:
        return [str(error)]
    return [f"{path.name} has changed since its evaluation (new training, or damage); make evaluate RUN={run.name}"]
