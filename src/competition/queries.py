"""What Kaggle can be asked: how many submissions are left, how ours fare, who stands where, who we are."""

import csv
import io
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from src.base.console import say
from src.competition.client import Patience, ask
from src.competition.errors import AGAIN, KaggleError, KaggleRefusal, KaggleSilence, competition_page

PAGE_SIZE = 100
PLACES_READ = 2000  # of the leaderboard, in search of a team
TAG = re.compile(r"\[run:([0-9a-f]{12}(?:-\d+)?)\]\s*$")  # the end of a message of ours


@dataclass(frozen=True)
class Listed:
    """A row of Kaggle's list of submissions; scores in dB, None until there are any."""

    ref: str
    message: str
    status: str
    public_score: float | None
    private_score: float | None

    @property
    def is_final(self) -> bool:
        """Returns whether it has a score or never will have one; Kaggle can show COMPLETE before the score."""
        return self.status == "ERROR" or (
            self.status == "COMPLETE" and (self.public_score, self.private_score) != (None, None)
        )

    @property
    def state(self) -> str:
        """Returns its status in words."""
        return "Kaggle shows no score for it" if self.status == "COMPLETE" and not self.is_final else self.status


@dataclass(frozen=True)
class Place:
    """A row of the public leaderboard; `rank` counts from 1."""

    rank: int
    team: str
    score: str
    date: str


def list_submissions(slug: str, patience: Patience) -> dict[str, Listed]:
    """Returns {tag: row} for those of the newest hundred submissions whose message ends in a tag of ours."""
    text = ask(slug, "competitions", "submissions", slug, "--csv", "--page-size", "100", "--quiet", patience=patience)
    listed = {}
    for row in _rows(text, "ref,", "No submissions found"):
        if tag := TAG.search(row["description"]):
            status = row["status"].removeprefix("SubmissionStatus.")
            scores = _score(row["publicScore"]), _score(row["privateScore"])
            listed[tag[1]] = Listed(row["ref"], row["description"].strip(), status, *scores)
    return listed


def check_allowance(slug: str, patience: Patience) -> None:
    """Raises `KaggleRefusal` where no submission is left today; says so where that is not known."""
    try:
        text = ask(slug, "competitions", "submission-limits", slug, "--json", "--quiet", patience=patience)
        found = re.search(r"\{.*\}", text, re.DOTALL)
        if not found:
            raise KaggleSilence("the kaggle client printed no number", AGAIN)
    except KaggleError as error:
        say(f"how many submissions to {slug} are left is not known ({error.what}); going on, for Kaggle counts them")
        return
    limits = json.loads(found[0])
    left = limits.get("numAllowedNow", 0)  # the client leaves out numbers that are 0
    if left > 0:
        say(f"{left} submissions to {slug} are left today")
        return
    if limits.get("limitedByTotal"):
        what = f"all {limits.get('numTotal', 0)} submissions that {slug} allows are used"
        raise KaggleRefusal(what, f"see {competition_page(slug)}")
    if not limits.get("numToday"):
        mend = f"accept the rules at {competition_page(slug, 'rules')}, unless it is closed"
        raise KaggleRefusal(f"{slug} takes no submission from you", mend)
    minutes = (datetime.combine(datetime.now(UTC) + timedelta(days=1), time(), UTC) - datetime.now(UTC)).seconds // 60
    what = f"today's {limits['numToday']} submissions to {slug} are used"
    raise KaggleRefusal(what, f"{AGAIN} after 00:00 UTC, in {minutes // 60} h {minutes % 60} min")


def leaderboard(slug: str, patience: Patience, *, team: str | None = None, num_rows: int = 20) -> list[Place]:
    """Returns the first `num_rows` places of the public leaderboard, and on to the place of `team` if one is named."""
    command = ("competitions", "leaderboard", slug, "--show", "--csv", "--page-size", str(PAGE_SIZE), "--quiet")
    places: list[Place] = []
    token: str | None = ""
    while token is not None and len(places) < PLACES_READ:
        text = ask(slug, *command, *(("--page-token", token) if token else ()), patience=patience)
        for row in _rows(text, "teamId,", "No results found"):
            places.append(Place(len(places) + 1, row["teamName"], row["score"], row["submissionDate"]))
        following = re.search(r"^Next Page Token = (\S+)", text, re.MULTILINE)
        token = following[1] if following else None
        if len(places) >= num_rows and (team is None or place_of(team, places)):
            break
        if token:
            say(f"{len(places)} places of the leaderboard read")
    return places


def place_of(team: str, places: list[Place]) -> Place | None:
    """Returns the place of the team of that name, small and capital letters being the same."""
    return next((place for place in places if place.team.casefold() == team.casefold()), None)


def username(patience: Patience) -> str | None:
    """Returns the name of the user whose credentials the client uses, or None where it does not know."""
    found = re.search(r"^- username: (\S+)", ask("", "config", "view", patience=patience), re.MULTILINE)
    return found[1] if found and found[1] != "None" else None


def _rows(text: str, header: str, nothing: str) -> list[dict[str, str]]:
    """Returns the rows of the csv in `text`, which begins at `header`, for warnings may come first."""
    first = text.find(header)
    if first < 0 and nothing not in text:
        raise KaggleSilence("the kaggle client printed no list that can be read", AGAIN)
    return list(csv.DictReader(io.StringIO(text[first:], newline=""))) if first >= 0 else []


def _score(text: str) -> float | None:
    return float(text) if text not in ("", "None") else None
