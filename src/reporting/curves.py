"""Interactive curves of a run for the page, drawn by Bokeh, whose script lies in the page."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    Path.home()
except RuntimeError:  # a container's user without a home folder; bokeh asks for one while it is imported
    os.environ["HOME"] = os.sep

from bokeh.embed import components
from bokeh.models import ColumnDataSource, HoverTool
from bokeh.palettes import Colorblind8
from bokeh.plotting import figure
from bokeh.resources import Resources

from src.reporting.results import Run

PANELS = {  # title -> names of the log, or of a schedule
    "loss": ("total", "validation_total"),
    "reconstruction": ("reconstruction", "validation_reconstruction"),
    "KL divergence (nats per frame)": ("kl", "validation_kl"),
    "KL weight": ("kl_weight",),
    "teacher-forcing ratio": ("teacher_forcing_ratio",),
    "learning rate": ("learning_rate",),
    "validation (dB)": ("validation_score", "validation_score_posterior", "held_out_score"),
}
GREY = "#7d838c"  # can be read on the light and on the dark page
COLOURS = (Colorblind8[0], Colorblind8[5], Colorblind8[2])  # can be told apart with any kind of colour blindness
Curve = tuple[Sequence[float], Sequence[float]]  # epochs, values


def script_of_library() -> str:
    """Returns the script that draws the curves, as elements for the head of the page."""
    return Resources(mode="inline", components=["bokeh"]).render_js()


def curves_of(run: Run) -> tuple[str, dict[str, str]]:
    """Returns a script, and {title: element} of each panel with more than one value."""
    drawn = {}
    for title, names in PANELS.items():
        curves = {name: found for name in names if (found := _curve(run, name))}
        if any(len(set(values)) > 1 for _, values in curves.values()):
            drawn[title] = _panel(title, curves)
    if not drawn:
        return "", {}
    script, elements = components(drawn)
    return script, dict(elements)


def _curve(run: Run, name: str) -> Curve | None:
    """Returns a curve of the log, or step by step for a schedule; None if the run does not have it."""
    if name in run.schedules:
        return run.schedules[name]
    points = [(row["epoch"], row[name]) for row in run.log.rows if name in row]
    return tuple(zip(*points, strict=True)) if points else None  # type: ignore[return-value]


def _panel(title: str, curves: Mapping[str, Curve]) -> Any:
    panel: Any = figure(
        title=title, height=240, sizing_mode="stretch_width", tools="pan,wheel_zoom,box_zoom,reset",
        x_axis_label="epoch", background_fill_alpha=0, border_fill_alpha=0, outline_line_color=GREY,
    )  # fmt: skip
    for (name, (epochs, values)), colour in zip(curves.items(), COLOURS, strict=False):
        source = ColumnDataSource({"epoch": list(epochs), "value": list(values)})
        shape = {"x": "epoch", "y": "value", "source": source, "color": colour, "legend_label": name}
        lines = [panel.line(**shape, line_width=2)]
        if len(epochs) < 40:
            lines.append(panel.scatter(**shape, size=5))
        panel.add_tools(HoverTool(renderers=lines[:1], tooltips=[("epoch", "@epoch"), (name, "@value")], mode="vline"))
    panel.toolbar.autohide = True
    panel.toolbar.logo = None
    panel.title.text_color = GREY
    panel.legend.background_fill_alpha = 0
    panel.legend.border_line_alpha = 0
    panel.legend.label_text_color = GREY
    panel.legend.click_policy = "hide"
    for axis in panel.axis:
        axis.axis_label_text_color = axis.major_label_text_color = GREY
        axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = GREY
    panel.grid.grid_line_color = GREY
    panel.grid.grid_line_alpha = 0.25
    return panel
