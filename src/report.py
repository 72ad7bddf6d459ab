"""runs/, reports/*.json, submissions/*.json -> reports/index.html: tables, curves and rollouts.

    python -m src.report
    python -m src.report --markdown [RUN ...]     print the table of these runs; without RUN: all runs and comparisons

The page only needs the figures in reports/. It shows every run, and says what is missing or damaged in it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from src.base.console import UserError, run_main, say
from src.base.files import write_atomically
from src.base.ownership import owned
from src.base.provenance import commit
from src.base.system_errors import explained
from src.base.systems import SYSTEMS
from src.commands import report_options
from src.config import flatten
from src.evaluation.scores import decimal
from src.intake.pictures import MAX_IMAGE_PIXELS
from src.reporting.comparison import Comparison, figure_paths, origins, read_comparison, table_of_arms
from src.reporting.plots import plot_history
from src.reporting.results import Run, read_run, read_runs, strange_names
from src.reporting.tables import TEXT, markdown_runs, markdown_table, protocol_of, table_of
from src.submission import Provenance
from src.training.log import LOG_NAMES

TEMPLATE = Path(__file__).parent / "reporting" / "report.html.jinja"
PAGE = "index.html"
GIF_END = b";"  # the last byte of every whole GIF


@dataclass(frozen=True)
class Figure:
    """A picture on the page; `path` is relative to the page."""

    path: str
    caption: str


@dataclass(frozen=True)
class RunSection:
    """The section of a run on the page."""

    run: Run
    protocol: str | None
    settings: dict[str, object]
    stills: list[Figure]
    gifs: list[Figure]
    notes: list[str]


@dataclass(frozen=True)
class Chapter:
    """The section of a comparison on the page."""

    title: str
    header: list[str]
    rows: list[list[str]]
    origins: list[str]
    figures: dict[str, list[str]]
    runs: list[str]


def write_report(runs_folder: Path, submissions_folder: Path, reports_folder: Path) -> Path:
    """Writes the page and its figures, and returns the path of the page. Removes the figures of deleted runs."""
    runs = read_runs(runs_folder)
    figures = reports_folder / "figures"
    sections = {run.name: _section_or_note(run, figures) for run in runs}
    table = table_of(runs)
    notes = strange_names(runs_folder)
    chapters = [chapter_of(comparison) for comparison in _comparisons(reports_folder, notes)]
    submissions = _submissions(submissions_folder, notes)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template(TEMPLATE.name).render(
        table=table,
        text_columns=TEXT,
        sections=[sections[row.run.name] for row in table.rows if row.run],
        chapters=chapters,
        submissions=submissions,
        notes=notes,
        log_names=LOG_NAMES,
        commit=commit(),
        decimal=decimal,
    )
    page = reports_folder / PAGE
    reports_folder.mkdir(parents=True, exist_ok=True)
    write_atomically(page, text.encode(errors="backslashreplace"))  # a file's name can hold bytes that are no text
    in_use = {reports_folder / figure.path for part in sections.values() for figure in (*part.stills, *part.gifs)}
    _remove_others(figures, in_use)
    return page


def _section_or_note(run: Run, figures: Path) -> RunSection:
    """Returns the section of a run. If the system refuses one of its files, the section has nothing but a note."""
    try:
        return section_of(run, figures)
    except OSError as error:
        return RunSection(run, None, {}, [], [], [*run.notes, explained(error) or str(error)])


def section_of(run: Run, figures: Path) -> RunSection:
    """Returns the section of a run. Copies its pictures to figures/<run>/ and plots its curves there."""
    folder = figures / run.name
    folder.mkdir(parents=True, exist_ok=True)
    notes = list(run.notes)
    pictures = []
    for pattern, caption, target in SYSTEMS[run.system].part("pictures").PICTURES if run.system else ():
        paths = sorted(run.folder.glob(pattern))
        if not paths and run.scores and target == "evaluate":
            notes.append(f"{pattern} is missing; make {target} RUN={run.name}")
        for path in paths:
            if not path.name.isprintable():
                notes.append(f"{str(path)!r} is left out, because its name cannot be printed; rename it")
            elif is_whole(path):
                _copy(path, folder / path.name)
                number = path.stem.removeprefix("pred_seq")
                pictures.append(Figure(f"figures/{run.name}/{path.name}", caption.format(number)))
            else:
                notes.append(f"{path.name} is damaged; make {target} RUN={run.name}")
    if run.log.rows:
        plot_history(folder / "curves.png", run.log.rows, run.schedules)
        pictures.append(Figure(f"figures/{run.name}/curves.png", "the log by epoch; the names are explained below"))
    return RunSection(
        run=run,
        protocol=protocol_of(run.scores) if run.scores else None,
        settings=flatten(run.config) if run.config else {},
        stills=[figure for figure in pictures if not figure.path.endswith(".gif")],
        gifs=[figure for figure in pictures if figure.path.endswith(".gif")],
        notes=notes,
    )


def _copy(path: Path, copy: Path) -> None:
    """Copies a file if it has changed since the last copy, because rollouts are large."""
    old = copy.stat() if copy.is_file() else None
    new = path.stat()
    if old is None or old.st_mtime < new.st_mtime or old.st_size != new.st_size:
        write_atomically(copy, path.read_bytes())


def is_whole(path: Path) -> bool:
    """Returns whether a picture file is complete and can be read."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                return False
            image.load()
            if image.format != "GIF":
                return True
        with path.open("rb") as file:
            file.seek(-len(GIF_END), os.SEEK_END)
            return file.read() == GIF_END
    except MemoryError:
        raise
    except Exception:  # Pillow raises errors of many types for a damaged picture
        return False


