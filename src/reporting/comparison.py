"""The runs of a grid -> reports/<grid>.md, reports/<grid>.json and figures: mean and spread over seeds for each arm."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from src.base.console import UserError
from src.base.files import write_atomically
from src.base.reading import MAX_TEXT_BYTES, Unreadable, parse_value, read_bytes, read_json, sealed_json
from src.base.settings import NotNegative
from src.evaluation.scores import NOTHING, decimal
from src.reporting.plots import Band, plot_bands
from src.reporting.results import Run
from src.reporting.tables import NUMBERS, markdown_table, protocol_of
from src.training.log import SCHEDULES

SAME_DB = 0.01  # curves of PSNR by frame that differ by less coincide
LOSSES = ("total", "reconstruction", "kl")


class ComparisonPart(BaseModel):
    """A frozen part of reports/<grid>.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def _with_present_names(numbers: Any) -> Any:
    """Returns the numbers of a report under their present names.

    If two former names became one, the value that is not None is kept.
    """
    if not isinstance(numbers, dict):
        return numbers
    former = {FORMER_NAMES[name]: number for name, number in numbers.items() if name in FORMER_NAMES}
    present = {name: number for name, number in numbers.items() if name not in FORMER_NAMES}
    return present | {name: number for name, number in former.items() if name not in present or _is_known(number)}


def _is_known(number: Any) -> bool:
    return number["mean"] is not None if isinstance(number, dict) else number is not None


class Spread(ComparisonPart):
    """Mean and sample standard deviation of `count` values. None if there are too few values."""

    mean: float | None
    deviation: float | None
    count: NotNegative


class RunResult(ComparisonPart):
    """One run of a grid: its command, commit and hardware, and its numbers or the reason of its failure."""

    arm: str
    seed: int
    run: str
    command: str
    failure: str | None
    commit: str | None
    hardware: str | None
    protocol: str | None
    baselines: dict[str, float]  # score in dB
    values: Annotated[dict[str, float | None], BeforeValidator(_with_present_names)]  # by the names of MEASURES


class Comparison(ComparisonPart):
    """The content of reports/<grid>.json. `settings` are the overrides of each arm, written as in SET."""

    grid: str
    title: str
    command: str
    base: str
    seeds: tuple[int, ...]
    settings: dict[str, str]
    comparisons: dict[str, tuple[str, ...]]
    runs: tuple[RunResult, ...]
    arms: dict[str, Annotated[dict[str, Spread], BeforeValidator(_with_present_names)]]
    coinciding: dict[str, str] = {}  # arm -> an earlier arm with the same curves

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "Comparison":
        for name, arms in {**self.comparisons, "runs": [result.arm for result in self.runs]}.items():
            if unknown := [arm for arm in arms if arm not in self.arms]:
                raise ValueError(f"{name}: there is no arm {unknown[0]}")
        if lacking := [arm for arm, measured in self.arms.items() if "score" not in measured]:
            raise ValueError(f"the arm {lacking[0]} has no score")
        return self


class Measure(NamedTuple):
    """A number that is compared between runs: its column heading, its decimal places, and how to read it from a run."""

    label: str
    places: int
    value: Callable[[Run], float | None]


def _of_scores(name: str) -> Callable[[Run], float | None]:
    return lambda run: getattr(run.scores, name, None)


MEASURES = {
    **{name: Measure(number.shown.label, number.shown.places, _of_scores(name)) for name, number in NUMBERS.items()},
    "kl_nats": Measure("KL (nats a frame)", 1, lambda run: run.log.kl_nats),
    "training_seconds": Measure("training (s)", 0, lambda run: run.training_seconds),
}
FORMER_NAMES = {  # name in reports of earlier versions -> present name; of robot pushing
    "psnr_prior_mean": "score_prior_mean",
    "psnr_single": "score_single",
    "psnr_best_of_n": "score_best_of_n",
    "psnr_shuffled_actions": "score_shuffled_actions",
    "psnr_shuffled_conditions": "score_shuffled_conditions",
}


def result_of(run: Run, *, arm: str, seed: int, command: str, hardware: str | None) -> RunResult:
    """Returns the result of a finished run of the grid. `hardware` is what it was trained on."""
    assert run.scores is not None, "it is evaluated"
    return RunResult(
        arm=arm,
        seed=seed,
        run=run.name,
        command=command,
        failure=None,
        commit=run.scores.commit,
        hardware=hardware,
        protocol=protocol_of(run.scores),
        baselines={name: numbers.score for name, numbers in run.scores.baselines.items()},
        values={name: measure.value(run) for name, measure in MEASURES.items()},
    )


