"""configs/experiments/<grid>.toml -> one run for each arm and seed -> a comparison in reports/<grid>.md.

Child processes train and evaluate each run with the same commands that a user types. If a grid is stopped, run the same
command again: it skips finished runs, resumes a stopped run, and repeats failed runs.
"""

import difflib
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from src.base.command_line import Parser
from src.base.console import UserError, run_main, say
from src.base.devices import hardware
from src.base.files import file_hash, write_atomically
from src.base.names import nearest, toml_file
from src.base.ownership import owned
from src.base.processes import Stopped, environment_of_child, handled, leave_terminal
from src.base.reading import read_toml
from src.base.settings import Section, Seed
from src.config import Config, load_config
from src.intake.facts import DataFacts
from src.intake.manifest import Manifest
from src.reporting.comparison import HARDWARE_FILE, Comparison, result_of, spreads, write_comparison
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
RunChild = Callable[[Sequence[str]], int]  # command -> exit code


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
    train: tuple[str, ...]  # arguments of the Python interpreter
    evaluate: tuple[str, ...]


def load_grid(path: Path) -> Grid:
    """Returns the content of a grid file. Raises UserError if it is missing, and for the first mistake in it."""
    if not path.is_file():
        known = sorted(found.stem for found in EXPERIMENTS.glob("*.toml"))
        raise UserError(f"{path} does not exist; {nearest(path.stem, known, 'GRID')}")
    try:
        return Grid.model_validate(read_toml(path))
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
    facts: dict[str, DataFacts] = {}  # by data set
    for seed in grid.seeds:
        for arm, words in grid.arms.items():
            overrides = _joined(grid.set, words, f"seed={seed}")
            config = load_config(base, overrides)
            run = f"{name}-{arm}-s{seed}"
            if config.dataset not in facts:
                facts[config.dataset] = Manifest.load(DATA / config.dataset).facts
            config = resolved(config, facts[config.dataset])
            for same in (job for job in jobs if job.config == config):
                raise UserError(f"{same.run} and {run} have the same settings; each run must have different settings")
            train = ("-m", "src.trainer", str(base), "--set", overrides, "--name", run)
            jobs.append(Job(arm, config, run, train, ("-m", "src.tester", "evaluate", run)))
    return jobs


def _joined(*words: str) -> str:
    return " ".join(part for part in words if part)


def run_grid(path: Path, run_child: RunChild) -> tuple[Path, dict[str, str]]:
    """Makes the missing runs of a grid and writes the report after each run.

    Returns the Markdown file and {failed run: reason}.
    """
    grid = load_grid(path)
    jobs = jobs_of(grid, path.stem)
    failures: dict[str, str] = {}
    for number, job in enumerate(jobs, start=1):
        label = f"[{number}/{len(jobs)}] {job.run}"
        done = False
        try:
            with owned(RUNS / job.run):
                done = is_done(job)
            say(f"{label}: {'already done' if done else 'training and evaluation'}")
            failure = None if done else _make_run(job, run_child)
        except UserError as error:  # somebody else uses this run; the others go on
            failure = str(error)
        if failure:
            failures[job.run] = failure
            say(f"{label}: {failure}")
        if not done or number == len(jobs):  # after every run, so that a stopped grid has its table
            waiting = {later.run: NOT_RUN for later in jobs[number:] if not is_done(later)}
            report = write_report(grid, path, jobs, failures | waiting)
    return report, failures


