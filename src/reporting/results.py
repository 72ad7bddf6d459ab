"""runs/*/ -> what each run has to show: settings, log, scores, and in words what is missing or damaged there."""

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from src.base.console import UserError
from src.base.files import file_hash
from src.config import Config
from src.intake.facts import SCORED_FRAMES
from src.maths.metrics import RolloutScores
from src.maths.schedules import schedule
from src.reporting.plots import Curve
from src.training.checkpoint import load_checkpoint, read_config
from src.training.log import score_to_choose_by

SCHEDULES = ("kl_weight", "teacher_forcing_ratio")
CURVE_POINTS = 2_000  # steps at which a schedule is drawn, at most about twice as many
LogRow = dict[str, float]  # the names that history.py explains, but for those without effect in the run's model


class Scores(BaseModel):
    """What a report needs of scores.json, as tester.py wrote it; PSNR in dB."""

    model_config = ConfigDict(frozen=True)

    rollout: RolloutScores
    posterior_minus_prior_db: float | None = None
    held_out_score: float | None = None
    drift_db: float | None = None
    score_prior_mean: float | None = None
    score_single: float | None = None
    score_mean_of_samples: float | None = None
    psnr_between_samples: float | None = None
    psnr_between_samples_vague: float | None = None
    psnr_prior_mean: float | None = None  # these five of pushing alone
    psnr_single: float | None = None
    psnr_best_of_n: float | None = None
    psnr_shuffled_actions: float | None = None
    psnr_shuffled_conditions: float | None = None
    num_given: int = 1
    baselines: dict[str, RolloutScores]
    protocol: str
    psnr_by_frame: list[float]  # of frame 0, which is given, to the last
    num_parameters: int
    checkpoint_sha256: str
    config_sha256: str
    dataset_fingerprint: str
    commit: str | None  # None outside a git checkout


