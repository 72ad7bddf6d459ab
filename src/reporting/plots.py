"""Pictures of runs: GIFs, strips, plots."""

import colorsys
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as iio
import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.base.files import write_atomically

mpl.use("Agg")  # there may be no screen
from matplotlib import pyplot as plt

FRAME_MS = 40  # 25 frames per second; a GIF counts in hundredths of a second, so 30 are not possible
ENLARGEMENT = 3  # of still pictures, because a frame of 64 x 32 is tiny on a screen
GIF_ENLARGEMENT = range(2, 5)  # of GIFs, for the same reason; the largest that keeps within GIF_PIXELS
GIF_PIXELS = 12_000_000  # pixels of all frames together; a GIF with more has many megabytes
LOG_SPAN = 100  # if the largest value is more than this times the smallest, the axis is logarithmic
MIN_SPAN = 0.02  # smallest range of an axis, as a share of the largest value; smaller changes do not matter
FEW_POINTS = 40  # curves with fewer points get markers, because a line of one point is invisible
BENEATH = {"linestyle": "--", "linewidth": 4, "markersize": 12, "color": "C1"}  # visible below another curve
Curve = tuple[Sequence[float], Sequence[float]]  # positions and values
FIRST_COLOURS = [mpl.colormaps["tab10"](number)[:3] for number in range(10)]
GOLDEN_RATIO = (5**0.5 - 1) / 2
PALETTE_FRAMES = 64  # the 256 colours of a GIF are chosen from this many frames of the clip


def save_gif(path: Path, clip: Tensor) -> None:
    """Writes a clip (T, 3, H, W) uint8 as an endless GIF with one palette for all frames."""
    times = gif_enlargement(clip)
    pixels = clip.permute(0, 2, 3, 1).cpu().numpy().repeat(times, axis=1).repeat(times, axis=2)
    chosen = np.linspace(0, len(clip) - 1, min(len(clip), PALETTE_FRAMES)).astype(int)
    montage = Image.fromarray(np.concatenate(clip.permute(0, 2, 3, 1).cpu().numpy()[chosen]))
    palette = montage.quantize(256, method=Image.Quantize.MEDIANCUT)
    first, *others = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in pixels]
    file = io.BytesIO()
    common = palette.getpalette()  # without it, Pillow writes a palette with every frame
    first.save(file, "GIF", palette=common, save_all=True, append_images=others, duration=FRAME_MS, loop=0)
    write_atomically(path, file.getvalue())


def gif_enlargement(clip: Tensor) -> int:
    """Returns the factor by which the GIF of a clip (T, 3, H, W) enlarges its frames."""
    num_pixels = clip[:, 0].numel()
    fitting = [times for times in GIF_ENLARGEMENT if num_pixels * times**2 <= GIF_PIXELS]
    return max(fitting, default=GIF_ENLARGEMENT.start)


def side_by_side(clips: Sequence[Tensor]) -> Tensor:
    """Returns clips (T, 3, H, W) uint8 joined from left to right, with a white line of one pixel between them."""
    gap = torch.full_like(clips[0][..., :1], 255)
    columns = [column for clip in clips for column in (clip, gap)]
    return torch.cat(columns[:-1], dim=-1)


def save_strip(path: Path, rows: Sequence[Tensor], *, num_frames: int = 8) -> None:
    """Writes evenly spaced frames of clips (T, 3, H, W) uint8 as one PNG, with one row per clip."""
    from torchvision.utils import make_grid  # noqa: PLC0415  (it takes half a second, and most commands do not need it)

    chosen = torch.linspace(0, len(rows[0]) - 1, num_frames).long()
    frames = torch.cat([clip.cpu()[chosen] for clip in rows])
    grid = make_grid(frames, nrow=num_frames, padding=1, pad_value=255)[:, 1:, 1:-1]  # no lines at the borders
    pixels = grid.permute(1, 2, 0).numpy()
    enlarged = pixels.repeat(ENLARGEMENT, axis=0).repeat(ENLARGEMENT, axis=1)
    write_atomically(path, iio.imwrite("<bytes>", enlarged, extension=".png"))


