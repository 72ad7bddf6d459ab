"""Queries to Kaggle: the submissions left today, our submissions and their scores, the leaderboard, the user's name."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, Field

from src.base.console import say
from src.base.names import shortened
from src.base.reading import Unreadable, parse_json
from src.competition.answers import Answer
from src.competition.client import WaitPolicy, ask_client, call_client
from src.competition.credentials import redact
from src.competition.errors import (
    RUN_AGAIN,
    KaggleError,
    KaggleRefusal,
    KaggleUnavailable,
    code_competition,
    competition_page,
)

PAGE_SIZE = 100  # rows that are asked for in one answer
SMALLEST_PAGE = 20  # rows of a page of submissions: a page with fewer is the last one
MAX_PAGES = 200  # of the list of submissions
MAX_SHOWN = 200  # characters of a score that is no number, and of a reason
MAX_PLACES = 2000  # of the leaderboard that are read to find a team
TAG = re.compile(r"^\s*\[run:([0-9a-f]{12}(?:-\d+)?)\]|\[run:([0-9a-f]{12}(?:-\d+)?)\]\s*$")  # older messages end in it


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


def _text_of(value: object) -> str:
    return "" if value is None else str(value)


Text = Annotated[str, BeforeValidator(_text_of)]  # any value is shown as it is; Kaggle leaves out what is empty


class ListedSubmission(BaseModel):
    """A row of Kaggle's list of submissions."""

    ref: Text = ""
    message: Text = Field("", alias="description")
    date: Text = ""
    stated: Text = Field("PENDING", alias="status")
    public_text: Text = Field("", alias="publicScore")
    private_text: Text = Field("", alias="privateScore")
    error: Text = Field("", alias="errorDescription")

    @property
    def status(self) -> str:
        """Returns PENDING, COMPLETE, ERROR, or what else Kaggle says."""
        return self.stated.upper().removeprefix("SUBMISSION_STATUS_")

    @property
    def tag(self) -> str | None:
        """Returns the tag in its message, if this project has submitted it."""
        found = TAG.search(self.message)
        return found and (found[1] or found[2])

    @property
    def public_score(self) -> float | None:
        """Returns the public score in dB; None for no score and for a text that is no number."""
        return number_of(self.public_text)

    @property
    def private_score(self) -> float | None:
        """Returns the private score in dB, as `public_score`."""
        return number_of(self.private_text)

    @property
    def odd_score(self) -> str:
        """Returns the scores that are no numbers, as Kaggle shows them."""
        texts = [text for text in (self.public_text, self.private_text) if text.strip() not in ("", "None")]
        return shortened(redact(", ".join(text for text in texts if number_of(text) is None)), MAX_SHOWN)

    @property
    def is_final(self) -> bool:
        """Returns whether the row will not change: it has a score or an error.

        COMPLETE alone is not enough, because Kaggle can show it before the score.
        """
        scored = (self.public_score, self.private_score) != (None, None) or bool(self.odd_score)
        return self.status == "ERROR" or (self.status != "PENDING" and scored)

    @property
    def state(self) -> str:
        """Returns its status in words."""
        return "Kaggle shows no score for it" if self.status == "COMPLETE" and not self.is_final else self.status


class SubmissionPage(BaseModel):
    """A page of the list of submissions."""

    submissions: list[ListedSubmission] | None = None
    next_token: str | None = Field(None, alias="nextPageToken")


class PlaceRow(BaseModel):
    """A row of the leaderboard."""

    team: Text = Field("", alias="teamName")
    score: Text = ""
    date: Text = Field("", alias="submissionDate")


class PlacePage(BaseModel):
    """A page of the leaderboard."""

    submissions: list[PlaceRow] | None = None
    next_token: str | None = Field(None, alias="nextPageToken")


class Limits(BaseModel):
    """How many submissions are left. `num_allowed_now` is None if Kaggle does not say it."""

    num_allowed_now: int | None = Field(None, alias="numAllowedNow")
    num_total: int = Field(0, alias="numTotal")
    num_today: int = Field(0, alias="numToday")
    limited_by_total: bool = Field(False, alias="limitedByTotal")