def missing_result(name: str, *, arm: str, seed: int, command: str, failure: str) -> RunResult:
    """Returns the result of a run that failed or has not been run: it has no numbers."""
    return RunResult(
        arm=arm,
        seed=seed,
        run=name,
        command=command,
        failure=failure,
        commit=None,
        hardware=None,
        protocol=None,
        baselines={},
        values={},
    )


def spread(values: Sequence[float | None]) -> Spread:
    """Returns mean and sample standard deviation of the values that are not None."""
    known = np.array([value for value in values if value is not None])
    with np.errstate(invalid="ignore"):  # a perfect prediction has an infinite PSNR
        deviation = known.std(ddof=1).item() if len(known) > 1 else None
    return Spread(mean=known.mean().item() if len(known) else None, deviation=deviation, count=len(known))


def spreads(results: Sequence[RunResult]) -> dict[str, Spread]:
    """Returns the spread of each measure over the runs of an arm."""
    return {name: spread([result.values.get(name) for result in results]) for name in MEASURES}


def write_comparison(comparison: Comparison, runs: Mapping[str, Sequence[Run]], folder: Path) -> Path:
    """Writes figures, JSON and Markdown into the reports folder and returns the Markdown file.

    `runs` are the successful runs of each arm. The order of the arms gives their colours.
    """
    figures = folder / comparison.grid
    figures.mkdir(parents=True, exist_ok=True)
    for name, arms in comparison.comparisons.items():
        chosen = {arm: seeds if arm in arms else () for arm, seeds in runs.items()}
        if any(chosen.values()):
            plot_bands(_formats(figures / f"{name}_curves"), _curves(chosen), xlabel="epoch")
            plot_bands(_formats(figures / f"{name}_psnr_by_frame"), _psnr_by_frame(chosen), xlabel="frame")
    write_atomically(folder / f"{comparison.grid}.json", sealed_json(comparison))
    path = folder / f"{comparison.grid}.md"
    write_atomically(path, to_markdown(comparison).encode())
    return path


def _formats(path: Path) -> list[Path]:
    return [path.with_suffix(suffix) for suffix in (".png", ".svg")]


def coinciding(runs: Mapping[str, Sequence[Run]]) -> dict[str, str]:
    """Returns {arm: an earlier arm} for arms whose curves of PSNR by frame cannot be told apart, seed by seed."""
    found: dict[str, str] = {}
    apart: dict[str, np.ndarray] = {}
    for arm, seeds in runs.items():
        curves = np.array([run.scores.psnr_by_frame[run.scores.num_given :] for run in seeds if run.scores])
        if not curves.size:
            continue
        for other, known in apart.items():
            if known.shape == curves.shape and np.allclose(known, curves, rtol=0, atol=SAME_DB):
                found[arm] = other
                break
        else:
            apart[arm] = curves
    return found


def read_comparison(path: Path) -> Comparison | None:
    """Returns the comparison in a JSON file of `write_comparison`, or None for a file of another command.

    Raises UserError if the file is damaged.
    """
    try:
        table = parse_value(read_bytes(path, MAX_TEXT_BYTES), str(path))
        return read_json(path, Comparison) if isinstance(table, dict) and "comparisons" in table else None
    except Unreadable as error:
        raise UserError(f"{error}; it is damaged or from another version; `make experiments` writes it again") from None