def plot_psnr(
    path: Path, psnr: Mapping[str, Tensor], *, scored: range | None = None, also: Sequence[Path] = ()
) -> None:
    """Plots the PSNR in dB of each frame, (T,), one curve per label. The PSNR of given frames is NaN.

    The legend shows the mean over the frames `scored`; None: all predicted frames. Other predicted frames are shaded.
    also: other files that get the same figure, in the format of their suffix.
    """
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    length = max(map(len, psnr.values()))
    first, stop = (scored.start, min(scored.stop, length)) if scored else (1, length)
    for label, values in psnr.items():
        mean = values[first:stop].nanmean()
        axes.plot(range(1, length), values[1:], label=f"{label}: {mean:.2f} dB", linewidth=1)
    if stop < length:
        axes.axvspan(
            stop - 0.5, length - 0.5, color="0.9", zorder=0, label=f"frames {stop} to {length - 1}: not scored"
        )
    axes.set(xlabel="frame", ylabel="PSNR (dB)")
    _format_axes(axes)
    title = f"score: mean of frames {first} to {stop - 1}" if scored else "mean of the predicted frames"
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, title=title, title_fontsize=8)
    _save(figure, path, *also)


def plot_history(
    path: Path, rows: Sequence[Mapping[str, Any]], schedules: Mapping[str, Curve], *, also: Sequence[Path] = ()
) -> None:
    """Plots a run's log by epoch: training and validation losses, the validation score, and the schedules.

    also: other files that get the same figure.
    """
    panels = [
        ("loss", ("total", "validation_total")),
        ("reconstruction", ("reconstruction", "validation_reconstruction")),
        ("KL (nats)", ("kl", "validation_kl")),
        ("schedules", tuple(schedules)),
        ("learning rate", ("learning_rate",)),
        ("PSNR (dB)", ("validation_score_posterior", "validation_score")),
    ]
    figure, grid = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    for axes, (title, names) in zip(grid.flat, panels, strict=True):
        for name in names:
            logged = [(row["epoch"], row[name]) for row in rows if name in row]
            points = list(zip(*schedules[name], strict=True)) if name in schedules else logged
            if points:
                style = BENEATH if name == "validation_score_posterior" else {}
                axes.plot(*zip(*points, strict=True), label=name, marker=_marker(points), **style)
        axes.set(title=title, xlabel="epoch")
        _format_axes(axes)
        if axes.lines:
            axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False)
    _save(figure, path, *also)


def plot_strip(paths: Sequence[Path], rows: Mapping[str, Tensor], numbers: Sequence[int]) -> None:
    """Draws frames as a figure with one row per name: {name: (N, 3, H, W) uint8}. numbers: the N frames' own numbers.

    Each frame of the data is shown in its own pixels, without smoothing.
    """
    height, width = next(iter(rows.values())).shape[-2:]
    column = 9 / len(numbers)  # inches
    size = (9, len(rows) * column * height / width + 0.4)
    figure, grid = plt.subplots(len(rows), len(numbers), figsize=size, layout="constrained", squeeze=False)
    for line, (name, frames) in zip(grid, rows.items(), strict=True):
        for axes, frame in zip(line, frames, strict=True):
            axes.imshow(frame.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=9)
    for axes, number in zip(grid[0], numbers, strict=True):
        axes.set_title(f"frame {number}", fontsize=9)
    _save(figure, *paths)


class Band(NamedTuple):
    """One quantity of several seeds: values (S, P) at positions (P,). It is drawn as a mean with a band around it."""

    positions: Sequence[float]
    values: np.ndarray
    label: str
    colour: int  # number of the arm: all its bands have one colour
    dashed: bool = False


