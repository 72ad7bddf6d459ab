"""configs/experiments/<grid>.toml -> one run for each arm and seed -> a comparison in reports/<grid>.md.

Child processes train and evaluate each run with the same commands that a user types, JOBS of them at a time. If a grid
is stopped, run the same command again: it skips finished runs, resumes stopped runs, and repeats failed runs. What a
finished run has measured is kept in reports/<grid>.jsonl, so it counts as done also where its folder is missing.
"""

import difflib
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from src.base.children import Start, Starter, Steps, run_side_by_side
from src.base.console import UserError, run_program, say
from src.base.devices import hardware, visible_gpus
from src.base.files import file_hash, write_atomically
from src.base.names import existing_toml
from src.base.ownership import owned
from src.base.reading import read_toml
from src.base.settings import Section, Seed
from src.commands import experiments_options
from src.config import Config, load_config
from src.intake.manifest import Manifest
from src.reporting.comparison import (
    Comparison,
    RunResult,
    coinciding,
    missing_result,
    result_of,
    spreads,
    write_comparison,
)
from src.reporting.kept import HARDWARE_FILE, KeptRun, fits, kept_of, read_kept, write_kept
from src.reporting.results import read_run
from src.training.precision import as_begun
from src.training.resolution import resolved
from src.training.saved_config import read_config, write_config

CONFIGS = Path("configs")
EXPERIMENTS = CONFIGS / "experiments"
DATA = Path("data")
RUNS = Path("runs")
REPORTS = Path("reports")
NOT_RUN = "not run yet"
Name = Annotated[str, Field(pattern="^[a-z0-9_]+$", max_length=60)]
Arms = Annotated[tuple[Name, ...], Field(strict=False, min_length=1, max_length=100)]
Failure = str | None  # the reason


class Grid(Section):
    """A grid of runs. Each arm is the base configuration with some settings replaced, trained once for each seed."""

    title: Annotated[str, Field(max_length=200)]
    base: Name  # the stem of a file in configs/
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1, max_length=1000)]
    set: str = ""  # overrides for all arms, written as in SET="..."
    arms: Annotated[dict[Name, str], Field(min_length=1)]  # overrides of each arm
    comparisons: Annotated[dict[Name, Arms], Field(min_length=1)]  # figure -> the arms in it

    @model_validator(mode="after")
    def _names_have_an_arm(self) -> "Grid":
        for name, arms in self.comparisons.items():
            if unknown := [arm for arm in arms if arm not in self.arms]:
                raise ValueError(f"comparisons.{name}: there is no arm {unknown[0]}; arms: {', '.join(self.arms)}")
        if repeated := [seed for seed, count in Counter(self.seeds).items() if count > 1]:
            raise ValueError(f"seeds: {repeated[0]} occurs twice; two runs with the same seed are identical")
        return self


KEYS = ", ".join(Grid.model_fields)


@dataclass(frozen=True)
class Job:
    """One run of a grid and its commands."""

    arm: str
    config: Config
    run: str
    fingerprint: str  # of its data set
    train: tuple[str, ...]  # arguments of the Python interpreter
    evaluate: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return RUNS / self.run


def load_grid(path: Path) -> Grid:
    """Returns the content of a grid file. Raises UserError if it is missing, and for the first mistake in it."""
    try:
        return Grid.model_validate(read_toml(existing_toml(path, "GRID")))
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, Grid.model_fields, n=1)
        return f"unknown key {key}; did you mean {close[0]}?" if close else f"unknown key {key}; known: {KEYS}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    return f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}"


def jobs_of(grid: Grid, name: str) -> list[Job]:
    """Returns all runs of a grid, seed by seed, so that every arm has a score early.

    Raises UserError for a wrong setting, for two runs with the same settings, and for a missing data set.
    """
    base = CONFIGS / f"{grid.base}.toml"
    jobs: list[Job] = []
    manifests: dict[str, Manifest] = {}  # by data set
    for seed in grid.seeds:
        for arm, words in grid.arms.items():
            overrides = _joined(grid.set, words, f"seed={seed}")
            config = load_config(base, overrides)
            run = f"{name}-{arm}-s{seed}"
            if config.dataset not in manifests:
                manifests[config.dataset] = Manifest.load(DATA / config.dataset)
            manifest = manifests[config.dataset]
            config = resolved(config, manifest.facts)
            for same in (job for job in jobs if job.config == config):
                raise UserError(f"{same.run} and {run} have the same settings; each run must have different settings")
            train = ("-m", "src.trainer", str(base), "--set", overrides, "--name", run)
            jobs.append(Job(arm, config, run, manifest.fingerprint, train, ("-m", "src.tester", "evaluate", run)))
    return jobs


def _joined(*words: str) -> str:
    return " ".join(part for part in words if part)


