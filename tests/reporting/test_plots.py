"""Pictures: the content of GIF files, strips, curves and legends, checked by numbers."""

import itertools
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from src.maths.metrics import competition_score
from src.reporting import plots
from src.reporting.plots import (
    ENLARGEMENT,
    FRAME_MS,
    GIF_ENLARGEMENT,
    GIF_PIXELS,
    Band,
    colour_of,
    gif_enlargement,
    plot_bands,
    plot_history,
    plot_psnr,
    save_gif,
    save_strip,
    side_by_side,
)

HEIGHT, WIDTH = 4, 6
LARGEST = max(GIF_ENLARGEMENT)


def noise(num_frames: int, seed: int = 0) -> torch.Tensor:
    shape = (num_frames, 3, HEIGHT, WIDTH)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def gif_blocks(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields kind and content of each block of a GIF file. This is a minimal reader after the GIF specification."""
    position = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
    while content[position] != 0x3B:
        start = position
        if content[position] == 0x21:  # an extension
            kind, position = f"extension {content[position + 1]:#x}", position + 2
        else:
            assert content[position] == 0x2C
            kind, table = "image", content[position + 9]
            position += 10 + (3 << (table & 7) + 1 if table & 0x80 else 0) + 1
        while content[position]:
            position += content[position] + 1
        position += 1
        yield kind, content[start:position]


def test_a_gif_holds_each_frame_with_one_palette_and_no_end(tmp_path: Path) -> None:
    save_gif(tmp_path / "a.gif", noise(7))
    content = (tmp_path / "a.gif").read_bytes()
    blocks = list(gif_blocks(content))
    images = [block for kind, block in blocks if kind == "image"]
    assert content[10] & 0x80, "a palette for all frames"
    assert len(images) == 7
    assert not any(image[9] & 0x80 for image in images), "no palette of a frame's own"
    delays = [int.from_bytes(block[4:6], "little") for kind, block in blocks if kind == "extension 0xf9"]
    assert delays == [FRAME_MS // 10] * 7
    (loop,) = [block for kind, block in blocks if kind == "extension 0xff"]
    assert b"NETSCAPE2.0\x03\x01\x00\x00" in loop, "0: without end"
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.size == (LARGEST * WIDTH, LARGEST * HEIGHT)


def test_a_gif_shows_the_frames(tmp_path: Path) -> None:
    colours = torch.tensor([[255, 255, 255], [0, 51, 255], [40, 40, 40], [200, 0, 0]], dtype=torch.uint8)
    clip = colours[torch.randint(0, 4, (5, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(1))]
    save_gif(tmp_path / "a.gif", clip.permute(0, 3, 1, 2))
    with Image.open(tmp_path / "a.gif") as gif:
        for number, frame in enumerate(clip.numpy()):
            gif.seek(number)
            shown = np.asarray(gif.convert("RGB")).astype(int)
            enlarged = frame.repeat(LARGEST, axis=0).repeat(LARGEST, axis=1)
            assert np.abs(shown - enlarged).max() <= 4


@pytest.mark.parametrize(("num_frames", "times"), [(1, 4), (120, 4), (121, 3), (214, 2), (9999, 2)])
def test_a_long_clip_is_enlarged_less(num_frames: int, times: int) -> None:
    clip = torch.zeros(1, 3, 32, 195, dtype=torch.uint8).expand(num_frames, -1, -1, -1)
    assert gif_enlargement(clip) == times
    assert times == LARGEST or num_frames * 32 * 195 * (times + 1) ** 2 > GIF_PIXELS


def test_a_still_lasts_as_long_as_its_frames(tmp_path: Path) -> None:
    clip = torch.cat([noise(1).expand(5, -1, -1, -1), noise(1, seed=1)])
    save_gif(tmp_path / "a.gif", clip)
    with Image.open(tmp_path / "a.gif") as gif:
        durations = []
        for number in range(gif.n_frames):
            gif.seek(number)
            durations.append(gif.info["duration"])
    assert sum(durations) == 6 * FRAME_MS


@pytest.mark.parametrize("name", ["a.gif", "a.png", "b.png"])
def test_a_picture_is_whole_or_absent(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(b"the old one")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        if name == "a.gif":
            save_gif(tmp_path / name, noise(2))
        elif name == "a.png":
            save_strip(tmp_path / name, [noise(2)])
        else:
            plot_psnr(tmp_path / name, {"dance": torch.ones(3)})
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the old one"]


def test_clips_stand_side_by_side() -> None:
    first, second = noise(3), noise(3, seed=1)
    joined = side_by_side([first, second])
    assert joined.shape == (3, 3, HEIGHT, 2 * WIDTH + 1)
    assert torch.equal(joined[..., :WIDTH], first)
    assert (joined[..., WIDTH] == 255).all()
    assert torch.equal(joined[..., WIDTH + 1 :], second)


def test_a_strip_shows_evenly_spaced_frames(tmp_path: Path) -> None:
    truth, drawn = noise(9), noise(9, seed=1)
    save_strip(tmp_path / "strip.png", [truth, drawn], num_frames=3)
    with Image.open(tmp_path / "strip.png") as image:
        pixels = np.asarray(image)[::ENLARGEMENT, ::ENLARGEMENT]
    assert pixels.shape == (2 * (HEIGHT + 1), 3 * WIDTH + 2, 3)
    for column, time in enumerate((0, 4, 8)):
        left = column * (WIDTH + 1)
        for row, clip in enumerate((truth, drawn)):
            shown = pixels[row * (HEIGHT + 1) :][:HEIGHT, left : left + WIDTH]
            assert np.array_equal(shown, clip[time].permute(1, 2, 0).numpy())


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The matplotlib figures that are saved."""
    saved: list[Figure] = []
    monkeypatch.setattr(plots, "_save", lambda figure, *paths: saved.append(figure))
    return saved


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_legend_holds_the_mean_of_the_predicted_frames(figures: list[Figure]) -> None:
    psnr = {
        "dance": torch.tensor([math.inf, 20.0, 25.0, 30.0]),
        "first frame": torch.tensor([math.inf, 10.0, 11.0, 12.5]),
    }
    plot_psnr(Path("psnr.png"), psnr)
    (axes,) = figures[0].axes
    assert legend(figures[0]) == ["dance: 25.00 dB", "first frame: 11.17 dB"]
    assert figures[0].legends[0].get_title().get_text() == "mean of the predicted frames"
    for line, values in zip(axes.lines, psnr.values(), strict=True):
        assert line.get_xdata().tolist() == [1, 2, 3]
        assert line.get_ydata().tolist() == values[1:].tolist()


def test_the_legend_holds_the_score_and_shades_what_is_not_scored(figures: list[Figure]) -> None:
    psnr = torch.cat([torch.tensor([math.inf]), torch.full((600,), 30.0), torch.full((29,), 10.0)])
    plot_psnr(Path("psnr.png"), {"dance": psnr}, scored=range(1, 601))
    assert legend(figures[0]) == [f"dance: {competition_score(psnr):.2f} dB", "frames 601 to 629: not scored"]
    assert figures[0].legends[0].get_title().get_text() == "score: mean of frames 1 to 600"
    (axes,) = figures[0].axes
    (shade,) = axes.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (600.5, 629.5)
    plot_psnr(Path("psnr.png"), {"dance": psnr[:12]}, scored=range(1, 601))
    assert legend(figures[1]) == ["dance: 30.00 dB"]
    assert figures[1].legends[0].get_title().get_text() == "score: mean of frames 1 to 11"


def test_axes_of_a_short_run_are_readable(figures: list[Figure]) -> None:
    plot_history(Path("curves.png"), [{"epoch": epoch, "total": 28.3 + 1e-6 * epoch} for epoch in (1, 2)], {})
    axes = figures[0].axes[0]
    assert not axes.yaxis.get_major_formatter().get_useOffset()
    bottom, top = axes.get_ylim()
    assert top - bottom == pytest.approx(0.02 * 28.3, rel=1e-3)
    assert bottom < 28.3 < top
    left, right = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if left <= tick <= right] == [1, 2]
    plot_history(Path("curves.png"), [{"epoch": 1, "total": 28.3}], {})
    axes = figures[1].axes[0]
    left, right = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if left <= tick <= right] == [1]