@dataclass(frozen=True)
class Run:
    """One run as its files tell it; what could not be read is None or empty, and `notes` says why."""

    folder: Path
    config: Config | None
    log: list[LogRow]
    scores: Scores | None
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def num_epochs(self) -> int:
        """Epochs trained so far."""
        return int(self.log[-1]["epoch"]) if self.log else 0

    @property
    def clips_per_s(self) -> float | None:
        """Training speed, the median over epochs; the first ones warm up."""
        speeds = [row["clips_per_s"] for row in self.log if "clips_per_s" in row]
        return median(speeds) if speeds else None

    @property
    def kl_nats(self) -> float | None:
        """What the posterior says more than the prior, nats a frame, at the last validation."""
        return next((row["validation_kl"] for row in reversed(self.log) if "validation_kl" in row), None)

    @property
    def training_seconds(self) -> float | None:
        """Seconds of training, validation left out; None where the settings or the log are missing."""
        if self.config is None or not self.log or any(row.get("clips_per_s", 0) <= 0 for row in self.log):
            return None
        rows = [{"step": 0.0}, *self.log]
        num_steps = [after["step"] - before["step"] for before, after in pairwise(rows)]
        clips = [steps * self.config.training.batch_size for steps in num_steps]
        return sum(count / row["clips_per_s"] for count, row in zip(clips, self.log, strict=True))

    @property
    def schedules(self) -> dict[str, Curve]:
        """KL weight and teacher-forcing ratio of the steps taken, over epochs; the log has each epoch's last alone."""
        if self.config is None or not self.log:
            return {}
        num_steps, per_epoch = int(self.log[-1]["step"]), int(self.log[-1]["step"]) // self.num_epochs
        steps = range(0, num_steps, max(1, num_steps // CURVE_POINTS))
        values = [schedule(self.config, step, per_epoch) for step in steps]
        names = [name for name in SCHEDULES if name in self.log[-1]]
        return {name: ([step / per_epoch for step in steps], [value[name] for value in values]) for name in names}

    @property
    def best_baseline(self) -> tuple[str, float] | None:
        """Name and score of the best baseline, None where the run is not evaluated."""
        if self.scores is None or not self.scores.baselines:
            return None
        return max(((name, numbers.score) for name, numbers in self.scores.baselines.items()), key=lambda pair: pair[1])

    @property
    def system(self) -> str:
        """The system of its model; where its settings are lost, that of the scores."""
        if self.config is not None:
            return self.config.model.system
        return "pushing" if self.scores is not None and self.scores.psnr_prior_mean is not None else "dance"

    @property
    def num_scored(self) -> int:
        """How many of the predicted frames count for the score."""
        return SCORED_FRAMES[1] if self.system == "dance" else len(self.scores.psnr_by_frame) if self.scores else 0

    def is_trained(self) -> bool:
        """Whether training has come to its end: all epochs, or the end of its patience."""
        if self.config is None:
            return False
        settings = self.config.training
        reached = [score_to_choose_by(row) for row in self.log if "validation_score" in row]
        without_gain = len(reached) - 1 - reached.index(max(reached)) if reached else 0
        return self.num_epochs >= settings.num_epochs or 0 < settings.patience <= without_gain


def read_runs(folder: Path) -> list[Run]:
    """Returns all runs of a folder by name; hidden folders are none."""
    return [read_run(path) for path in sorted(folder.glob("[!.]*")) if path.is_dir()]


def read_run(folder: Path) -> Run:
    """Returns a run, with a note for each file that is missing, damaged or out of date."""
    notes: list[str] = []
    config = None
    if not (folder / "config.json").is_file():
        notes.append("config.json is missing: its settings are unknown")
    else:
        try:
            config = read_config(folder)
        except (UserError, UnicodeDecodeError) as error:
            notes.append(f"config.json cannot be read: {error}")
    log = _read_log(folder / "log.jsonl", notes)
    if config and config.teacher_forcing is None:
        log = [{name: value for name, value in row.items() if name != "teacher_forcing_ratio"} for row in log]
    scores = _read_scores(folder / "scores.json", notes)
    if config and scores and scores.config_sha256 != file_hash(folder / "config.json"):
        notes.append(f"its settings have changed since its evaluation; make evaluate RUN={folder.name}")
    run = Run(folder, config, log, scores, ())
    return replace(run, notes=(*notes, *_notes_on_checkpoint(run)))


def _notes_on_checkpoint(run: Run) -> list[str]:
    """Returns what is wrong with the checkpoint that was evaluated, or that a finished run must have."""
    if run.config is None or not (run.scores or run.is_trained()):
        return []
    path = run.folder / f"{run.config.evaluation.checkpoint}.pt"
    if path.is_file() and (run.scores is None or file_hash(path) == run.scores.checkpoint_sha256):
        return []
    try:
        load_checkpoint(path, torch.device("cpu"))
    except UserError as error:
        return [str(error)]
    return [f"{path.name} is not what was evaluated (trained on since, or damaged); make evaluate RUN={run.name}"]


def _read_log(path: Path, notes: list[str]) -> list[LogRow]:
    if not path.is_file():
        notes.append("log.jsonl is missing: it has not trained yet")
        return []
    rows: list[LogRow] = []
    parser = TypeAdapter(LogRow)
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = parser.validate_json(line)
        except ValidationError:
            row = {}
        if not {"epoch", "step"} <= row.keys():
            notes.append(f"log.jsonl is damaged in line {number}: the log is shown up to there")
            return rows
        rows.append(row)
    if not rows:
        notes.append("log.jsonl is empty: the first epoch has not ended yet")
    return rows


def _read_scores(path: Path, notes: list[str]) -> Scores | None:
    evaluate = f"make evaluate RUN={path.parent.name}"
    if not path.is_file():
        notes.append(f"not evaluated: scores.json is missing; {evaluate}")
        return None
    try:
        table = json.loads(path.read_bytes())
        return Scores.model_validate(table | {"rollout": table})
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"] if part != "rollout")
        notes.append(f"scores.json cannot be read ({place}: {error.errors()[0]['msg'].lower()}); {evaluate}")
    except (ValueError, TypeError):
        notes.append(f"scores.json is damaged; {evaluate}")
    return None
