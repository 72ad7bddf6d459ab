"""The round trip to Kaggle: its data, our submissions and their scores, the leaderboard, a notebook that trains there.

    python -m src.kaggle_client download --competition SLUG --folder data/.downloads
    python -m src.kaggle_client submit --run RUN --competition SLUG --message "what is new"
    python -m src.kaggle_client submissions
    python -m src.kaggle_client leaderboard --competition SLUG
    python -m src.kaggle_client kernel --run RUN --competition SLUG --folder kernel

The official client does the talking, as a child process (src/competition/client.py). Every command can be interrupted
and run again.
"""

import argparse
import re
import shlex
from dataclasses import fields
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from src.base.console import UserError, run_main, say
from src.competition.client import Patience
from src.competition.download import download
from src.competition.errors import competition_page, warn_of_open_files
from src.competition.kernel import push_kernel, write_kernel
from src.competition.ledger import Ledger, Submission
from src.competition.order import SUBMISSIONS, Wish
from src.competition.queries import leaderboard, place_of, username
from src.competition.submit import refresh, submit

PATIENCE = {
    "deadline_s": "waiting for the score",
    "call_timeout_s": "one question to Kaggle",
    "stall_s": "an upload or download that moves nothing",
    "poll_first_s": "the first pause between two looks; it grows",
    "poll_longest_s": "the longest pause between two looks",
    "settle_s": "looking for a submission that nobody confirmed",
}
LOG_WIDTH = 160  # columns of a table that goes to a file
STATES = {"intent": "unfinished", "accepted": "no score yet", "refused": "not accepted", "unknown": "unknown"}


def read_slug(text: str) -> str:
    """Returns the competition's slug, given as such or as the address of a page of the competition."""
    slug = re.sub(r"^https://www\.kaggle\.com/(competitions|c)/([^/?#]+).*$", r"\2", text.strip())
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", slug):
        raise UserError(
            f"COMPETITION={text!r} is no competition's slug; needed: the last part of its page's address, as in "
            "https://www.kaggle.com/competitions/SLUG"
        )
    return slug


def print_scores(submission: Submission) -> None:
    """Prints the public score beside our own."""
    scored, local_score = submission.latest, submission.intent.local_score
    public, private = scored.public_score, scored.private_score
    line = f"{scored.run} [run:{scored.tag}]: public score {_number(public)}"
    if public is not None and local_score is not None:
        line += f", local score {local_score:.2f} dB, difference {public - local_score:+.2f} dB"
    elif local_score is None:
        line += f" (no local score beside it; `make evaluate RUN={scored.run}` before `make submission` gives one)"
    say(line + (f"; private score {_number(private)}" if private is not None else ""))
    if scored.rank is not None:
        say(f"place {scored.rank} on the public leaderboard, {competition_page(scored.competition, 'leaderboard')}")


def print_submissions(submissions: list[Submission]) -> None:
    """Prints the ledger as a table, the oldest first."""
    columns = ("date", "competition", "run", "commit", "local", "public", "private", "rank", "message")
    table = Table(*columns, title="scores in dB; dates in UTC")
    for submission in submissions:
        intent, latest = submission.intent, submission.latest
        public = _number(latest.public_score) if latest.status == "COMPLETE" else STATES.get(submission.state, "error")
        table.add_row(
            intent.time[:16].replace("T", " "),
            intent.competition,
            intent.run,
            intent.commit or "",
            _number(intent.local_score),
            public,
            _number(latest.private_score),
            str(latest.rank or ""),
            escape(intent.message or ""),
        )
    _print_table(table)


def print_leaderboard(slug: str, team: str | None, num_rows: int, patience: Patience) -> None:
    """Prints the top of the public leaderboard, and the place of `team`, or of a team with the user's own name."""
    named = team or username(patience)
    places = leaderboard(slug, patience, team=named, num_rows=num_rows)
    found = place_of(named, places) if named else None
    table = Table("place", "team", "score", "date (UTC)", title=f"{slug}, public leaderboard")
    for place in places[:num_rows] + ([found] if found and found.rank > num_rows else []):
        style = "bold" if place == found else None
        table.add_row(str(place.rank), escape(place.team), place.score, place.date, style=style)
    _print_table(table)
    if found and team:
        say(f"our place: {found.rank} ({found.team}, {found.score})")
    elif found:
        say(f"a team named {found.team} is at place {found.rank} ({found.score}); ARGS='--team NAME' asks for ours")
    else:
        say(
            f"our place is not known: no team {named!r} among the first {len(places)}; "
            "ARGS='--team NAME' says what the board calls us"
        )