class GridRun:
    """The runs of a grid on this machine: what is kept of the finished ones, and why others are not finished."""

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        """Reads the grid, and what is kept of its runs unless `anew` is set."""
        self.path = path
        self.grid = load_grid(path)
        self.jobs = jobs_of(self.grid, path.stem)
        self.kept_path = REPORTS / f"{path.stem}.jsonl"
        self.kept = {} if anew else read_kept(self.kept_path)
        self.failures: dict[str, str] = {}  # by run

    def make(self, start: Start, at_once: int = 1) -> Path:
        """Makes the missing runs, `at_once` at a time, and writes the report after each of them. Returns its file."""
        tasks = []
        for number, job in enumerate(self.jobs, start=1):
            label = f"[{number}/{len(self.jobs)}] {job.run}"
            if not self._is_done(job, label):
                tasks.append((job.run, self._make_run(job, label)))
        for run, failure in run_side_by_side(tasks, start, at_once):
            if failure:
                self.failures[run] = failure
                say(f"{run}: {failure}")
            self.write_report()  # after every run, so that a stopped grid has its table
        return self.write_report()

    def _is_done(self, job: Job, label: str) -> bool:
        """Returns whether a run needs no work: it is finished in its folder, or has no folder and is kept."""
        if (job.folder / "config.json").is_file():
            try:
                with owned(job.folder):
                    if not is_done(job):
                        return False
                    self._keep(job)
            except UserError:  # somebody else uses it now; it is tried again later
                return False
            say(f"{label}: already done")
            return True
        if self._kept(job):
            say(f"{label}: already measured ({self.kept_path})")
            return True
        return False

    def _kept(self, job: Job) -> KeptRun | None:
        kept = self.kept.get(job.run)
        return kept if kept and fits(kept, job.config, job.fingerprint) else None

    def _keep(self, job: Job) -> None:
        now = kept_of(read_run(job.folder))
        if self.kept.get(job.run) != now:
            self.kept[job.run] = now
            write_kept(self.kept_path, self.kept)

    def _make_run(self, job: Job, label: str) -> Steps[Failure]:
        """Gives the commands that train and evaluate a run. Returns the reason of a failure, otherwise None."""
        say(f"{label}: training and evaluation")
        try:
            if code := (yield (sys.executable, *job.train)):
                return f"training ended with exit code {code}"
            with owned(job.folder):
                _restore_evaluation_settings(job)
                write_atomically(job.folder / HARDWARE_FILE, f"{hardware()}\n".encode())
            if code := (yield (sys.executable, *job.evaluate)):
                return f"evaluation ended with exit code {code}"
            if not is_done(job):
                return "ended without an error, but its files do not show a finished run"
            self._keep(job)
        except UserError as error:  # somebody else uses this run; the others go on
            return str(error)
        return None

    def write_report(self) -> Path:
        """Writes the report of the runs so far and returns the Markdown file."""
        good = {job: kept for job in self.jobs if job.run not in self.failures and (kept := self._kept(job))}
        runs = {
            arm: [kept.as_run(job.folder) for job, kept in good.items() if job.arm == arm] for arm in self.grid.arms
        }
        results = [self._result(job, good.get(job)) for job in self.jobs]
        comparison = Comparison(
            grid=self.path.stem,
            title=self.grid.title,
            command=f"make experiments GRID={self.path.stem}",
            base=f"configs/{self.grid.base}.toml",
            seeds=self.grid.seeds,
            settings={arm: _joined(self.grid.set, words) for arm, words in self.grid.arms.items()},
            comparisons=self.grid.comparisons,
            runs=tuple(results),
            arms={arm: spreads([result for result in results if result.arm == arm]) for arm in self.grid.arms},
            coinciding=coinciding(runs),
        )
        return write_comparison(comparison, runs, REPORTS)

    def _result(self, job: Job, kept: KeptRun | None) -> RunResult:
        command = shlex.join(["python", *job.train])
        if kept is None:
            failure = self.failures.get(job.run, NOT_RUN)
            return missing_result(job.run, arm=job.arm, seed=job.config.seed, command=command, failure=failure)
        run = kept.as_run(job.folder)
        return result_of(run, arm=job.arm, seed=job.config.seed, command=command, hardware=kept.hardware)


def is_done(job: Job) -> bool:
    """Returns whether the run is finished: same settings, fully trained, then evaluated, on the present data."""
    if not (job.folder / "config.json").is_file():
        return False
    run = read_run(job.folder)
    checkpoint = job.folder / f"{job.config.evaluation.checkpoint}.pt"
    if (
        run.config != as_begun(job.config, job.folder)
        or run.scores is None
        or not run.is_trained()
        or not checkpoint.is_file()
    ):
        return False
    made_of = (run.scores.checkpoint_sha256, run.scores.config_sha256, run.scores.dataset_fingerprint)
    return made_of == (file_hash(checkpoint), file_hash(job.folder / "config.json"), job.fingerprint)


def _restore_evaluation_settings(job: Job) -> None:
    """Restores the evaluation settings of the run's arm, which `make evaluate SET=...` can have changed."""
    if not (job.folder / "config.json").is_file():
        return
    trained = read_config(job.folder)
    if trained.evaluation != job.config.evaluation:
        write_config(job.folder, trained.model_copy(update={"evaluation": job.config.evaluation}))


def main() -> None:
    """The command line."""
    arguments = experiments_options()
    with owned(REPORTS / arguments.grid.stem):
        grid = GridRun(arguments.grid, anew=arguments.anew)
        report = grid.make(Starter(arguments.jobs, visible_gpus()), arguments.jobs)
    say(f"{report}: table, protocol and figures")
    if grid.failures:
        reasons = "; ".join(f"{run}: {failure}" for run, failure in grid.failures.items())
        raise UserError(f"{len(grid.failures)} runs failed; the same command tries them again: {reasons}")


if __name__ == "__main__":
    run_program(main)
