"""reports/<grid>.jsonl: what the finished runs of a grid have measured, one line each.

The report is made from these lines. So it outlives the runs' folders, and a grid goes on where another machine stopped.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, SerializeAsAny, field_validator

from src.base.console import UserError
from src.base.files import write_atomically
from src.base.reading import MAX_TEXT_BYTES, Unreadable, parse_sealed, read_bytes, read_text, sealed_line
from src.config import Config
from src.evaluation.scores import Scores, schema_named_in
from src.reporting.results import Run
from src.training.log import LogRow, TrainingLog
from src.training.precision import with_decided

HARDWARE_FILE = "hardware.txt"  # in a run's folder: what it was trained on


class KeptRun(BaseModel):
    """A finished run without its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    run: str
    hardware: str | None = None
    config: Config
    log: tuple[LogRow, ...]
    scores: SerializeAsAny[Scores]

    @field_validator("scores", mode="before")
    @classmethod
    def _of_its_system(cls, table: object) -> object:
        return schema_named_in(table, "scores").model_validate(table) if isinstance(table, dict) else table

    def as_run(self, folder: Path) -> Run:
        """Returns the run as it is read from its folder."""
        return Run(folder, self.config, TrainingLog(list(self.log)), self.scores, ())


def hardware_of(run: Run) -> str | None:
    """Returns what a run was trained on, if its folder says so."""
    path = run.folder / HARDWARE_FILE
    return read_text(path).strip() if path.is_file() else None


def kept_of(run: Run) -> KeptRun:
    """Returns what is kept of a finished run."""
    assert run.config is not None and run.scores is not None, "it is finished"
    return KeptRun(
        run=run.name,
        hardware=hardware_of(run),
        config=run.config,
        log=tuple(run.log.rows),
        scores=run.scores,
    )


def fits(kept: KeptRun, config: Config, fingerprint: str) -> bool:
    """Returns whether a kept run has these settings and this data. "auto" fits the precision that it has become."""
    if config.training.precision == "auto":
        config = with_decided(config, kept.config.training.precision)
    return kept.config == config and kept.scores.dataset_fingerprint == fingerprint


def read_kept(path: Path) -> dict[str, KeptRun]:
    """Returns {run: what is kept of it}; UserError for a damaged line."""
    if not path.is_file():
        return {}
    lines = read_bytes(path, MAX_TEXT_BYTES).splitlines()
    try:
        found = [parse_sealed(line, KeptRun, f"{path} line {number}") for number, line in enumerate(lines, start=1)]
    except Unreadable as error:
        raise UserError(f"{error}; restore the file, or delete that line: its run is then trained again") from None
    return {kept.run: kept for kept in found}


def write_kept(path: Path, kept: dict[str, KeptRun]) -> None:
    """Writes the file, sorted by run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, b"".join(sealed_line(kept[run], with_none=True) for run in sorted(kept)))
