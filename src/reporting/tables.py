"""Runs and baselines as a table, with a meaning for each column and a protocol for each number; tables in Markdown."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from src.config import Config
from src.maths.metrics import RolloutScores
from src.reporting.results import Run, Scores

NOTHING = "-"
TEXT = {"run", "data set", "model", "best baseline (dB)", "commit", "protocol", "arm", "SET"}  # columns set to the left


class Column(NamedTuple):
    """A column of the table of runs: its heading, what it says, and its text for a run."""

    label: str
    meaning: str
    cell: Callable[[Run], str]


def decimal(value: float | None, places: int, sign: Literal["", "+"] = "") -> str:
    """Returns a number as people read it; a dash for none."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:{sign}.{places}f}".replace("inf", "∞")


def _rollout(name: str, places: int = 2, *, missing: str = NOTHING) -> Callable[[Run], str]:
    return lambda run: decimal(getattr(run.scores.rollout, name), places) if run.scores else missing


def _setting(read: Callable[[Config], object]) -> Callable[[Run], str]:
    return lambda run: str(read(run.config)) if run.config else NOTHING


def _epochs(run: Run) -> str:
    wanted = run.config.training.num_epochs if run.config else run.num_epochs
    return str(wanted) if run.num_epochs == wanted else f"{run.num_epochs} of {wanted}"


def _parameters(run: Run) -> str:
    return f"{run.scores.num_parameters / 1e6:.3f} M" if run.scores else NOTHING


def _score(name: str, sign: Literal["", "+"] = "") -> Callable[[Run], str]:
    return lambda run: decimal(getattr(run.scores, name), 2, sign) if run.scores else NOTHING


def _best_baseline(run: Run) -> str:
    return f"{run.best_baseline[0]}, {decimal(run.best_baseline[1], 2)}" if run.best_baseline else NOTHING


def _gain(run: Run) -> str:
    if run.scores is None or run.best_baseline is None:
        return NOTHING
    return decimal(run.scores.rollout.score - run.best_baseline[1], 2, "+")


ROLLOUT_COLUMNS = {  # the numbers that a baseline has, too
    "score": Column(
        "score (dB)",
        "dancers: mean over frames 1 to 600 of the PSNR per frame, as the competition computes it, in a free rollout "
        "of the validation take; pushing: mean PSNR per channel of the predicted frames of the test clips",
        _rollout("score", missing="not evaluated"),
    ),
    "mean_ssim": Column("SSIM", "structural similarity, mean over all predicted frames", _rollout("mean_ssim", 3)),
    "psnr_1_to_10": Column("PSNR 1-10", "mean PSNR of frames 1 to 10, in dB", _rollout("psnr_1_to_10")),
    "psnr_100": Column("PSNR 100", "PSNR of frame 100, in dB", _rollout("psnr_100")),
    "psnr_300": Column("PSNR 300", "PSNR of frame 300, in dB", _rollout("psnr_300")),
    "psnr_600": Column("PSNR 600", "PSNR of frame 600, in dB", _rollout("psnr_600")),
}
COLUMNS = (
    Column("run", "name of the run, or of a baseline, which needs no training", lambda run: run.name),
    Column("data set", "the folder below data/", _setting(lambda config: config.dataset)),
    Column("model", "model.name", _setting(lambda config: config.model.name)),
    Column("epochs", "epochs trained, of those asked for where they differ", _epochs),
    Column("parameters", "numbers that training adjusts, in millions", _parameters),
    *ROLLOUT_COLUMNS.values(),
    Column(
        "posterior minus prior (dB)",
        "score with latents that have seen the true frames, minus score; above 1 dB the latent leaks",
        _score("posterior_minus_prior_db", "+"),
    ),
    Column("held out (dB)", "score on the takes held out of training", _score("held_out_score")),
    Column(
        "drift (dB)",
        "what frames 500 to 600 lose against the same frames drawn straight after the given one",
        _score("drift_db", "+"),
    ),
    Column("prior's mean (dB)", "pushing: score with the mean of the prior as latent", _score("psnr_prior_mean")),
    Column("one sample (dB)", "pushing: score of one sample of the prior", _score("psnr_single")),
    Column(
        "best of n (dB)",
        "pushing: score of the best sample of each clip, chosen with the truth",
        _score("psnr_best_of_n"),
    ),
    Column("others' actions (dB)", "pushing: score with the actions of other clips", _score("psnr_shuffled_actions")),
    Column(
        "others' conditions (dB)",
        "pushing: score with the actions and positions of other clips",
        _score("psnr_shuffled_conditions"),
    ),
    Column("best baseline (dB)", "the baseline with the highest score on the same take", _best_baseline),
    Column("against it (dB)", "score minus that of the best baseline", _gain),
    Column("clips/s", "clips trained per second, the median over epochs", lambda run: decimal(run.clips_per_s, 0)),
    Column("seed", "of weights, batches and latents", _setting(lambda config: config.seed)),
    Column(
        "commit", "of the code that evaluated it", lambda run: (run.scores.commit if run.scores else None) or NOTHING
    ),
)
PROTOCOL = ("protocol", "how the numbers were made; those with different protocols cannot be compared")


