"""Commands for a Kaggle competition: download the data, submit, show scores, and train on Kaggle's GPU.

    python -m src.kaggle_client download --competition SLUG --folder data/.downloads
    python -m src.kaggle_client submit --run RUN --competition SLUG --message "what is new"
    python -m src.kaggle_client submissions
    python -m src.kaggle_client leaderboard --competition SLUG
    python -m src.kaggle_client kernel --run RUN --competition SLUG --folder kernel

The official client runs as a child process (src/competition/client.py). If a command is interrupted, run it again; it
continues.
"""

import re
import sys
from dataclasses import fields

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from src.base.command_line import Parser, path_option, seconds, whole, with_more
from src.base.console import UserError, run_program, say
from src.base.names import checked_name
from src.competition.client import WaitPolicy
from src.competition.credentials import warn_about_readable_credentials
from src.competition.download import download
from src.competition.errors import competition_page
from src.competition.kernel import train_on_kaggle
from src.competition.ledger import Ledger, Submission
from src.competition.queries import find_team, leaderboard, username
from src.competition.request import SUBMISSIONS, SubmitRequest
from src.competition.submit import refresh, submit

WAIT_OPTIONS = {
    "deadline_s": "limit for waiting for the score",
    "call_timeout_s": "limit for one call to Kaggle",
    "stall_s": "limit for an upload or download without progress",
    "poll_first_s": "first pause between two polls; each pause is longer than the one before",
    "poll_longest_s": "longest pause between two polls",
    "settle_s": "limit for finding an unconfirmed submission in Kaggle's list",
}
LOG_WIDTH = 160  # characters per line of a table that is not printed on a terminal
STATES = {"intent": "unfinished", "accepted": "no score yet", "refused": "refused", "unknown": "unknown"}


def read_slug(text: str) -> str:
    """Returns the competition's slug. `text` is the slug or the URL of one of the competition's pages."""
    slug = re.sub(r"^https://www\.kaggle\.com/(competitions|c)/([^/?#]+).*$", r"\2", text.strip())
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", slug):
        raise UserError(
            f"COMPETITION={text!r} is not a competition's slug; give the last part of its page's address, as in "
            "https://www.kaggle.com/competitions/SLUG"
        )
    return slug


def print_scores(submission: Submission) -> None:
    """Prints the public score and the local score, and the private score and the place if they are known."""
    scored = submission.latest
    local_score = submission.intent.local_score
    public = scored.public_score
    private = scored.private_score
    line = f"{scored.run} [run:{scored.tag}]: public score {_number(public) or 'not shown'}"
    if public is not None and local_score is not None:
        line += f", local score {local_score:.2f} dB, difference {public - local_score:+.2f} dB"
    elif local_score is None:
        line += f" (no local score; to get one, run `make evaluate RUN={scored.run}` before `make submission`)"
    say(line + (f"; private score {_number(private)}" if private is not None else ""))
    if scored.reason:
        say(scored.reason)
    if scored.rank is not None:
        say(f"place {scored.rank} on the public leaderboard, {competition_page(scored.competition, 'leaderboard')}")


def print_submissions(submissions: list[Submission]) -> None:
    """Prints the ledger as a table, oldest submission first."""
    columns = ("date", "competition", "run", "commit", "local", "public", "private", "rank", "message")
    table = Table(*columns, title="scores in dB; dates in UTC")
    for submission in submissions:
        intent = submission.intent
        latest = submission.latest
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


def print_leaderboard(slug: str, team: str | None, num_rows: int, policy: WaitPolicy) -> None:
    """Prints the top of the public leaderboard and the place of `team`. The default team is the user's name."""
    name = team or username(policy)
    places = leaderboard(slug, policy, team=name, num_rows=num_rows)
    found = find_team(name, places) if name else None
    table = Table("place", "team", "score", "date (UTC)", title=f"{slug}, public leaderboard")
    for place in places[:num_rows] + ([found] if found and found.rank > num_rows else []):
        style = "bold" if place == found else None
        table.add_row(str(place.rank), escape(place.team), place.score, place.date, style=style)
    _print_table(table)
    if found and team:
        say(f"our place: {found.rank} ({found.team}, {found.score})")
    elif found:
        say(
            f"a team named {found.team} is at place {found.rank} ({found.score}); "
            "if your team has another name, add ARGS='--team NAME'"
        )
    else:
        say(
            f"our place is not known: no team {name!r} among the first {len(places)}; "
            "add ARGS='--team NAME' with your team's name on the leaderboard"
        )


