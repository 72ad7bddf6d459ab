"""`make compare RUNS="a b c"`: the table and figures of a grid, for runs that are already trained and evaluated.

Runs that differ only in their seed become one arm with a mean and a spread.
"""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from src.base.console import UserError, run_program, say
from src.base.ownership import owned
from src.commands import compare_options
from src.config import Config, flatten
from src.reporting.comparison import Comparison, RunResult, coinciding, result_of, spreads, write_comparison
from src.reporting.kept import hardware_of
from src.reporting.results import Run, read_run
from src.training.saved_config import refuse_unknown_run

RUNS = Path("runs")
REPORTS = Path("reports")
NAME = "compare"  # of the report
MAX_RUNS = 1000
SEED_MARK = re.compile(r"[._-]+(s|seed)?$")  # what is left of "-s0" and "-s1" where the names end to be equal


def compare(names: Sequence[str], runs_folder: Path, reports: Path) -> Path:
    """Writes reports/compare.md, .json and figures of these runs, and returns the Markdown file.

    Raises UserError for a run that is missing or not evaluated, and for runs of different systems or data sets.
    """
    runs = [_evaluated(name, runs_folder) for name in names]
    _refuse_unlike(runs)
    arms = arms_of(runs)
    results = {arm: [_result(arm, run) for run in members] for arm, members in arms.items()}
    first = flatten(_config(runs[0]))
    comparison = Comparison(
        grid=NAME,
        title=f"Comparison of {', '.join(arms)}",
        command=f'make compare RUNS="{" ".join(names)}"',
        base=f"runs/{runs[0].name}/config.json",
        seeds=tuple(sorted({_config(run).seed for run in runs})),
        settings={arm: _changes(first, _config(members[0])) for arm, members in arms.items()},
        comparisons={"runs": tuple(arms)},
        runs=tuple(result for of_arm in results.values() for result in of_arm),
        arms={arm: spreads(of_arm) for arm, of_arm in results.items()},
        coinciding=coinciding(arms),
    )
    return write_comparison(comparison, arms, reports)


def arms_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Returns {arm: its runs}. The runs of an arm differ only in their seed. Its name is what their names share."""
    groups: dict[Config, list[Run]] = {}
    for run in runs:
        groups.setdefault(_config(run).model_copy(update={"seed": 0}), []).append(run)
    arms: dict[str, list[Run]] = {}
    for members in groups.values():
        columns = zip(*(run.name for run in members), strict=False)
        letters = (column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
        shared = SEED_MARK.sub("", "".join(letters))
        taken = {"", *arms, *(run.name for run in runs)}
        arms[members[0].name if shared in taken else shared] = members
    return arms


def _result(arm: str, run: Run) -> RunResult:
    command = f"make evaluate RUN={run.name}"
    return result_of(run, arm=arm, seed=_config(run).seed, command=command, hardware=hardware_of(run))


def _config(run: Run) -> Config:
    assert run.config is not None, "it is evaluated"
    return run.config


def _evaluated(name: str, folder: Path) -> Run:
    refuse_unknown_run(folder / name, "RUNS")
    run = read_run(folder / name)
    if run.config is None or run.scores is None:
        raise UserError(f"{run.folder} cannot be compared: {run.notes[0]}")
    return run


def _refuse_unlike(runs: Sequence[Run]) -> None:
    """Raises UserError for runs whose scores cannot be compared."""
    first = runs[0]
    assert first.scores is not None, "it is evaluated"
    for run in runs[1:]:
        assert run.scores is not None, "it is evaluated"
        for what, one, other in (
            ("system", first.scores.system, run.scores.system),
            ("data set", first.scores.dataset_fingerprint[:12], run.scores.dataset_fingerprint[:12]),
        ):
            if one != other:
                raise UserError(f"{first.name} and {run.name} differ in their {what}: {one}, {other}; needed: the same")


def _changes(first: dict[str, object], config: Config) -> str:
    """Returns the settings in which a configuration differs from the first one's, as words of SET."""
    return " ".join(
        f"{key}={value}" for key, value in flatten(config).items() if key != "seed" and first.get(key) != value
    )


def main() -> None:
    """The command line."""
    names = compare_options().names
    if not 2 <= len(names) <= MAX_RUNS:
        raise UserError(f'RUNS names {len(names)} runs; needed: 2 to {MAX_RUNS}, as in make compare RUNS="a b"')
    with owned(REPORTS / NAME):
        path = compare(names, RUNS, REPORTS)
    say(f"{path}: table, protocol and figures")


if __name__ == "__main__":
    run_program(main)
