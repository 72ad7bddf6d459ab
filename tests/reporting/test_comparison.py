"""Tests of the comparison: mean and spread over seeds against Python's statistics, and the files with their origins."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.base.console import UserError
from src.reporting import comparison as comparison_module
from src.reporting import plots
from src.reporting.comparison import (
    MEASURES,
    coinciding,
    origins,
    read_comparison,
    spread,
    table_of_arms,
    to_markdown,
    write_comparison,
)
from src.reporting.kept import HARDWARE_FILE
from src.reporting.plots import Band, plot_bands
from src.reporting.results import Run, read_run, read_runs
from tests.comparisons import small_comparison
from tests.conftest import ROOT
from tests.run_folders import log_rows, write_run

SCORES = (24.0, 25.0, 27.5)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Three runs with different seeds. The last run has one epoch less."""
    for seed, score in enumerate(SCORES):
        folder = write_run(tmp_path / "runs" / f"s{seed}", score=score, num_epochs=5 - (seed == 2))
        if seed < 2:
            (folder / HARDWARE_FILE).write_text("a small machine, 2 cores\n")
    return read_runs(tmp_path / "runs")


@settings(deadline=None)
@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=6))
def test_spread_is_that_of_the_known_values(values: list[float | None]) -> None:
    known = [value for value in values if value is not None]
    found = spread(values)
    assert found.count == len(known)
    assert (found.mean is None) == (not known) and (found.deviation is None) == (len(known) < 2)
    if known:
        assert found.mean == pytest.approx(statistics.fmean(known), abs=1e-6)
    if len(known) > 1:
        assert found.deviation == pytest.approx(statistics.stdev(known), abs=1e-6)


def test_the_table_shows_mean_and_sample_standard_deviation(runs: list[Run]) -> None:
    header, (row,) = table_of_arms(small_comparison(runs))
    cells = dict(zip(header, row, strict=True))
    assert cells["score (dB)"] == "25.50 ± 1.80"  # deviations -1.5, -0.5, 2: sqrt(6.5 / 2) = 1.803
    assert cells["seeds"] == "3 of 3"
    assert cells["training (s)"] == "9 ± 1"  # 10, 10 and 8 seconds: 2 steps of 4 clips per epoch, 4 clips/s
    assert "PSNR 300" not in cells, "no column for a measure that no run has"
    assert cells["SSIM"] == "0.812 ± 0.000"


def test_a_failed_run_is_named_and_its_numbers_are_not_used(runs: list[Run]) -> None:
    comparison = small_comparison(runs, failure="training ended with exit code 1")
    header, (row,) = table_of_arms(comparison)
    cells = dict(zip(header, row, strict=True))
    assert (cells["score (dB)"], cells["seeds"]) == ("24.50 ± 0.71", "2 of 3")
    assert "Missing: s2: training ended with exit code 1." in origins(comparison)
    assert comparison.runs[2].values == {} and comparison.runs[2].protocol is None


def test_one_seed_has_no_spread(runs: list[Run]) -> None:
    header, (row,) = table_of_arms(small_comparison(runs[:1]))
    assert dict(zip(header, row, strict=True))["score (dB)"] == "24.00"
    assert "± -" not in to_markdown(small_comparison(runs[:1]))
    header, (row,) = table_of_arms(small_comparison(runs[:2], failure="stopped"))
    assert dict(zip(header, row, strict=True))["score (dB)"] == "24.00 ± -", "one of two seeds"


def test_the_origins_of_the_numbers_are_listed(runs: list[Run]) -> None:
    text = " ".join(origins(small_comparison(runs)))
    for expected in (
        "seeds 0, 1, 2",
        "make experiments GRID=small.toml",
        "Commit: 0123456789ab.",
        "Hardware: a small machine, 2 cores | not known.",
        "Protocol: free rollout of 12 frames of tiny; data abababababab.",
        "first frame 18.25, median frame 19.50",
    ):
        assert expected in text


def test_json_markdown_and_figures(tmp_path: Path, runs: list[Run]) -> None:
    comparison = small_comparison(runs)
    path = write_comparison(comparison, {"plain": runs}, tmp_path)
    assert path == tmp_path / "small.md" and path.read_text() == to_markdown(comparison)
    assert read_comparison(tmp_path / "small.json") == comparison
    names = ["only_one_curves.png", "only_one_psnr_by_frame.png"]
    files = sorted([*names, *(name.replace(".png", ".svg") for name in names)])
    assert sorted(found.name for found in (tmp_path / "small").iterdir()) == files
    text = path.read_text()
    assert all(f"(small/{name})" in text for name in names)
    assert (
        "| arm | SET |\n| --- | --- |\n| plain | `training.num_epochs=5` |" in text
        and "train s0\ntrain s1\ntrain s2\n" in text
    )


def test_without_a_successful_run_there_is_a_table_and_no_figure(tmp_path: Path, runs: list[Run]) -> None:
    comparison = small_comparison(runs[:1], failure="stopped")
    text = write_comparison(comparison, {"plain": []}, tmp_path).read_text()
    assert "| plain | 0 of 1 |" in text and "Missing: s0: stopped." in text and "![" not in text
    assert list((tmp_path / "small").iterdir()) == []