class Row(NamedTuple):
    """A row of the table of runs; `run` is None for a baseline, the score of an unevaluated run is -infinity."""

    dataset: str
    score: float  # dB
    run: Run | None
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Runs and baselines, data set by data set, the best score first; each distinct protocol has a number from 1.

    A column in which no run has anything is left out, of `columns` and of the cells alike.
    """

    columns: tuple[tuple[str, str], ...]  # label and meaning
    rows: tuple[Row, ...]
    protocols: tuple[str, ...]

    @property
    def header(self) -> tuple[str, ...]:
        """The labels of the columns."""
        return tuple(label for label, _ in self.columns)


def table_of(runs: Sequence[Run]) -> Table:
    """Returns the table of runs with the baselines of their evaluations."""
    protocols: list[str] = []
    baselines: dict[tuple[str, ...], Row] = {}
    rows = []
    for run in runs:
        dataset, score, mark = COLUMNS[1].cell(run), -math.inf, NOTHING
        if run.scores:
            score, protocol = run.scores.rollout.score, protocol_of(run.scores)
            protocols += [protocol] if protocol not in protocols else []
            mark = f"[{protocols.index(protocol) + 1}]"
            for name, numbers in run.scores.baselines.items():
                row = Row(dataset, numbers.score, None, _baseline_cells(name, dataset, numbers, mark))
                baselines.setdefault((dataset, name, run.scores.dataset_fingerprint), row)
        rows.append(Row(dataset, score, run, (*(column.cell(run) for column in COLUMNS), mark)))
    rows = sorted([*rows, *baselines.values()], key=lambda row: (row.dataset == NOTHING, row.dataset, -row.score))
    columns = (*((column.label, column.meaning) for column in COLUMNS), PROTOCOL)
    told = [place for place in range(len(columns)) if any(row.cells[place] != NOTHING for row in rows)]
    rows = [row._replace(cells=tuple(row.cells[place] for place in told)) for row in rows]
    return Table(tuple(columns[place] for place in told), tuple(rows), tuple(protocols))


def protocol_of(scores: Scores) -> str:
    """Returns how an evaluation was made, and on which data."""
    return f"{scores.protocol}; data {scores.dataset_fingerprint[:12]}"


def _baseline_cells(name: str, dataset: str, numbers: RolloutScores, mark: str) -> tuple[str, ...]:
    values = {column.label: getattr(numbers, field) for field, column in ROLLOUT_COLUMNS.items()}
    known = {"run": name, "data set": dataset, "model": "baseline"}
    known |= {label: decimal(value, 3 if label == "SSIM" else 2) for label, value in values.items()}
    return (*(known.get(column.label, NOTHING) for column in COLUMNS), mark)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown; columns of TEXT are set to the left, all others, numbers, to the right."""
    lines = [header, ["---" if label in TEXT else "---:" for label in header], *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def markdown_runs(runs: Sequence[Run]) -> str:
    """Returns the table of runs in Markdown, with protocols and notes below it."""
    table = table_of(runs)
    text = markdown_table(table.header, [row.cells for row in table.rows])
    text += "".join(f"\n[{number}] {protocol}\n" for number, protocol in enumerate(table.protocols, start=1))
    return text + "".join(f"\n{run.name}: {note}\n" for run in runs for note in run.notes)
