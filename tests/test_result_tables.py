"""The tables of README and docs/results.md say what reports/*.json say."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.config import load_config
from tests.conftest import ROOT

README, RESULTS = ROOT / "README.md", ROOT / "docs/results.md"
CHECKED = {README: 7, RESULTS: 67}  # the fewest means that a document must state
MEASURED = {  # headings of the tables
    "score (dB)": "score",
    "validation take (dB)": "score",
    "held out (dB)": "held_out_score",
    "KL (nats a frame)": "kl_nats",
    "between samples (dB)": "psnr_between_samples",
    "of vague poses (dB)": "psnr_between_samples_vague",
    "with other clips' actions": "psnr_shuffled_actions",
    "and positions": "psnr_shuffled_conditions",
    "best of 4 samples": "psnr_best_of_n",
}
both = pytest.mark.parametrize("path", CHECKED, ids=lambda path: path.name)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Header and rows of each table of a Markdown text."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        header, _, *rows = ([cell.strip(" *") for cell in line.strip("|").split("|")] for line in block.splitlines())
        yield header, rows


def measured(path: Path) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """Grid, arm, header and row of each measured row: it names `arm` or `grid/arm`, its table the grid if not it."""
    for header, rows in tables(read(path)):
        for row in (row for row in rows if "±" in "".join(row)):
            (name,) = re.findall(r"`([\w/]+)`", row[0])
            grid, arm = name.split("/") if "/" in name else (header[0].split("`")[1], name)
            yield grid, arm, header, row


def report(grid: str) -> Any:
    return json.loads(read(ROOT / "reports" / f"{grid}.json"))


@both
def test_every_mean_and_spread_is_that_of_its_arm(path: Path) -> None:
    checked = 0
    for grid, arm, header, row in measured(path):
        spreads = report(grid)["arms"][arm]
        for heading, cell in list(zip(header, row, strict=True))[1:]:
            if "±" in cell:
                spread = spreads[MEASURED[heading]]
                places = len(cell.partition(".")[2].partition(" ")[0])
                assert cell == f"{spread['mean']:.{places}f} ± {spread['deviation']:.{places}f}", (arm, heading)
                checked += 1
    assert checked >= CHECKED[path]


@both
def test_every_other_mean_and_spread_stands_in_a_report(path: Path) -> None:
    reports = "".join(read(found) for found in (ROOT / "reports").glob("*.md") if found.name != "LOG.md")
    spreads = re.findall(r"\d+\.\d+ ± \d+\.\d+", read(path))
    assert [spread for spread in spreads if spread not in reports] == []


@both
@pytest.mark.parametrize("grid", ["dance_mini", "pushing"])
def test_the_baselines_are_those_of_the_report(path: Path, grid: str) -> None:
    known = report(grid)["runs"][0]["baselines"]
    arms = {arm for name, arm, _, _ in measured(path) if name == grid}
    stated = next(rows for _, rows in tables(read(path)) if any(f"{arm}`" in row[0] for row in rows for arm in arms))
    assert {row[0]: row[1] for row in stated if row[0] in known} == {name: f"{known[name]:.2f}" for name in known}


@both
def test_every_table_of_a_grid_has_its_seeds_and_command_above_it(path: Path) -> None:
    text = read(path)
    for grid in {grid for grid, *_ in measured(path)}:
        command = f"`make experiments GRID={grid}`"
        seeds = tomllib.loads(read(ROOT / f"configs/experiments/{grid}.toml"))["seeds"]
        assert command in " ".join(text.split()), grid
        assert seeds == report(grid)["seeds"] == [0, 1, 2]
    assert "seeds 0, 1, 2" in text


@both
def test_networks_of_different_width_are_told_apart(path: Path) -> None:
    grid = tomllib.loads(read(ROOT / "configs/experiments/pushing.toml"))
    base = ROOT / "configs" / f"{grid['base']}.toml"
    rows = [(arm, row) for name, arm, _, row in measured(path) if name == "pushing"]
    assert rows
    for arm, row in rows:
        model = load_config(base, f"{grid['set']} {grid['arms'][arm]}").model
        assert f"width {model.width}" in row[0], arm  # type: ignore[union-attr]


def test_the_tables_of_schedules_are_those_of_their_reports() -> None:
    forcing = report("dance_twin_forcing")["arms"]
    names = {"score": "score"} | {f"PSNR {frames}": f"psnr_{frames}" for frames in ("100", "300", "600")}
    names["PSNR 1-10"] = "psnr_1_to_10"
    weights = report("dance_twin_kl")["arms"]
    columns = {"KL (nats)": ("kl_nats", 1), "leak (dB)": ("posterior_minus_prior_db", 2), "score (dB)": ("score", 2)}
    checked = 0
    for header, rows in tables(read(ROOT / "docs/schedules.md")):
        for row in rows if header[0] in ("arm", "constant weight") else []:
            for heading, cell in list(zip(header, row, strict=True))[1:]:
                if header[0] == "arm":
                    (arm,) = re.findall(r"`(\w+)`", row[0])
                    measured = forcing[arm][names[heading]]
                    assert cell == f"{measured['mean']:.2f} ± {measured['deviation']:.2f}", (arm, heading)
                else:
                    measured = weights["w" + row[0].replace("-", "_")]
                    name, places = columns.get(heading, ("score", 0))
                    mean, deviation = measured[name]["mean"], measured[name]["deviation"]
                    spread = "" if deviation is None else f" ± {deviation:.{places}f}"
                    shown = f"{round(mean, places) + 0:.{places}f}{spread}"
                    assert cell == (str(measured[name]["count"]) if heading == "seeds" else shown), (row[0], heading)
                checked += 1
    assert checked == 3 * 5 + 8 * 4
