"""The table of runs and baselines, with the meaning of each column and the protocol of each number; Markdown tables."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from src.config import Config
from src.evaluation.scores import NOTHING, RolloutScores, Scores, all_numbers, decimal, numbers_of
from src.reporting.results import Run

TEXT = {"run", "data set", "model", "best baseline (dB)", "commit", "protocol", "arm", "SET"}  # left-aligned columns


class Column(NamedTuple):
    """A column of the table of runs: its heading, its meaning, and its text for a run."""

    label: str
    meaning: str
    cell: Callable[[Run], str]


def _setting(read: Callable[[Config], object]) -> Callable[[Run], str]:
    return lambda run: str(read(run.config)) if run.config else NOTHING


def _epochs(run: Run) -> str:
    wanted = run.config.training.num_epochs if run.config else run.log.num_epochs
    trained = run.log.num_epochs
    return str(wanted) if trained == wanted else f"{trained} of {wanted}"


def _parameters(run: Run) -> str:
    return f"{run.scores.num_parameters / 1e6:.3f} M" if run.scores else NOTHING


def _best_baseline(run: Run) -> str:
    return f"{run.best_baseline[0]}, {decimal(run.best_baseline[1], 2)}" if run.best_baseline else NOTHING


def _gain(run: Run) -> str:
    if run.scores is None or run.best_baseline is None:
        return NOTHING
    return decimal(run.scores.score - run.best_baseline[1], 2, "+")


def _number(name: str) -> Callable[[Run], str]:
    missing = "not evaluated" if name == "score" else NOTHING
    return lambda run: NUMBERS[name].text(run.scores) if run.scores else missing


NUMBERS = all_numbers()
COLUMNS = (
    Column("run", "name of the run, or of a baseline, which needs no training", lambda run: run.name),
    Column("data set", "folder in data/", _setting(lambda config: config.dataset)),
    Column("model", "model.name", _setting(lambda config: config.model.name)),
    Column("epochs", "trained epochs, and the epochs in the settings if they differ", _epochs),
    Column("parameters", "number of trained weights, in millions", _parameters),
    *(Column(number.shown.label, number.meaning, _number(name)) for name, number in NUMBERS.items()),
    Column("best baseline (dB)", "the baseline with the highest score on the same data", _best_baseline),
    Column("over baseline (dB)", "score minus the score of the best baseline", _gain),
    Column("clips/s", "clips trained per second, the median over epochs", lambda run: decimal(run.log.clips_per_s, 0)),
    Column("seed", "seed of weights, batches and latents", _setting(lambda config: config.seed)),
    Column(
        "commit",
        "commit of the code that evaluated the run",
        lambda run: (run.scores.commit if run.scores else None) or NOTHING,
    ),
)
PROTOCOL = ("protocol", "how the numbers were computed; do not compare numbers of different protocols")


class RunRow(NamedTuple):
    """A row of the table of runs. `run` is None for a baseline. The score of a run without evaluation is -infinity."""

    dataset: str
    score: float  # dB
    run: Run | None
    cells: tuple[str, ...]


@dataclass(frozen=True)
class RunTable:
    """Runs and baselines, grouped by data set, the best score first. Protocols are numbered from 1.

    A column that is empty in all rows is left out.
    """

    columns: tuple[tuple[str, str], ...]  # label and meaning
    rows: tuple[RunRow, ...]
    protocols: tuple[str, ...]

    @property
    def header(self) -> tuple[str, ...]:
        """The labels of the columns."""
        return tuple(label for label, _ in self.columns)


def table_of(runs: Sequence[Run]) -> RunTable:
    """Returns the table of runs with the baselines of their evaluations."""
    protocols: list[str] = []
    baselines: dict[tuple[str, ...], RunRow] = {}
    rows = []
    for run in runs:
        dataset = COLUMNS[1].cell(run)
        score = -math.inf
        mark = NOTHING
        if run.scores:
            score = run.scores.score
            protocol = protocol_of(run.scores)
            protocols += [protocol] if protocol not in protocols else []
            mark = f"[{protocols.index(protocol) + 1}]"
            for name, numbers in run.scores.baselines.items():
                row = RunRow(dataset, numbers.score, None, _baseline_cells(name, dataset, numbers, mark))
                baselines.setdefault((dataset, name, run.scores.dataset_fingerprint), row)
        rows.append(RunRow(dataset, score, run, (*(column.cell(run) for column in COLUMNS), mark)))
    rows = sorted([*rows, *baselines.values()], key=lambda row: (row.dataset == NOTHING, row.dataset, -row.score))
    columns = (*((column.label, column.meaning) for column in COLUMNS), PROTOCOL)
    filled = [index for index in range(len(columns)) if any(row.cells[index] != NOTHING for row in rows)]
    rows = [row._replace(cells=tuple(row.cells[index] for index in filled)) for row in rows]
    return RunTable(tuple(columns[index] for index in filled), tuple(rows), tuple(protocols))


def protocol_of(scores: Scores) -> str:
    """Describes how an evaluation was made, and on which data."""
    return f"{scores.protocol}; data {scores.dataset_fingerprint[:12]}"


def _baseline_cells(name: str, dataset: str, scores: RolloutScores, mark: str) -> tuple[str, ...]:
    cells = {"run": name, "data set": dataset, "model": "baseline"}
    cells |= {number.shown.label: number.text(scores) for number in numbers_of(type(scores))}
    return (*(cells.get(column.label, NOTHING) for column in COLUMNS), mark)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown. Columns of TEXT are left-aligned; all others hold numbers and are right-aligned."""
    lines = [header, ["---" if label in TEXT else "---:" for label in header], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def markdown_runs(runs: Sequence[Run]) -> str:
    """Returns the table of runs in Markdown, with protocols and notes below it."""
    table = table_of(runs)
    text = markdown_table(table.header, [row.cells for row in table.rows])
    text += "".join(f"\n[{number}] {protocol}\n" for number, protocol in enumerate(table.protocols, start=1))
    return text + "".join(f"\n{run.name}: {note}\n" for run in runs for note in run.notes)
