"""Queries to Kaggle: the submissions left today, our submissions and their scores, the leaderboard, the user's name."""

import csv
import io
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TypeVar

from pydantic import BaseModel, Field, ValidationError

from src.base.console import say
from src.base.names import shortened
from src.base.reading import Unreadable, parse_json, reason_of
from src.competition.client import WaitPolicy, call_client
from src.competition.errors import RUN_AGAIN, KaggleError, KaggleRefusal, KaggleUnavailable, competition_page, redact

PAGE_SIZE = 100  # rows of the leaderboard in one answer
MAX_SHOWN = 200  # characters of an answer that cannot be read
MAX_PLACES = 2000  # of the leaderboard that are read to find a team
TAG = re.compile(r"\[run:([0-9a-f]{12}(?:-\d+)?)\]\s*$")  # every message that this project submits ends like this


@dataclass(frozen=True)
class ListedSubmission:
    """A row of Kaggle's list of submissions. Scores are in dB; None for no score and for a text that is no number.

    odd_score: a score that is no number, as Kaggle shows it.
    """

    ref: str
    message: str
    status: str
    public_score: float | None
    private_score: float | None
    odd_score: str = ""

    @property
    def is_final(self) -> bool:
        """Returns whether the row will not change: it has a score or an error.

        COMPLETE alone is not enough, because Kaggle can show it before the score.
        """
        scored = (self.public_score, self.private_score) != (None, None) or bool(self.odd_score)
        return self.status == "ERROR" or (self.status == "COMPLETE" and scored)

    @property
    def state(self) -> str:
        """Returns its status in words."""
        return "Kaggle shows no score for it" if self.status == "COMPLETE" and not self.is_final else self.status


def number_of(score: str) -> float | None:
    """Returns the finite number that a score's text means, or None if that is not certain.

    "1,234.5", "18,12" and "35.1 dB" are certain. In "31,234" the comma may stand before thousands or decimals.
    """
    text = re.sub(r"\s*dB$", "", score.strip(), flags=re.IGNORECASE)
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+\.\d+", text):
        text = text.replace(",", "")
    elif re.fullmatch(r"[+-]?\d+,(\d{1,2}|\d{4,})", text):
        text = text.replace(",", ".")
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE | re.ASCII):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


class SubmissionRow(BaseModel):
    """A row of the client's list of submissions."""

    ref: str
    description: str
    status: str
    public_score: str = Field(alias="publicScore")
    private_score: str = Field(alias="privateScore")


class PlaceRow(BaseModel):
    """A row of the client's leaderboard."""

    team: str = Field(alias="teamName")
    score: str
    date: str = Field(alias="submissionDate")


class Limits(BaseModel):
    """The client's answer to how many submissions are left. It omits numbers that are 0."""

    num_allowed_now: int = Field(default=0, alias="numAllowedNow")
    num_total: int = Field(default=0, alias="numTotal")
    num_today: int = Field(default=0, alias="numToday")
    limited_by_total: bool = Field(default=False, alias="limitedByTotal")


Row = TypeVar("Row", bound=BaseModel)


@dataclass(frozen=True)
class LeaderboardPlace:
    """A row of the public leaderboard. `rank` counts from 1."""

    rank: int
    team: str
    score: str
    date: str


def list_submissions(slug: str, policy: WaitPolicy) -> dict[str, ListedSubmission]:
    """Returns {tag: row} for all our submissions whose message ends in a tag of this project."""
    text = call_client(
        slug, "competitions", "submissions", slug, "--csv", "--page-size", "100", "--quiet", policy=policy
    )
    listed = {}
    for row in _rows(text, "ref,", "No submissions found", SubmissionRow):
        if tag := TAG.search(row.description):
            status = row.status.removeprefix("SubmissionStatus.")
            message = row.description.strip()
            texts = [text for text in (row.public_score, row.private_score) if text not in ("", "None")]
            odd = shortened(redact(", ".join(text for text in texts if number_of(text) is None)), MAX_SHOWN)
            scores = (number_of(row.public_score), number_of(row.private_score))
            listed[tag[1]] = ListedSubmission(row.ref, message, status, *scores, odd)
    return listed


def check_submissions_left(slug: str, policy: WaitPolicy) -> None:
    """Raises `KaggleRefusal` if no submission is left today. Prints a line if the number is not known."""
    try:
        text = call_client(slug, "competitions", "submission-limits", slug, "--json", "--quiet", policy=policy)
        found = re.search(r"\{.*\}", text, re.DOTALL)
        limits = parse_json(found[0] if found else "", Limits, f"the client's answer {_shortened(text)}")
    except Unreadable as error:
        say(f"it is not known how many submissions to {slug} are left ({error}); continuing, Kaggle checks it")
        return
    except KaggleError as error:
        say(f"it is not known how many submissions to {slug} are left ({error.problem}); continuing, Kaggle checks it")
        return
    left = limits.num_allowed_now
    if left > 0:
        say(f"{left} submissions to {slug} are left today")
        return
    if limits.limited_by_total:
        problem = f"all {limits.num_total} submissions that {slug} allows are used"
        raise KaggleRefusal(problem, f"see {competition_page(slug)}")
    if not limits.num_today:
        fix = f"accept the rules at {competition_page(slug, 'rules')}, or check there whether the competition is closed"
        raise KaggleRefusal(f"{slug} accepts no submission from you", fix)
    midnight = datetime.combine(datetime.now(UTC) + timedelta(days=1), time(), UTC)
    minutes = (midnight - datetime.now(UTC)).seconds // 60
    problem = f"today's {limits.num_today} submissions to {slug} are used"
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
        rows = _rows(text, "teamId,", "No results found", PlaceRow)
        for row in rows:
            places.append(LeaderboardPlace(len(places) + 1, row.team, row.score, row.date))
        following = re.search(r"^Next Page Token = (\S+)", text, re.MULTILINE)
        token = following[1] if following and rows else None  # an empty page would be followed for ever
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


def _rows(text: str, header: str, nothing: str, schema: type[Row]) -> list[Row]:
    """Returns the rows of the csv in `text`, which starts at `header`. Warnings can stand before it.

    `nothing` is what the client prints instead of an empty csv. Raises `KaggleUnavailable` for anything else. A list
    that is cut off must not be taken for a shorter one: a submission that it lacks would be uploaded again.
    """
    first = re.search(rf"^{header}", text, re.MULTILINE)
    if first is None and re.search(rf"^{nothing}\s*\Z", text, re.MULTILINE):
        return []
    try:
        if first is None:
            raise ValueError("no list")
        if not text.endswith("\n"):
            raise ValueError("its last line is cut off")
        names, *rows = csv.reader(io.StringIO(text[first.start() :], newline=""), strict=True)
        if not rows:
            raise ValueError("no rows")
        return [schema.model_validate(dict(zip(names, row, strict=True))) for row in rows]
    except (ValidationError, csv.Error, ValueError) as error:
        reason = reason_of(error) if isinstance(error, ValidationError) else str(error)
        problem = f"the kaggle client printed a list that cannot be read ({reason}): {_shortened(text)}"
        raise KaggleUnavailable(problem, RUN_AGAIN) from None


def _shortened(text: str) -> str:
    """Returns the beginning of what the client has printed, in one line and without secrets."""
    line = " ".join(redact(text).split())
    return repr(line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}...")