def plot_bands(paths: Sequence[Path], panels: Mapping[str, Sequence[Band]], *, xlabel: str) -> None:
    """Plots one panel per title, three in a row, and writes the figure to each path, in the format of its suffix.

    A band is the mean over seeds ± one sample standard deviation. The legend below the panels is that of the first
    panel, and is valid for all. A panel whose curves are all the same constant is left out.
    """
    panels = {title: bands for title, bands in panels.items() if not _are_one_constant(bands)} or panels
    num_columns = min(3, len(panels))
    num_rows = -(-len(panels) // num_columns)
    size = (9, 4) if num_columns == 1 else (4.4 * num_columns, 3 * num_rows)
    figure, grid = plt.subplots(num_rows, num_columns, figsize=size, layout="constrained", squeeze=False)
    for axes, (title, bands) in zip(grid.flat, panels.items(), strict=False):
        for band in bands:
            _draw_band(axes, band)
        values = np.concatenate([band.values.ravel() for band in bands]) if bands else np.ones(1)
        if values.min() > 0 and values.max() > LOG_SPAN * values.min():
            axes.set_yscale("log")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(xlabel)
        _format_axes(axes)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    if grid.flat[0].lines:
        lines, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=2, fontsize=8)
    _save(figure, *paths)


def _are_one_constant(bands: Sequence[Band]) -> bool:
    values = [band.values for band in bands]
    return bool(values) and all(np.all(each == values[0].flat[0]) for each in values)


def _marker(points: Sequence[Any]) -> str | None:
    return "." if len(points) < FEW_POINTS else None


def _format_axes(axes: Any) -> None:
    """Sets whole numbers on the x axis, plain numbers on the y axis, and a y range that hides rounding errors."""
    axes.grid(alpha=0.3)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    if axes.get_yscale() == "log":
        return
    axes.yaxis.get_major_formatter().set_useOffset(False)
    values = np.concatenate([[], *(line.get_ydata() for line in axes.lines)]).astype(float)
    values = values[np.isfinite(values)]
    if values.size and np.ptp(values) < (needed := MIN_SPAN * np.abs(values).max()):
        middle = (values.min() + values.max()) / 2
        axes.set_ylim(middle - needed / 2, middle + needed / 2)


def colour_of(number: int) -> tuple[float, float, float]:
    """Returns the colour of arm 0, 1, ... as RGB from 0 to 1. No two arms have the same.

    The first ten are those of matplotlib. After them, the hue moves on by the golden ratio, so new ones fall between
    the old ones, and the brightness alternates.
    """
    if number < len(FIRST_COLOURS):
        return FIRST_COLOURS[number]
    red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN_RATIO % 1, 0.9, 0.5 + 0.4 * (number % 2))
    return red, green, blue


def _draw_band(axes: Any, band: Band) -> None:
    colour = colour_of(band.colour)
    style = {"linestyle": "--", "fillstyle": "none"} if band.dashed else {}
    mean = band.values.mean(axis=0)
    axes.plot(band.positions, mean, color=colour, linewidth=1.2, marker=_marker(mean), label=band.label, **style)
    if len(band.values) > 1:
        with np.errstate(invalid="ignore"):  # identical frames have infinite PSNR
            spread = band.values.std(axis=0, ddof=1)
        low = lower_edge(band.values, mean - spread)
        axes.fill_between(band.positions, low, mean + spread, color=colour, alpha=0.2, linewidth=0)


def lower_edge(values: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Returns the lower edge (P,) of a band of values (S, P): `below`, but no edge of positive values is 0 or less.

    There it is the smallest value. Otherwise the band would fall to the bottom of a logarithmic axis.
    """
    smallest = values.min(axis=0)
    return np.where((smallest > 0) & (below <= 0), smallest, below)


def _save(figure: Any, *paths: Path) -> None:
    for path in paths:
        buffer = io.BytesIO()
        date = {".svg": "Date", ".pdf": "CreationDate"}.get(path.suffix)
        undated = {date: None} if date else None  # the same figure gives the same file
        with mpl.rc_context({"svg.hashsalt": path.stem}):
            figure.savefig(buffer, format=path.suffix[1:], dpi=110, metadata=undated)
        write_atomically(path, buffer.getvalue())
    plt.close(figure)