def main() -> None:
    """The command line."""
    arguments = _parser().parse_args(with_more(sys.argv[1:]))
    chosen = {field.name: getattr(arguments, field.name, None) for field in fields(WaitPolicy)}
    policy = WaitPolicy(**{name: value for name, value in chosen.items() if value is not None})
    if arguments.command == "submissions":
        ledger = Ledger(SUBMISSIONS / "ledger.jsonl")
        problem = refresh(ledger, policy) if arguments.refresh else None
        readable, notes = ledger.readable()
        print_submissions(readable)
        for note in notes:
            say(note)
        if problem:
            raise problem
        return
    slug = read_slug(arguments.competition)
    if "run" in arguments:
        arguments.run = checked_name(arguments.run, "RUN")
    warn_about_readable_credentials()
    if arguments.command == "download":
        say(str(download(slug, arguments.folder, policy)))
    elif arguments.command == "submit":
        request = SubmitRequest(
            arguments.run,
            slug,
            arguments.message,
            again=arguments.again,
            force_stale=arguments.force_stale,
            plain_csv=arguments.plain_csv,
        )
        print_scores(submit(request, policy, team=arguments.team))
    elif arguments.command == "leaderboard":
        print_leaderboard(slug, arguments.team, arguments.rows, policy)
    else:
        user = arguments.user or username(policy)
        if user is None:
            raise UserError("the name of the Kaggle user is not known; give it with --user NAME")
        train_on_kaggle(arguments.run, slug, arguments.folder, user, gpus=arguments.gpus, policy=policy)


def _parser() -> Parser:
    parser = Parser(prog="python -m src.kaggle_client", description="Commands for a Kaggle competition.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("download", "download the competition's zip; the last printed line is its path"),
        ("submit", "upload submissions/RUN.csv once and wait for the score"),
        ("submissions", "print the ledger as a table"),
        ("leaderboard", "print the top of the public leaderboard and our place"),
        ("kernel", "train a run on Kaggle's GPU and bring it back"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name == "submissions":
            command.add_argument("--refresh", action="store_true", help="ask Kaggle for new scores first")
            _add_wait_options(command, "call_timeout_s", "stall_s")
            continue
        command.add_argument(
            "--competition", required=True, metavar="SLUG", help="last part of the competition's address"
        )
        if name in ("submit", "kernel"):
            command.add_argument("--run", required=True)
        if name in ("submit", "leaderboard"):
            command.add_argument("--team", help="our team's name on the leaderboard; shows our place")
    command = commands.choices["download"]
    command.add_argument("--folder", type=path_option, required=True)
    _add_wait_options(command, "stall_s", "poll_first_s", "poll_longest_s")
    command = commands.choices["submit"]
    command.add_argument("--message", default="", help="message shown by Kaggle (default: the run's name)")
    command.add_argument(
        "--force-stale", action="store_true", help="submit although the csv, checkpoint or config has changed"
    )
    command.add_argument("--plain-csv", action="store_true", help="upload the csv itself, not a zip of it")
    command.add_argument("--again", action="store_true", help="submit although Kaggle has, or may have, this csv")
    _add_wait_options(command, *WAIT_OPTIONS)
    command = commands.choices["leaderboard"]
    command.add_argument("--rows", type=whole(1, 2000), default=20, help="places to show (default: %(default)s)")
    _add_wait_options(command, "call_timeout_s")
    command = commands.choices["kernel"]
    command.add_argument("--folder", type=path_option, required=True)
    command.add_argument("--user", help="name of the Kaggle user (default: the client's)")
    command.add_argument("--gpus", type=whole(1, 2), default=1, help="GPUs that train; Kaggle gives up to two T4")
    _add_wait_options(command, *(name for name in WAIT_OPTIONS if name != "deadline_s"))
    return parser


def _add_wait_options(command: Parser, *names: str) -> None:
    group = command.add_argument_group("waiting times, in seconds")
    for name in names:
        option = "--" + name.removesuffix("_s").replace("_", "-")
        text = f"{WAIT_OPTIONS[name]} (default: {getattr(WaitPolicy, name):g})"
        group.add_argument(option, dest=name, type=seconds, metavar="S", help=text)


def _print_table(table: Table) -> None:
    console = Console()
    (console if console.is_terminal else Console(width=LOG_WIDTH)).print(table)


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


if __name__ == "__main__":
    run_program(main)