def write_report(grid: Grid, path: Path, jobs: Sequence[Job], failures: Mapping[str, str]) -> Path:
    """Writes the report of a grid and returns the Markdown file. `failures` names every run that is not finished."""
    runs = {job.run: read_run(RUNS / job.run) for job in jobs}
    results = [
        result_of(
            runs[job.run],
            arm=job.arm,
            seed=job.config.seed,
            command=shlex.join(["python", *job.train]),
            failure=failures.get(job.run),
        )
        for job in jobs
    ]
    comparison = Comparison(
        grid=path.stem,
        title=grid.title,
        command=f"make experiments GRID={path}",
        base=f"configs/{grid.base}.toml",
        seeds=grid.seeds,
        settings={arm: _joined(grid.set, words) for arm, words in grid.arms.items()},
        comparisons=grid.comparisons,
        runs=tuple(results),
        arms={arm: spreads([result for result in results if result.arm == arm]) for arm in grid.arms},
    )
    good = {arm: [runs[job.run] for job in jobs if job.arm == arm and job.run not in failures] for arm in grid.arms}
    return write_comparison(comparison, good, REPORTS)


def is_done(job: Job) -> bool:
    """Returns whether the run is finished: same settings, fully trained, then evaluated, on the present data."""
    folder = RUNS / job.run
    if not (folder / "config.json").is_file():
        return False
    run = read_run(folder)
    checkpoint = folder / f"{job.config.evaluation.checkpoint}.pt"
    if (
        run.config != as_begun(job.config, folder)
        or run.scores is None
        or not run.is_trained()
        or not checkpoint.is_file()
    ):
        return False
    data = Manifest.load(DATA / job.config.dataset).fingerprint
    made_of = (run.scores.checkpoint_sha256, run.scores.config_sha256, run.scores.dataset_fingerprint)
    return made_of == (file_hash(checkpoint), file_hash(folder / "config.json"), data)


def _make_run(job: Job, run_child: RunChild) -> str | None:
    """Trains and evaluates a run. Returns the reason of a failure, otherwise None."""
    if code := run_child((sys.executable, *job.train)):
        return f"training ended with exit code {code}"
    with owned(RUNS / job.run):
        _restore_evaluation_settings(job)
        write_atomically(RUNS / job.run / HARDWARE_FILE, f"{hardware()}\n".encode())
    if code := run_child((sys.executable, *job.evaluate)):
        return f"evaluation ended with exit code {code}"
    return None if is_done(job) else "ended without an error, but its files do not show a finished run"


def _restore_evaluation_settings(job: Job) -> None:
    """Restores the evaluation settings of the run's arm, which `make evaluate SET=...` can have changed."""
    folder = RUNS / job.run
    if not (folder / "config.json").is_file():
        return
    trained = read_config(folder)
    if trained.evaluation != job.config.evaluation:
        write_config(folder, trained.model_copy(update={"evaluation": job.config.evaluation}))


def run_child(command: Sequence[str]) -> int:
    """Runs a child process to its end and returns its exit code. A stop signal stops the child and this command.

    The child has its own session, so only this process receives Ctrl-C. The first signal is passed on as SIGTERM, and
    the trainer saves before it ends. The second signal is passed on as SIGINT, which ends the trainer at once. If this
    process is killed, so is the child.
    """
    children: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        leave_terminal(number)
        for child in children:
            child.send_signal(signal.SIGINT if received else signal.SIGTERM)
        received.append(number)

    with handled(pass_on):
        children.append(subprocess.Popen(command, start_new_session=True, env=environment_of_child()))
        code = children[0].wait()
    if received:
        say("run the same command again to continue")
        raise Stopped(received[0])
    return code


def main() -> None:
    """The command line."""
    parser = Parser(prog="python -m src.experiments", description="Compare arms over several seeds.")
    parser.add_argument("grid", help="configs/experiments/<grid>.toml, or its name without folder and .toml")
    grid = toml_file(parser.parse_args().grid, EXPERIMENTS, "GRID")
    with owned(REPORTS / grid.stem):
        path, failures = run_grid(grid, run_child)
    say(f"{path}: table, protocol and figures")
    if failures:
        reasons = "; ".join(f"{run}: {failure}" for run, failure in failures.items())
        raise UserError(f"{len(failures)} runs failed; the same command tries them again: {reasons}")


if __name__ == "__main__":
    run_main(main)