class CompetitionRow(BaseModel):
    """A competition that Kaggle's search has found."""

    ref: Text = ""  # its address
    notebooks_only: bool = Field(False, alias="isKernelsSubmissionsOnly")


class CompetitionPage(BaseModel):
    """The competitions that Kaggle's search has found."""

    competitions: list[CompetitionRow] | None = None


Page = TypeVar("Page", bound=BaseModel)


@dataclass(frozen=True)
class LeaderboardPlace:
    """A row of the public leaderboard. `rank` counts from 1."""

    rank: int
    team: str
    score: str
    date: str


def list_submissions(slug: str, policy: WaitPolicy) -> dict[str, ListedSubmission]:
    """Returns {tag: row} for all our submissions whose message has a tag of this project, the newest first.

    Raises `KaggleUnavailable` for a list that cannot be read to its end: what a shorter list lacks would be uploaded
    again.
    """
    rows: dict[tuple[str, str, str], ListedSubmission] = {}
    where: tuple[str, ...] = ()
    for number in range(1, MAX_PAGES + 1):
        words = ("competitions", "submissions", slug, "--page-size", str(PAGE_SIZE), "--quiet", *where)
        page = _read(ask_client("ListSubmissions", slug, *words, policy=policy), SubmissionPage)
        found = {(row.ref, row.message, row.date): row for row in page.submissions or []}
        is_new = not found.keys() <= rows.keys()
        rows |= found
        if not is_new or (not page.next_token and len(found) < SMALLEST_PAGE):
            return {row.tag: row for row in rows.values() if row.tag}
        where = ("--page-token", page.next_token) if page.next_token else (f"--page={number + 1}",)
    raise KaggleUnavailable(f"the list of submissions to {slug} does not end", RUN_AGAIN)


def refuse_code_competition(slug: str, policy: WaitPolicy) -> None:
    """Raises `KaggleRefusal` if the competition takes no csv. If Kaggle does not say it, the upload will tell."""
    try:
        answer = ask_client("ListCompetitions", slug, "competitions", "list", "--search", slug, "--csv", policy=policy)
        found = _read(answer, CompetitionPage).competitions or []
    except KaggleError:
        return
    if any(each.notebooks_only and each.ref.rstrip("/").rpartition("/")[2] == slug for each in found):
        raise code_competition(slug)


def check_submissions_left(slug: str, policy: WaitPolicy) -> None:
    """Raises `KaggleRefusal` if no submission is left today. Prints a line if the number is not known."""
    words = ("competitions", "submission-limits", slug, "--json", "--quiet")
    try:
        limits = _read(ask_client("GetSubmissionLimits", slug, *words, policy=policy), Limits)
        if limits.num_allowed_now is None:
            raise KaggleUnavailable("Kaggle does not say it", RUN_AGAIN)
    except KaggleError as error:
        say(f"it is not known how many submissions to {slug} are left ({error.problem}); continuing, Kaggle checks it")
        return
    if limits.num_allowed_now > 0:
        say(f"{limits.num_allowed_now} submissions to {slug} are left today")
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
    command = ("competitions", "leaderboard", slug, "--show", "--page-size", str(PAGE_SIZE), "--quiet")
    places: list[LeaderboardPlace] = []
    token: str | None = ""
    while token is not None and len(places) < MAX_PLACES:
        more = ("--page-token", token) if token else ()
        page = _read(ask_client("GetLeaderboard", slug, *command, *more, policy=policy), PlacePage)
        rows = page.submissions or []
        places += [
            LeaderboardPlace(number, row.team, row.score, row.date)
            for number, row in enumerate(rows, start=len(places) + 1)
        ]
        token = (page.next_token or None) if rows else None  # an empty page would be followed for ever
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


def _read(answer: Answer, schema: type[Page]) -> Page:
    """Returns an answer in the shape that is needed; `KaggleUnavailable`, with Kaggle's words, if it has another."""
    try:
        return parse_json(answer.body, schema, f"Kaggle's answer {shortened(answer.words, MAX_SHOWN)!r}")
    except Unreadable as error:
        raise KaggleUnavailable(str(error), RUN_AGAIN) from None