def table_of_arms(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of the table: for each arm, mean and sample standard deviation of each measure."""
    known = {
        name: measure
        for name, measure in MEASURES.items()
        if any(measured[name].count for measured in comparison.arms.values() if name in measured)
    }
    header = ["arm", "seeds", *(measure.label for measure in known.values())]
    rows = []
    for arm, measured in comparison.arms.items():
        num_runs = sum(result.arm == arm for result in comparison.runs)
        cells = [_cell(measured.get(name), measure.places, num_runs) for name, measure in known.items()]
        rows.append([arm, f"{measured['score'].count} of {num_runs}", *cells])
    return header, rows


def _cell(measured: Spread | None, places: int, num_runs: int) -> str:
    if measured is None or measured.mean is None:
        return NOTHING
    mean = decimal(measured.mean, places)
    return mean if num_runs == 1 else f"{mean} ± {decimal(measured.deviation, places)}"


def origins(comparison: Comparison) -> list[str]:
    """Returns the origin of the numbers: command, seeds, commits, hardware, protocol, baselines and failed runs."""
    good = [result for result in comparison.runs if not result.failure]
    baselines = {f"{name} {decimal(score, 2)}" for result in good for name, score in result.baselines.items()}
    seeds = ", ".join(map(str, comparison.seeds))
    over = "Mean ± sample standard deviation over seeds" if len(comparison.seeds) > 1 else "One seed, so no spread:"
    lines = [
        f"{over} {seeds}. Training time is without validation.",
        f"Command: {comparison.command}; base {comparison.base}.",
        f"Commit: {_distinct([result.commit for result in good])}.",
        f"Hardware: {_distinct([result.hardware for result in good])}.",
        f"Protocol: {_distinct([result.protocol for result in good])}.",
        f"Baselines on the same take, score in dB: {', '.join(sorted(baselines)) or NOTHING}.",
    ]
    lines += [
        f"{arm} coincides with {other}: PSNR by frame differs by less than {SAME_DB} dB, seed by seed."
        for arm, other in comparison.coinciding.items()
    ]
    return lines + [f"Missing: {result.run}: {result.failure}." for result in comparison.runs if result.failure]


def _distinct(values: Sequence[str | None]) -> str:
    return " | ".join(dict.fromkeys(value or "not known" for value in values)) or NOTHING


def to_markdown(comparison: Comparison) -> str:
    """Returns the report of a grid as Markdown."""
    table = markdown_table(*table_of_arms(comparison))
    facts = "\n".join(f"* {line}" for line in origins(comparison))
    settings = markdown_table(
        ["arm", "SET"], [[arm, f"`{words}`" if words else NOTHING] for arm, words in comparison.settings.items()]
    )
    commands = "\n".join(result.command for result in comparison.runs)
    text = f"# {comparison.title}\n\n{table}\n{facts}\n\n{settings}\n```\n{commands}\n```\n"
    for title, paths in figure_paths(comparison).items():
        text += f"\n## {title}\n\n" + "\n".join(f"![{title}: {path}]({path})" for path in paths) + "\n"
    return text + "\nTo see the rollouts of each run, run `make report` and open reports/index.html.\n"


def figure_paths(comparison: Comparison) -> dict[str, list[str]]:
    """Returns {comparison: paths of its figures} for each comparison with a run, relative to the reports folder."""
    present = {arm for arm, measured in comparison.arms.items() if measured["score"].count}
    return {
        name.replace("_", " "): [f"{comparison.grid}/{name}_{kind}.png" for kind in ("curves", "psnr_by_frame")]
        for name, arms in comparison.comparisons.items()
        if present & set(arms)
    }


def _curves(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[Band]]:
    panels = {}
    for name in LOSSES:
        trained = _by_epoch(runs, name)
        validated = [band._replace(label="", dashed=True) for band in _by_epoch(runs, f"validation_{name}")]
        panels[f"{name}; dashed, hollow: validation_{name}"] = trained + validated
    for name in SCHEDULES:
        if bands := _planned(runs, name):
            panels[name] = bands
    return panels | {"validation_score (dB)": _by_epoch(runs, "validation_score")}


def _by_epoch(runs: Mapping[str, Sequence[Run]], name: str) -> list[Band]:
    """Returns one band for each arm with runs, over the epochs that all its seeds have logged."""
    bands = []
    for colour, (arm, seeds) in enumerate(runs.items()):
        logs = [{row["epoch"]: row[name] for row in run.log.rows if name in row} for run in seeds]
        epochs = sorted(set.intersection(*map(set, logs))) if logs else []
        if epochs:
            bands.append(Band(epochs, np.array([[log[epoch] for epoch in epochs] for log in logs]), arm, colour))
    return bands


def _planned(runs: Mapping[str, Sequence[Run]], name: str) -> list[Band]:
    """Returns one curve for each arm with this schedule, step by step. All seeds have the same schedule."""
    curves = [(arm, colour, seeds[0].schedules) for colour, (arm, seeds) in enumerate(runs.items()) if seeds]
    return [Band(known[name][0], np.array([known[name][1]]), arm, n) for arm, n, known in curves if name in known]


def _psnr_by_frame(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[Band]]:
    bands = []
    same = coinciding(runs)
    for colour, (arm, seeds) in enumerate(runs.items()):
        evaluated = [run.scores for run in seeds if run.scores]
        if not evaluated:
            continue
        values = np.array([scores.psnr_by_frame for scores in evaluated])
        given = evaluated[0].num_given
        first, last = evaluated[0].scored_frames
        seeds_counted = "1 seed" if len(values) == 1 else f"{len(values)} seeds"
        label = f"{arm} (mean {values[:, first : last + 1].mean():.2f} dB, {seeds_counted})"
        label += f", covers {', '.join(hidden)}" if (hidden := [a for a, b in same.items() if b == arm]) else ""
        bands.append(Band(range(given, values.shape[1]), values[:, given:], label, colour))
    return {"PSNR by frame (dB)": bands}