def _remove_others(folder: Path, in_use: set[Path]) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):  # the files of a folder come before the folder
        if path.is_file() and path not in in_use:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def chapter_of(comparison: Comparison) -> Chapter:
    """Returns the section of a comparison."""
    over = ": mean and sample standard deviation over seeds" if len(comparison.seeds) > 1 else ""
    return Chapter(
        comparison.title,
        *table_of_arms(comparison),
        origins=origins(comparison),
        figures={f"{title}{over}": paths for title, paths in figure_paths(comparison).items()},
        runs=[result.run for result in comparison.runs],
    )


def _comparisons(folder: Path, notes: list[str]) -> list[Comparison]:
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            comparison = read_comparison(path)
        except UserError as error:
            notes.append(str(error))
        else:
            found += [comparison] if comparison else []
    return found


def _submissions(folder: Path, notes: list[str]) -> list[Provenance]:
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(Provenance.load(path))
        except UserError as error:
            notes.append(str(error))
    return found


def markdown(runs_folder: Path, reports_folder: Path, chosen: list[str]) -> str:
    """Returns tables in Markdown: of the chosen runs, or, if none are chosen, of all runs and all comparisons."""
    if unknown := [name for name in chosen if not (runs_folder / name).is_dir()]:
        known = ", ".join(run.name for run in read_runs(runs_folder)) or "none"
        raise UserError(f"there is no run {unknown[0]}; runs: {known}")
    text = markdown_runs([read_run(runs_folder / name) for name in chosen] if chosen else read_runs(runs_folder))
    notes: list[str] = []
    for comparison in [] if chosen else _comparisons(reports_folder, notes):
        facts = "".join(f"\n* {line}" for line in origins(comparison))
        text += f"\n## {comparison.title}\n\n{markdown_table(*table_of_arms(comparison))}{facts}\n"
    return text + "".join(f"\n{note}\n" for note in notes)


def main() -> None:
    """The command line."""
    chosen = report_options().markdown
    runs_folder = Path("runs")
    reports_folder = Path("reports")
    if chosen is not None:
        say(markdown(runs_folder, reports_folder, chosen).rstrip())
    else:
        with owned(reports_folder / PAGE):
            page = write_report(runs_folder, Path("submissions"), reports_folder)
        say(f"{page}: open it in a browser")


if __name__ == "__main__":
    run_main(main)
