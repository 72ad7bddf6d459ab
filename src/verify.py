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
from src.base.names import is_name
from src.base.system_errors import explained
from src.commands import verify_options
from src.competition.ledger import Ledger
from src.config import from_json
from src.intake.arrays import check_contents
from src.intake.manifest import Manifest
from src.reporting.clips import FOLDER as CLIPS
from src.reporting.clips import read_clips, read_sprite
from src.reporting.comparison import read_comparison
from src.reporting.kept import read_kept
from src.reporting.results import Run, read_run
from src.submission import Provenance
from src.training.checkpoint import check_settings, load_checkpoint
from src.training.log import FILE as LOG_FILE
from src.training.log import lacking_epochs

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
        return Finding(str(path), (explained(error) or str(error)).removeprefix(f"{path} "), is_damaged=True)
    return Finding(str(path))


def _check_data(folder: Path) -> None:
    check_contents(folder, Manifest.load(folder).arrays)


def _check_csv(path: Path) -> None:
    if not is_name(path.stem):
        raise UserError("its name is not that of a run, so no command reads it; rename it, or move it away")
    if file_hash(path) != Provenance.load(path.with_suffix(".json")).csv_sha256:
        mend = f"move it away; then make submission RUN={path.stem}"
        raise UserError(f"it is not the file that {path.stem}.json describes; {mend}")


def _of_run(folder: Path) -> Iterator[Finding]:
    """Yields a finding for each checkpoint of a run, one for its pictures, and one for its other files."""
    try:
        run = read_run(folder)
    except OSError as error:
        yield Finding(str(folder), explained(error) or str(error), is_damaged=True)
        return
    for path in (folder / "last.pt", folder / "best.pt"):
        if path.exists() or path.name in _needed(run):
            yield _checked(path, partial(_check_checkpoint, path, run))
    if (folder / CLIPS).exists() and run.scores:
        yield _checked(folder / CLIPS, partial(_check_clips, run))
    problems = _problems(run)
    for note in problems:
        yield Finding(str(folder), note, is_damaged="changed since" not in note)
    if not problems:
        yield Finding(f"{folder}: settings, log and scores")


def _needed(run: Run) -> set[str]:
    """Returns the checkpoints that a run must have, by its log."""
    validated = any("validation_score" in row for row in run.log.rows)
    return ({"last.pt"} if run.log.rows else set()) | ({"best.pt"} if validated else set())


def _check_checkpoint(path: Path, run: Run) -> None:
    """Raises UserError for a checkpoint that is damaged, of other settings, or ahead of the log."""
    state = load_checkpoint(path, CPU)
    if run.config is None or "config" not in state:
        return
    check_settings(state, run.config, path)
    _, num_steps = state["plan"][-1] if state.get("plan") else (0, 0)
    if num_steps and not run.log.damage:  # last.pt; its plan spans all epochs
        logged = state["step"] - bool(state.get("is_epoch_open"))
        planned = from_json(state["config"], str(path)).training.num_epochs
        if lacking := lacking_epochs(run.log.rows, logged * planned // num_steps):
            raise UserError(f"it is ahead of the log: {lacking}; restore {run.folder / LOG_FILE} from a copy")


def _check_clips(run: Run) -> None:
    """Raises UserError if a picture that the page shows is damaged, or missing."""
    assert run.scores is not None, "it is evaluated"
    try:
        for clip in read_clips(run.folder, run.scores.checkpoint_sha256):
            for layer in clip.layers:
                read_sprite(run.folder, layer)
    except UserError as error:
        raise UserError(f"{error}; make evaluate RUN={run.name} writes the pictures again") from None


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
        raise UserError(f"damaged: {damaged} of {len(findings)}; the lines above say what helps")
    say(f"{len(findings)} checked, none of them damaged")


if __name__ == "__main__":
    run_program(main)