def test_curves_hold_what_the_log_holds(figures: list[Figure]) -> None:
    names = ("total", "reconstruction", "kl")
    rows: list[dict[str, float]] = []
    for epoch in (1, 2, 3, 4):
        row = {"epoch": epoch, "kl_weight": 0.5, "teacher_forcing_ratio": 1 / epoch, "learning_rate": 1e-3 * epoch}
        row |= {name: epoch + number for number, name in enumerate(names)}
        if epoch % 2 == 0:
            row |= {f"validation_{name}": 2 * epoch for name in names}
            row |= {"validation_score": 20 + epoch, "validation_score_posterior": 21 + epoch}
        rows.append(row)
    schedules = {"kl_weight": ([0, 0.5, 1, 1.5], [0, 0.25, 0.5, 0.5]), "teacher_forcing_ratio": ([0, 1], [1, 0])}
    plot_history(Path("curves.png"), rows, schedules)
    drawn = {line.get_label(): line for axes in figures[0].axes for line in axes.lines}
    assert drawn.keys() == rows[1].keys() - {"epoch"}
    for name, curve in schedules.items():  # for every step; the log only has the last step of an epoch
        line = drawn.pop(name)
        assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == curve
    for name, line in drawn.items():
        assert line.get_xdata().tolist() == [row["epoch"] for row in rows if name in row]
        assert line.get_ydata().tolist() == [row[name] for row in rows if name in row]


