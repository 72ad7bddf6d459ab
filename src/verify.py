"""Checks everything that is kept against its hashes: data sets, runs, submissions, reports. The `make verify` command.

    python -m src.verify                       everything
    python -m src.verify --dataset dance       one data set
    python -m src.verify --run dance           one run, and its csv

One line for each thing: ok, out of date, or DAMAGED with what helps. Exit code 2 if something is damaged.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from src.base.console import UserError, run_program, say
from src.base.files import file_hash
from src.base.system_errors import explained
from src.commands import verify_options
from src.competition.ledger import Ledger
from src.intake.arrays import check_contents
from src.intake.manifest import Manifest
from src.reporting.comparison import read_comparison
from src.reporting.kept import read_kept
from src.reporting.results import Run, read_run
from src.submission import Provenance
from src.training.checkpoint import load_checkpoint

DATA, RUNS, SUBMISSIONS, REPORTS = Path("data"), Path("runs"), Path("submissions"), Path("reports")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Finding:
    """What was found about one thing. `problem` is "" if it is as it was written."""

    thing: str
    problem: str = ""
    is_damaged: bool = False

    def __str__(self) -> str:
        state = "DAMAGED" if self.is_damaged else "out of date" if self.problem else "ok"
        return f"{state:12} {self.thing}{': ' if self.problem else ''}{self.problem}"


def verify(dataset: str | None = None, run: str | None = None) -> Iterator[Finding]:
    """Yields a finding for each thing that is kept; only for a data set or a run if one is named."""
    everything = dataset is None and run is None
    for folder in _folders(DATA, dataset, everything):
        yield _checked(folder, partial(_check_data, folder))
    for folder in _folders(RUNS, run, everything):
        yield from _of_run(folder)
    for path in sorted(SUBMISSIONS.glob("*.csv")):
        if everything or path.stem == run:
            yield _checked(path, partial(_check_csv, path))
    if everything:
        ledger = SUBMISSIONS / "ledger.jsonl"
        if ledger.exists():
            yield _checked(ledger, Ledger(ledger).submissions)
        for path in sorted(REPORTS.glob("*.json")):
            yield _checked(path, partial(read_comparison, path))
        for path in sorted(REPORTS.glob("*.jsonl")):
            yield _checked(path, partial(read_kept, path))


def _folders(parent: Path, name: str | None, everything: bool) -> list[Path]:
    if name is not None and not (parent / name).is_dir():
        raise UserError(f"{parent / name} does not exist")
    found = sorted(path for path in parent.glob("[!.]*") if path.is_dir() and path.name.isprintable())
    return [path for path in found if everything or path.name == name]


def _checked(path: Path, check: Callable[[], object]) -> Finding:
    """Returns what a check has found: an error means damage."""
    try:
        check()
    except (UserError, OSError) as error:
        return Finding(str(path), explained(error) or str(error), is_damaged=True)
    return Finding(str(path))


def _check_data(folder: Path) -> None:
    check_contents(folder, Manifest.load(folder).arrays)


def _check_csv(path: Path) -> None:
    if file_hash(path) != Provenance.load(path.with_suffix(".json")).csv_sha256:
        raise UserError(f"it is not the file that {path.stem}.json describes; make submission RUN={path.stem}")


def _of_run(folder: Path) -> Iterator[Finding]:
    """Yields a finding for each checkpoint of a run, and one for its other files."""
    found = []
    for path in (folder / "last.pt", folder / "best.pt"):
        if path.exists():
            found.append(path)
            yield _checked(path, partial(load_checkpoint, path, CPU))
    try:
        run = read_run(folder)
    except OSError as error:
        yield Finding(str(folder), explained(error) or str(error), is_damaged=True)
        return
    problems = _problems(run)
    if run.log.rows and not found:
        problems.append(f"it has trained for {run.log.num_epochs} epochs and has no checkpoint; restore last.pt")
    for note in problems:
        yield Finding(str(folder), note, is_damaged="changed since" not in note)
    if not problems:
        yield Finding(f"{folder}: settings, log and scores")


def _problems(run: Run) -> list[str]:
    """Returns the notes on a run, but not those on what is still to be done and on checkpoints."""
    others = ("not evaluated", "has not trained yet", "has not ended yet", ".pt ")
    return [note for note in run.notes if "changed since" in note or not any(words in note for words in others)]


def main() -> None:
    """The command line."""
    arguments = verify_options()
    dataset, run = arguments.dataset, arguments.run
    findings = []
    for finding in verify(dataset, run):
        say(str(finding))
        findings.append(finding)
    damaged = sum(finding.is_damaged for finding in findings)
    if damaged:
        raise UserError(f"{damaged} of {len(findings)} things are damaged; the lines above say what helps")
    say(f"{len(findings)} things, none of them damaged")


if __name__ == "__main__":
    run_program(main)