def test_files_of_other_commands_and_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    for text in ("[1, 2]", '{"speed": 3}'):
        path.write_text(text)
        assert read_comparison(path) is None
    for text in ("{", '{"comparisons": {}}'):
        path.write_text(text)
        with pytest.raises(UserError, match="damaged"):
            read_comparison(path)


def test_curves_show_the_logged_numbers_of_the_common_epochs(
    tmp_path: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, dict[str, Sequence[Band]]] = {}
    monkeypatch.setattr(
        comparison_module, "plot_bands", lambda paths, panels, xlabel: drawn.update({paths[0].name: panels})
    )
    write_comparison(small_comparison(runs), {"plain": runs, "unused": runs[:1]}, tmp_path)
    (psnr,) = drawn["only_one_psnr_by_frame.png"].values()
    (band,) = psnr
    assert band.label == "plain (mean 25.50 dB, 3 seeds)"
    assert list(band.positions) == list(range(1, 12)) and np.array_equal(band.values, np.outer(SCORES, np.ones(11)))
    curves = drawn["only_one_curves.png"]
    trained, validated = curves["total; dashed, hollow: validation_total"]
    assert (trained.label, trained.dashed, validated.label, validated.dashed) == ("plain", False, "", True)
    assert trained.positions == [1, 2, 3, 4]
    for seed, score in enumerate(SCORES):
        assert trained.values[seed].tolist() == [row["total"] for row in log_rows(5, offset=score - 25)[:4]]
    (reached,) = curves["validation_score (dB)"]
    assert reached.positions == [2, 4]
    assert "kl_weight" in curves and "teacher_forcing_ratio" not in curves, "the reference CVAE has none"
    write_comparison(small_comparison(runs[:1]), {"plain": runs[:1]}, tmp_path)
    assert drawn["only_one_psnr_by_frame.png"]["PSNR by frame (dB)"][0].label == "plain (mean 24.00 dB, 1 seed)"


def test_a_band_is_the_mean_and_one_sample_deviation_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, *paths: figures.append(figure))
    values = np.array([[1.0, 400.0, 3.0], [2.0, 500.0, 8.0]])
    falling = Band([1, 2, 3], values, "falling", colour=3)
    plot_bands(
        [tmp_path / "x.png"],
        {"a": [falling], "b": [Band([1, 2, 3], values[:1], "one seed", 0)], "c": []},
        xlabel="epoch",
    )
    (first, second, third) = figures[0].axes
    assert first.get_yscale() == "log" and first.get_xlabel() == "epoch" and third.get_yscale() == "linear"
    assert first.lines[0].get_ydata().tolist() == [1.5, 450.0, 5.5]
    edges = first.collections[0].get_paths()[0].vertices
    spread_at_1 = statistics.stdev([1.0, 2.0])
    at_1 = edges[edges[:, 0] == 1, 1]
    assert (at_1.min(), at_1.max()) == pytest.approx((1.5 - spread_at_1, 1.5 + spread_at_1))
    assert len(second.collections) == 0 and second.lines[0].get_ydata().tolist() == [1.0, 400.0, 3.0]
    plots.plt.close(figures[0])


def test_infinite_psnr_leaves_a_gap_without_a_warning(tmp_path: Path) -> None:
    values = np.array([[30.0, np.inf], [31.0, np.inf]])
    plot_bands([tmp_path / "x.png"], {"PSNR": [Band([1, 2], values, "a", 0)]}, xlabel="frame")
    assert (tmp_path / "x.png").stat().st_size > 0


def test_arms_whose_curves_cannot_be_told_apart_are_named(tmp_path: Path) -> None:
    def run(name: str, score: float) -> Run:
        return read_run(write_run(tmp_path / name, score=score))

    arms = {
        "a": [run("a", 24.0), run("b", 25.0)],
        "near": [run("c", 24.005), run("d", 24.995)],
        "one_seed_differs": [run("e", 24.0), run("f", 25.5)],
        "near_too": [run("g", 24.0), run("h", 25.0)],
        "one_seed": [run("i", 24.0)],
        "none": [],
    }
    assert coinciding(arms) == {"near": "a", "near_too": "a"}
    comparison = small_comparison(arms["a"]).model_copy(update={"coinciding": {"near": "a"}})
    assert "near coincides with a: PSNR by frame differs by less than 0.01 dB, seed by seed." in origins(comparison)


def test_every_measure_reads_a_run(runs: list[Run]) -> None:
    unknown = {name for name, measure in MEASURES.items() if measure.value(runs[0]) is None}
    of_pushing = {"score_best_of_n", "score_shuffled_actions", "score_shuffled_conditions"}
    assert unknown == {"psnr_300", "psnr_600", "held_out_score", "drift_db"} | of_pushing


def test_reports_of_earlier_versions_are_read_under_todays_names() -> None:
    """In earlier versions a number had one name per system. Every report had both names, one without a number."""
    for grid, name in (("pushing", "psnr_prior_mean"), ("dance_latent", "score_prior_mean")):
        path = ROOT / "reports" / f"{grid}.json"
        written = json.loads(path.read_text())
        comparison = read_comparison(path)
        assert comparison is not None
        for arm, measured in comparison.arms.items():
            assert measured["score_prior_mean"].mean == written["arms"][arm][name]["mean"] is not None
        for result, before in zip(comparison.runs, written["runs"], strict=True):
            assert result.values["score_prior_mean"] == before["values"][name]
            assert not any(name.startswith("psnr_shuffled") for name in result.values)