def colours_within_axes(path: Path) -> set[tuple[int, ...]]:
    """Returns the colours of a saved plot, without the legend below it."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return {tuple(colour) for colour in pixels[: int(0.85 * len(pixels))].reshape(-1, 3).tolist()}


BLUE, ORANGE = (31, 119, 180), (255, 127, 14)  # matplotlib's first two colours


@pytest.mark.parametrize("num_points", [1, 50])
def test_equal_scores_hide_neither_curve(tmp_path: Path, num_points: int) -> None:
    rows = [{"epoch": 1 + n, "validation_score": 20.0, "validation_score_posterior": 20.0} for n in range(num_points)]
    plot_history(tmp_path / "curves.png", rows, {})
    assert {BLUE, ORANGE} <= colours_within_axes(tmp_path / "curves.png")


def test_one_point_is_visible(tmp_path: Path) -> None:
    for dashed in (False, True):
        plot_bands([tmp_path / "a.png"], {"loss": [Band([1], np.ones((1, 1)), "arm", 1, dashed)]}, xlabel="epoch")
        assert any(red > 240 and blue < 120 for red, _, blue in colours_within_axes(tmp_path / "a.png")), "orange"


def test_many_points_are_a_line_without_markers(figures: list[Figure]) -> None:
    plot_bands([Path("bands.png")], {"PSNR": [Band(range(600), np.ones((2, 600)), "arm", 0)]}, xlabel="frame")
    assert figures[0].axes[0].lines[0].get_marker() == "None"


def test_a_run_without_validation_is_plotted_without_warning(figures: list[Figure]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_history(Path("curves.png"), [{"epoch": 1, "total": 0.5}], {})
        plot_history(Path("curves.png"), [], {})
    assert len(figures) == 2


def test_no_two_arms_have_one_colour() -> None:
    colours = [colour_of(number) for number in range(40)]
    distances = [np.abs(np.subtract(a, b)).max() for a, b in itertools.combinations(colours, 2)]
    assert min(distances) > 0.03 and all(0 <= part <= 1 for colour in colours for part in colour)


def test_a_panel_of_one_constant_is_left_out(figures: list[Figure]) -> None:
    def bands(*values: float) -> list[Band]:
        return [Band([1, 2], np.full((1, 2), value), str(value), n) for n, value in enumerate(values)]

    rising = [Band([1, 2], np.array([[1.0, 2.0]]), "a", 0)]
    panels = {"rising": rising, "two constants": bands(1, 2), "one constant": bands(1, 1), "nothing": []}
    plot_bands([Path("bands.png")], panels, xlabel="epoch")
    titles = [axes.get_title() for axes in figures[0].axes if axes.get_visible()]
    assert titles == ["rising", "two constants", "nothing"]


def test_the_same_figure_gives_the_same_files(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        paths = [folder / "bands.png", folder / "bands.svg"]
        plot_bands(paths, {"loss": [Band((1, 2), np.array([[1.0, 2.0]]), "lab", 0)]}, xlabel="epoch")
    for name in ("bands.png", "bands.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert ElementTree.parse(tmp_path / "a" / "bands.svg").getroot().tag.endswith("svg")


def test_a_band_is_mean_and_spread_of_the_seeds(figures: list[Figure]) -> None:
    values = np.array([[1.0, 4.0, 2.0], [3.0, 5.0, 2.0], [5.0, 9.0, 2.0]])
    plot_bands([Path("bands.png")], {"loss": [Band((1, 2, 3), values, "lab", 0)]}, xlabel="epoch")
    axes = figures[0].axes[0]
    assert axes.lines[0].get_ydata().tolist() == [3.0, 6.0, 2.0]
    corners = axes.collections[0].get_paths()[0].vertices
    spread = values.std(axis=0, ddof=1)
    assert corners[:, 1].max() == pytest.approx(6 + spread[1])
    assert corners[:, 1].min() == pytest.approx(min(3 - spread[0], 2))
    assert legend(figures[0]) == ["lab"]


def test_the_lower_edge_of_positive_values_is_positive_by_hand() -> None:
    values = np.array([[1.0, -4.0, 10.0], [100.0, 2.0, 12.0]])
    below = np.array([-19.5, -5.2, 9.6])  # 50.5 - 70.0; the second has negative values; 11 - 1.4
    assert plots.lower_edge(values, below).tolist() == [1.0, -5.2, 9.6]
