"""A comparison of one arm, made from runs that are there."""

from collections.abc import Sequence

from src.reporting.comparison import Comparison, missing_result, result_of, spreads
from src.reporting.kept import HARDWARE_FILE
from src.reporting.results import Run


def small_comparison(runs: Sequence[Run], failure: str | None = None) -> Comparison:
    """The runs as seeds 0, 1, ... of the arm `plain`; the last of them failed where `failure` says how."""
    results = []
    for seed, run in enumerate(runs):
        failed = failure if seed == len(runs) - 1 else None
        origin = {"arm": "plain", "seed": seed, "command": f"train {run.name}"}
        path = run.folder / HARDWARE_FILE
        hardware = path.read_text().strip() if path.is_file() else None
        results.append(
            missing_result(run.name, **origin, failure=failed)
            if failed
            else result_of(run, **origin, hardware=hardware)
        )
    return Comparison(
        grid="small",
        title="A small comparison",
        command="make experiments GRID=small.toml",
        base="configs/tiny.toml",
        seeds=tuple(range(len(runs))),
        settings={"plain": "training.num_epochs=5"},
        comparisons={"only_one": ("plain",)},
        runs=tuple(results),
        arms={"plain": spreads(results)},
    )
