"""What became of a submission: its score, asked for until it is there, and kept in the ledger."""

from src.base.console import UserError, say
from src.competition.client import Patience, ticks
from src.competition.errors import KaggleError, KaggleRefusal, KaggleSilence, competition_page
from src.competition.ledger import Event, Ledger, Submission
from src.competition.queries import Listed, leaderboard, list_submissions, place_of


def record(ledger: Ledger, submission: Submission, kind: str, **fields: object) -> Submission:
    """Appends an event to the ledger and returns what the submission is now."""
    names = {name: getattr(submission.intent, name) for name in ("competition", "run", "tag")}
    ledger.append(Event.model_validate({"event": kind, **names, **fields}))
    return ledger.submission(submission.intent.competition, submission.intent.tag)


def update(ledger: Ledger, submission: Submission, row: Listed, rank: int | None) -> Submission:
    """Records what a row of Kaggle's list adds to what the ledger knows."""
    latest = submission.latest
    if not row.is_final:
        return submission if submission.ref else record(ledger, submission, "accepted", ref=row.ref)
    if (latest.status, latest.public_score, latest.private_score) == (row.status, row.public_score, row.private_score):
        return submission
    page = competition_page(submission.intent.competition, "submissions")
    reason = f"Kaggle could not score it, {page} shows why" if row.status == "ERROR" else None
    scores = {"status": row.status, "public_score": row.public_score, "private_score": row.private_score, "rank": rank}
    return record(ledger, submission, "scored", ref=row.ref, reason=reason, **scores)


def wait_for_score(ledger: Ledger, submission: Submission, patience: Patience, *, team: str | None) -> Submission:
    """Asks until the score is there and returns the scored submission; a scoring error or the deadline raises."""
    intent, said = submission.intent, ""
    if submission.has_score:
        return submission
    for _ in ticks(patience, patience.deadline_s):
        try:
            row = list_submissions(intent.competition, patience).get(intent.tag)
            state = row.state if row else "not listed yet"
        except KaggleSilence as error:
            row, state = None, error.what
        except KaggleRefusal as error:
            what = f"{intent.run} was submitted as [run:{intent.tag}]; its score is not known: {error.what}"
            raise KaggleRefusal(what, error.mend) from error
        if row:
            rank = _rank(intent.competition, team, patience) if team and row.is_final else None
            known = ledger.submission(intent.competition, intent.tag)  # another submit may wait as well
            submission = update(ledger, known, row, rank)
        if submission.has_score:
            return submission
        if submission.latest.status == "ERROR":
            raise UserError(
                f"[run:{intent.tag}] {submission.latest.reason}; mend the csv and submit that, or add ARGS=--again"
            )
        if state != said:
            say(f"[run:{intent.tag}] waiting for the score: {state}")
            said = state
    page = competition_page(intent.competition, "submissions")
    raise UserError(
        f"{intent.run} was submitted as [run:{intent.tag}] and has no score after {patience.deadline_s:.0f} s "
        f"({said}); the same command goes on waiting and uploads nothing; see {page}"
    )


def _rank(slug: str, team: str, patience: Patience) -> int | None:
    try:
        place = place_of(team, leaderboard(slug, patience, team=team))
    except KaggleError as error:
        say(f"our place is not known: {error.what}")
        return None
    return place.rank if place else None
