"""configs/experiments/<grid>.toml -> a run for each arm and seed -> reports/<grid>.md: comparisons, resumable.

Child processes train and evaluate each run, by the commands a person would type. The same command goes on with a
stopped grid: finished runs are skipped, a stopped one is resumed, and failed ones are tried again.
"""

import argparse
import difflib
import shlex
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from src.base.console import UserError, run_main, say
from src.base.devices import hardware
from src.base.files import file_hash, write_atomically
from src.base.settings import NotNegative, Section
from src.config import Config, load_config
from src.intake.manifest import Manifest
from src.reporting.comparison import HARDWARE_FILE, Comparison, result_of, spreads, write_comparison
from src.reporting.results import read_run
from src.training.checkpoint import read_config, write_config
from src.training.precision import as_begun

CONFIGS, DATA, RUNS, REPORTS = (Path(name) for name in ("configs", "data", "runs", "reports"))
Name = Annotated[str, Field(pattern="^[a-z0-9_]+$")]
Arms = Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]
Launch = Callable[[Sequence[str]], int]


class Grid(Section):
    """A comparison: every arm is the base configuration with some settings replaced, trained once for each seed."""

    title: str
    base: Name  # the stem of a file in configs/
    seeds: Annotated[tuple[NotNegative, ...], Field(strict=False, min_length=1)]
    set: str = ""  # SET words for all arms
    arms: Annotated[dict[Name, str], Field(min_length=1)]  # SET words of each
    comparisons: Annotated[dict[Name, Arms], Field(min_length=1)]  # the arms that share a figure

    @model_validator(mode="after")
    def _names_have_an_arm(self) -> "Grid":
        for name, arms in self.comparisons.items():
            if unknown := [arm for arm in arms if arm not in self.arms]:
                raise ValueError(f"comparisons.{name}: there is no arm {unknown[0]}; arms: {', '.join(self.arms)}")
        if repeated := [seed for seed, count in Counter(self.seeds).items() if count > 1]:
            raise ValueError(f"seeds: {repeated[0]} occurs twice; a run is the same for the same seed")
        return self


KEYS = ", ".join(Grid.model_fields)


@dataclass(frozen=True)
class Job:
    """One run of a grid and the commands that make it."""

    arm: str
    config: Config
    run: str
    train: tuple[str, ...]  # arguments of the Python interpreter
    evaluate: tuple[str, ...]


def load_grid(path: Path) -> Grid:
    """Returns a grid file's content; UserError for a missing file and for the first thing that is wrong in it."""
    if not path.is_file():
        known = ", ".join(str(found) for found in sorted((CONFIGS / "experiments").glob("*.toml"))) or "none"
        raise UserError(f"{path} does not exist; GRID must be a grid file (there are: {known})")
    try:
        return Grid.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
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
    """Returns all runs of a grid, seed by seed, so that every arm has a number early; UserError for a bad setting."""
    base = CONFIGS / f"{grid.base}.toml"
    jobs: list[Job] = []
    for seed in grid.seeds:
        for arm, words in grid.arms.items():
            overrides = _joined(grid.set, words, f"seed={seed}")
            config, run = load_config(base, overrides), f"{name}-{arm}-s{seed}"
            for twin in (job for job in jobs if job.config == config):
                raise UserError(f"{twin.run} and {run} have the same settings; each run must have its own")
            train = ("-m", "src.trainer", str(base), "--set", overrides, "--name", run)
            jobs.append(Job(arm, config, run, train, ("-m", "src.tester", "evaluate", run)))
    for dataset in {job.config.dataset for job in jobs}:
        Manifest.load(DATA / dataset)
    return jobs


def _joined(*words: str) -> str:
    return " ".join(part for part in words if part)


def run_grid(path: Path, launch: Launch) -> tuple[Path, dict[str, str]]:
    """Makes what is missing of a grid and writes its report; returns the Markdown file and {run: what went wrong}."""
    grid = load_grid(path)
    jobs = jobs_of(grid, path.stem)
    failures: dict[str, str] = {}
    for number, job in enumerate(jobs, start=1):
        place = f"[{number}/{len(jobs)}] {job.run}"
        if is_done(job):
            say(f"{place}: done before")
            continue
        say(f"{place}: training and evaluation")
        if failure := _make(job, launch):
            failures[job.run] = failure
            say(f"{place}: {failure}")
    return report_on(grid, path, jobs, failures), failures


def report_on(grid: Grid, path: Path, jobs: Sequence[Job], failures: Mapping[str, str]) -> Path:
    """Writes the report of a grid whose runs are made, but for the failures; returns the Markdown file."""
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
    """Returns whether the run has these very settings, is trained to its end, and evaluated since, on today's data."""
    folder = RUNS / job.run
    if not (folder / "config.json").is_file():
        return False
    run, checkpoint = read_run(folder), folder / f"{job.config.evaluation.checkpoint}.pt"
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


def _make(job: Job, launch: Launch) -> str | None:
    """Trains and evaluates a run; returns what went wrong."""
    if code := launch((sys.executable, *job.train)):
        return f"training ended with exit code {code}"
    _settle_evaluation(job)
    write_atomically(RUNS / job.run / HARDWARE_FILE, f"{hardware()}\n".encode())
    if code := launch((sys.executable, *job.evaluate)):
        return f"evaluation ended with exit code {code}"
    return None if is_done(job) else "ended without an error, but its files do not show a finished run"


def _settle_evaluation(job: Job) -> None:
    """Gives the run the evaluation settings of its arm, where `make evaluate SET=...` has left others."""
    folder = RUNS / job.run
    if not (folder / "config.json").is_file():
        return
    trained = read_config(folder)
    if trained.evaluation != job.config.evaluation:
        write_config(folder, trained.model_copy(update={"evaluation": job.config.evaluation}))


def launch(command: Sequence[str]) -> int:
    """Runs a child to its end and returns its exit code. A stop signal is passed on and ends this command, too.

    The child has a session of its own: a stop reaches it once, through us, and the trainer saves before it ends; a
    second one ends it at once.
    """
    children: list[subprocess.Popen[bytes]] = []
    stopped = False

    def pass_on(number: int, frame: object) -> None:
        nonlocal stopped
        for child in children:
            child.send_signal(signal.SIGINT if stopped else signal.SIGTERM)
        stopped = True

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        children.append(subprocess.Popen(command, start_new_session=True))
        code = children[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped:
        say("the same command goes on from here")
        raise KeyboardInterrupt
    return code


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m src.experiments", description="A comparison over arms and seeds.")
    parser.add_argument("grid", type=Path, help="configs/experiments/<grid>.toml")
    path, failures = run_grid(parser.parse_args().grid, launch)
    say(f"{path}: table, protocol and figures")
    if failures:
        reasons = "; ".join(f"{run}: {failure}" for run, failure in failures.items())
        raise UserError(f"{len(failures)} runs failed, the same command tries them again: {reasons}")


if __name__ == "__main__":
    run_main(main)
