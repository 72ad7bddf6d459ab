"""Queries to Kaggle: the submissions left today, our submissions and their scores, the leaderboard, the user's name."""

import csv
import io
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from src.base.console import say
from src.competition.client import WaitPolicy, call_client
from src.competition.errors import RUN_AGAIN, KaggleError, KaggleRefusal, KaggleUnavailable, competition_page

PAGE_SIZE = 100  # rows of the leaderboard in one answer
MAX_PLACES = 2000  # of the leaderboard that are read to find a team
TAG = re.compile(r"\[run:([0-9a-f]{12}(?:-\d+)?)\]\s*$")  # every message that this project submits ends like this


@dataclass(frozen=True)
class ListedSubmission:
    """A row of Kaggle's list of submissions. Scores are in dB, or None as long as there is no score."""

    ref: str
    message: str
    status: str
    public_score: float | None
    private_score: float | None

    @property
    def is_final(self) -> bool:
        """Returns whether the row will not change: it has a score or an error.

        COMPLETE alone is not enough, because Kaggle can show it before the score.
        """
        return self.status == "ERROR" or (
            self.status == "COMPLETE" and (self.public_score, self.private_score) != (None, None)
        )

    @property
    def state(self) -> str:
        """Returns its status in words."""
        return "Kaggle shows no score for it" if self.status == "COMPLETE" and not self.is_final else self.status


@dataclass(frozen=True)
class LeaderboardPlace:
    """A row of the public leaderboard. `rank` counts from 1."""

    rank: int
    team: str
    score: str
    date: str


def list_submissions(slug: str, policy: WaitPolicy) -> dict[str, ListedSubmission]:
    """Returns {tag: row} for those of the newest 100 submissions whose message ends in a tag of this project."""
    text = call_client(
        slug, "competitions", "submissions", slug, "--csv", "--page-size", "100", "--quiet", policy=policy
    )
    listed = {}
    for row in _rows(text, "ref,", "No submissions found"):
        if tag := TAG.search(row["description"]):
            status = row["status"].removeprefix("SubmissionStatus.")
            message = row["description"].strip()
            public_score = _score(row["publicScore"])
            private_score = _score(row["privateScore"])
            listed[tag[1]] = ListedSubmission(row["ref"], message, status, public_score, private_score)
    return listed


def check_submissions_left(slug: str, policy: WaitPolicy) -> None:
    """Raises `KaggleRefusal` if no submission is left today. Prints a line if the number is not known."""
    try:
        text = call_client(slug, "competitions", "submission-limits", slug, "--json", "--quiet", policy=policy)
        found = re.search(r"\{.*\}", text, re.DOTALL)
        if not found:
            raise KaggleUnavailable("the kaggle client printed no number", RUN_AGAIN)
    except KaggleError as error:
        say(f"it is not known how many submissions to {slug} are left ({error.problem}); continuing, Kaggle checks it")
        return
    limits = json.loads(found[0])
    left = limits.get("numAllowedNow", 0)  # the client omits numbers that are 0
    if left > 0:
        say(f"{left} submissions to {slug} are left today")
        return
    if limits.get("limitedByTotal"):
        problem = f"all {limits.get('numTotal', 0)} submissions that {slug} allows are used"
        raise KaggleRefusal(problem, f"see {competition_page(slug)}")
    if not limits.get("numToday"):
        fix = f"accept the rules at {competition_page(slug, 'rules')}, or check there whether the competition is closed"
        raise KaggleRefusal(f"{slug} accepts no submission from you", fix)
    midnight = datetime.combine(datetime.now(UTC) + timedelta(days=1), time(), UTC)
    minutes = (midnight - datetime.now(UTC)).seconds // 60
    problem = f"today's {limits['numToday']} submissions to {slug} are used"
    raise KaggleRefusal(problem, f"{RUN_AGAIN} after 00:00 UTC, in {minutes // 60} h {minutes % 60} min")


def leaderboard(
    slug: str, policy: WaitPolicy, *, team: str | None = None, num_rows: int = 20
) -> list[LeaderboardPlace]:
    """Returns at least the first `num_rows` places of the public leaderboard.

    If `team` is named, it reads on until it finds the team, at most `MAX_PLACES` places.
    """
    command = ("competitions", "leaderboard", slug, "--show", "--csv", "--page-size", str(PAGE_SIZE), "--quiet")
    places: list[LeaderboardPlace] = []
    token: str | None = ""
    while token is not None and len(places) < MAX_PLACES:
        text = call_client(slug, *command, *(("--page-token", token) if token else ()), policy=policy)
        for row in _rows(text, "teamId,", "No results found"):
            places.append(LeaderboardPlace(len(places) + 1, row["teamName"], row["score"], row["submissionDate"]))
        following = re.search(r"^Next Page Token = (\S+)", text, re.MULTILINE)
        token = following[1] if following else None
        if len(places) >= num_rows and (team is None or find_team(team, places)):
            break
        if token:
            say(f"{len(places)} places of the leaderboard read")
    return places


def find_team(team: str, places: list[LeaderboardPlace]) -> LeaderboardPlace | None:
    """Returns the place of the team with that name, ignoring upper and lower case, or None."""
    return next((place for place in places if place.team.casefold() == team.casefold()), None)


def username(policy: WaitPolicy) -> str | None:
    """Returns the name of the user whose credentials the client uses, or None if the client does not know it."""
    found = re.search(r"^- username: (\S+)", call_client("", "config", "view", policy=policy), re.MULTILINE)
    return found[1] if found and found[1] != "None" else None


def _rows(text: str, header: str, nothing: str) -> list[dict[str, str]]:
    """Returns the rows of the csv in `text`, which starts at `header`. Warnings can stand before it.

    `nothing` is what the client prints instead of an empty csv.
    """
    first = text.find(header)
    if first < 0 and nothing not in text:
        raise KaggleUnavailable("the kaggle client printed no list that can be read", RUN_AGAIN)
    return list(csv.DictReader(io.StringIO(text[first:], newline=""))) if first >= 0 else []


def _score(text: str) -> float | None:
    return float(text) if text not in ("", "None") else None