def main() -> None:
    """The command line."""
    arguments = _parser().parse_args()
    chosen = {field.name: getattr(arguments, field.name, None) for field in fields(Patience)}
    patience = Patience(**{name: value for name, value in chosen.items() if value is not None})
    if arguments.command == "submissions":
        ledger = Ledger(SUBMISSIONS / "ledger.jsonl")
        if arguments.refresh:
            refresh(ledger, patience)
        print_submissions(ledger.submissions())
        return
    slug = read_slug(arguments.competition)
    warn_of_open_files()
    if arguments.command == "download":
        say(str(download(slug, arguments.folder, patience)))
    elif arguments.command == "submit":
        wish = Wish(arguments.run, slug, arguments.message, again=arguments.again, force_stale=arguments.force_stale)
        print_scores(submit(wish, patience, team=arguments.team))
    elif arguments.command == "leaderboard":
        print_leaderboard(slug, arguments.team, arguments.rows, patience)
    else:
        user = arguments.user or username(patience)
        if user is None:
            raise UserError("the name of the Kaggle user is not known; --user NAME says whose notebook it will be")
        name = write_kernel(arguments.run, slug, arguments.folder, user)
        client = ".venv/bin/kaggle kernels"
        say(f"{arguments.folder} holds {name}")
        if arguments.push:
            push_kernel(arguments.folder, slug, patience)
        else:
            say(f"push it with: {client} push -p {arguments.folder}")
        say("when it has run, fetch what `make submit` needs, the csv, its provenance, checkpoint and configuration:")
        stem = re.escape(arguments.run)
        pattern = shlex.quote(rf"^(runs/{stem}/(best\.pt|config\.json)|submissions/{stem}\.(csv|json))$")
        say(f"  {client} output {name} --path . --page-size 200 --file-pattern {pattern}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m src.kaggle_client", description="The round trip to Kaggle.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("download", "fetches the competition's zip; prints its path last"),
        ("submit", "uploads submissions/RUN.csv once, waits for the score"),
        ("submissions", "the ledger as a table"),
        ("leaderboard", "the top of the public leaderboard and our place"),
        ("kernel", "writes a folder for `kaggle kernels push`"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name == "submissions":
            command.add_argument("--refresh", action="store_true", help="first ask Kaggle for scores that are new")
            _add_patience(command, "call_timeout_s", "stall_s")
            continue
        command.add_argument(
            "--competition", required=True, metavar="SLUG", help="last part of the competition's address"
        )
        if name in ("submit", "kernel"):
            command.add_argument("--run", required=True)
        if name in ("submit", "leaderboard"):
            command.add_argument("--team", help="our name on the leaderboard, for our place")
    command = commands.choices["download"]
    command.add_argument("--folder", type=Path, required=True)
    _add_patience(command, "stall_s", "poll_first_s", "poll_longest_s")
    command = commands.choices["submit"]
    command.add_argument("--message", default="", help="shown by Kaggle; the run's name if not given")
    command.add_argument("--force-stale", action="store_true", help="submit although csv, checkpoint or config changed")
    command.add_argument("--again", action="store_true", help="submit although Kaggle has, or may have, this very csv")
    _add_patience(command, *PATIENCE)
    command = commands.choices["leaderboard"]
    command.add_argument("--rows", type=int, default=20, help="places to show (%(default)s)")
    _add_patience(command, "call_timeout_s")
    command = commands.choices["kernel"]
    command.add_argument("--folder", type=Path, required=True)
    command.add_argument("--user", help="Kaggle user name; asked from the client if not given")
    command.add_argument("--push", action="store_true", help="push the folder, which starts the run on Kaggle")
    _add_patience(command, "call_timeout_s")
    return parser


def _add_patience(command: argparse.ArgumentParser, *names: str) -> None:
    group = command.add_argument_group("patience, in seconds")
    for name in names:
        option, default = "--" + name.removesuffix("_s").replace("_", "-"), f"{getattr(Patience, name):g}"
        group.add_argument(option, dest=name, type=float, metavar="S", help=f"{PATIENCE[name]} ({default})")


def _print_table(table: Table) -> None:
    console = Console()
    (console if console.is_terminal else Console(width=LOG_WIDTH)).print(table)


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


if __name__ == "__main__":
    run_main(main)
