"""runs/, reports/*.json, submissions/ -> reports/index.html: one file with a player, tables and curves.

    python -m src.report
    python -m src.report --runs "a b" --out page.html      only these runs, as a page of its own
    python -m src.report --markdown [RUN ...]              print the table of these runs; without RUN: all runs

The page needs no other file and no network. It shows every run, and says what is missing or damaged in it. Comparisons
whose runs are not on this machine, such as the published ones, have a page of their own: reports/published.html.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.base.console import UserError, run_program, say
from src.base.files import write_atomically
from src.base.ownership import owned
from src.base.provenance import commit
from src.base.reading import Unreadable, read_bytes
from src.commands import report_options
from src.competition.ledger import Ledger, Submission
from src.config import flatten
from src.evaluation.scores import decimal
from src.reporting.comparison import Comparison, figure_paths, origins, read_comparison, table_of_arms
from src.reporting.curves import curves_of, script_of_library
from src.reporting.page import PlayerContent, player_content
from src.reporting.results import Run, read_run, read_runs, strange_names
from src.reporting.tables import TEXT, markdown_runs, markdown_table, protocol_of, table_of
from src.submission import Provenance
from src.training.log import LOG_NAMES
from src.training.saved_config import refuse_unknown_run

PARTS = Path(__file__).parent / "reporting"
PAGE = "index.html"
PUBLISHED = "published.html"
FIRST_COLUMNS = ("run", "model", "score (dB)", "over baseline (dB)", "seed")  # of the table of runs; a click shows all
MAX_FIGURE_BYTES = 2**21


@dataclass(frozen=True)
class RunSection:
    """The section of a run on the page. `curves`: {title: element that the script fills}."""

    run: Run
    protocol: str | None
    settings: dict[str, object]
    script: str
    curves: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class Chapter:
    """The section of a comparison on the page. `figures`: {title: pictures as data of the page}."""

    title: str
    header: list[str]
    rows: list[list[str]]
    origins: list[str]
    figures: dict[str, list[str]]
    runs: list[str]


def write_report(
    runs_folder: Path,
    submissions_folder: Path,
    reports_folder: Path,
    *,
    chosen: Sequence[str] = (),
    out: Path | None = None,
) -> Path:
    """Writes the page and returns its path; with `chosen`, a page of these runs alone. Writes published.html, too.

    Raises UserError if one of the chosen runs does not exist.
    """
    runs = _chosen(runs_folder, chosen) if chosen else read_runs(runs_folder)
    notes = strange_names(runs_folder)
    here = {run.name for run in runs}
    comparisons = _comparisons(reports_folder, notes)
    own = [comparison for comparison in comparisons if here & {result.run for result in comparison.runs}]
    published = [] if chosen else [comparison for comparison in comparisons if comparison not in own]
    best_first = sorted(runs, key=lambda run: -(run.scores.score if run.scores else -math.inf))
    player = player_content(best_first)
    sections = [section_of(run, player) for run in best_first]
    submissions, ledger = _submissions(submissions_folder, here if chosen else None, notes)
    page = out or reports_folder / PAGE
    page.parent.mkdir(parents=True, exist_ok=True)
    _write(
        page,
        "report.html.jinja",
        player=player,
        best=next((run for run in best_first if run.scores and run.best_baseline), None),
        table=table_of(runs),
        first_columns=FIRST_COLUMNS,
        sections=sections,
        chapters=[chapter_of(comparison, reports_folder, notes) for comparison in own],
        published=bool(published),
        submissions=submissions,
        ledger=ledger,
        notes=notes,
        log_names=LOG_NAMES,
        library=script_of_library() if any(section.curves for section in sections) else "",
        player_script=(PARTS / "player.js").read_text(encoding="utf-8"),
        table_script=(PARTS / "tables.js").read_text(encoding="utf-8"),
    )
    if published:
        _write(
            reports_folder / PUBLISHED,
            "published.html.jinja",
            chapters=[chapter_of(comparison, reports_folder, []) for comparison in published],
        )
    return page


def _write(page: Path, template: str, **content: object) -> None:
    environment = Environment(
        loader=FileSystemLoader(PARTS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template(template).render(**content, text_columns=TEXT, commit=commit(), decimal=decimal)
    write_atomically(page, text.encode(errors="backslashreplace"))  # a file's name can hold bytes that are no text


def _chosen(folder: Path, names: Sequence[str]) -> list[Run]:
    for name in names:
        refuse_unknown_run(folder / name, "RUNS")
    return [read_run(folder / name) for name in names]


def section_of(run: Run, player: PlayerContent) -> RunSection:
    """Returns the section of a run."""
    script, curves = curves_of(run)
    return RunSection(
        run=run,
        protocol=protocol_of(run.scores) if run.scores else None,
        settings=flatten(run.config) if run.config else {},
        script=script,
        curves=curves,
        notes=[*run.notes, *player.notes.get(run.name, [])],
    )


def chapter_of(comparison: Comparison, folder: Path, notes: list[str]) -> Chapter:
    """Returns the section of a comparison. Notes its missing figures."""
    over = ": mean and sample standard deviation over seeds" if len(comparison.seeds) > 1 else ""
    figures: dict[str, list[str]] = {}
    for title, paths in figure_paths(comparison).items():
        for path in paths:
            try:
                data = base64.b64encode(read_bytes(folder / path, MAX_FIGURE_BYTES)).decode()
            except Unreadable as error:
                notes.append(f"{error}; {comparison.command} writes it")
            else:
                figures.setdefault(f"{title}{over}", []).append(f"data:image/png;base64,{data}")
    return Chapter(
        comparison.title,
        *table_of_arms(comparison),
        origins=origins(comparison),
        figures=figures,
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


def _submissions(folder: Path, chosen: set[str] | None, notes: list[str]) -> tuple[list[Provenance], list[Submission]]:
    """Returns the csv files, and the uploads of the ledger, of the chosen runs (None: all)."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(Provenance.load(path))
        except UserError as error:
            notes.append(str(error))
    uploads, damaged = Ledger(folder / "ledger.jsonl").readable()
    notes += damaged
    if chosen is None:
        return found, uploads
    return (
        [csv for csv in found if csv.run in chosen],
        [upload for upload in uploads if upload.intent.run in chosen],
    )


def markdown(runs_folder: Path, reports_folder: Path, chosen: list[str]) -> str:
    """Returns tables in Markdown: of the chosen runs, or, if none are chosen, of all runs and all comparisons."""
    text = markdown_runs(_chosen(runs_folder, chosen) if chosen else read_runs(runs_folder))
    notes: list[str] = []
    for comparison in [] if chosen else _comparisons(reports_folder, notes):
        facts = "".join(f"\n* {line}" for line in origins(comparison))
        text += f"\n## {comparison.title}\n\n{markdown_table(*table_of_arms(comparison))}{facts}\n"
    return text + "".join(f"\n{note}\n" for note in notes)


def main() -> None:
    """The command line."""
    options = report_options()
    runs_folder, reports_folder = Path("runs"), Path("reports")
    if options.markdown is not None:
        say(markdown(runs_folder, reports_folder, options.markdown).rstrip())
        return
    with owned(reports_folder / PAGE):
        page = write_report(runs_folder, Path("submissions"), reports_folder, chosen=options.runs, out=options.out)
    say(f"{page}: {page.stat().st_size / 1e6:.1f} MB, needs no other file; open it in a browser")


if __name__ == "__main__":
    run_program(main)
