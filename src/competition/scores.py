"""The score of a submission: waits for it and records it in the ledger."""

from src.base.console import UserError, say
from src.base.names import shortened
from src.competition.client import WaitPolicy, poll_rounds
from src.competition.credentials import redact
from src.competition.errors import KaggleError, KaggleRefusal, KaggleUnavailable, competition_page
from src.competition.ledger import Event, Ledger, Submission
from src.competition.queries import MAX_SHOWN, ListedSubmission, find_team, leaderboard, list_submissions
from src.competition.request import SubmitRequest


def record(ledger: Ledger, submission: Submission, kind: str, **fields: object) -> Submission:
    """Appends an event to the ledger and returns the submission's new state."""
    names = {name: getattr(submission.intent, name) for name in ("competition", "run", "tag")}
    ledger.append(Event.model_validate({"event": kind, **names, **fields}))
    return ledger.submission(submission.intent.competition, submission.intent.tag)


def update(ledger: Ledger, submission: Submission, row: ListedSubmission, rank: int | None) -> Submission:
    """Records what is new in a row of Kaggle's list, and returns the submission's new state."""
    latest = submission.latest
    if not row.is_final:
        return submission if submission.ref else record(ledger, submission, "accepted", ref=row.ref)
    page = competition_page(submission.intent.competition, "submissions")
    reason = f"Kaggle shows the score {row.odd_score!r}, which is no number" if row.odd_score else None
    if row.status == "ERROR":
        reason = (
            f"Kaggle could not score it: {shortened(redact(row.error) or 'it does not say why', MAX_SHOWN)}; see {page}"
        )
    found = (row.status, row.public_score, row.private_score, reason)
    if found == (latest.status, latest.public_score, latest.private_score, latest.reason):
        return submission
    scores = {"status": row.status, "public_score": row.public_score, "private_score": row.private_score, "rank": rank}
    return record(ledger, submission, "scored", ref=row.ref, reason=reason, **scores)


def wait_for_score(ledger: Ledger, submission: Submission, policy: WaitPolicy, *, team: str | None) -> Submission:
    """Polls Kaggle until the score is there and returns the scored submission.

    Raises UserError if Kaggle cannot score the csv or if the deadline has passed.
    """
    intent = submission.intent
    reported = ""
    if submission.has_score:
        return submission
    for _ in poll_rounds(policy, policy.deadline_s):
        try:
            row = list_submissions(intent.competition, policy).get(intent.tag)
            state = row.state if row else "not listed yet"
        except KaggleUnavailable as error:
            row = None
            state = error.problem
        except KaggleRefusal as error:
            problem = f"{intent.run} was submitted as [run:{intent.tag}]; its score is not known: {error.problem}"
            raise KaggleRefusal(problem, error.fix) from error
        if row:
            rank = _rank(intent.competition, team, policy) if team and row.is_final else None
            known = ledger.submission(intent.competition, intent.tag)  # another process can have recorded more
            submission = update(ledger, known, row, rank)
        if submission.has_score:
            return submission
        if submission.latest.status == "ERROR":
            raise UserError(
                f"[run:{intent.tag}] {submission.latest.reason}; correct the csv and submit it, or add ARGS=--again"
            )
        if state != reported:
            say(f"[run:{intent.tag}] waiting for the score: {state}")
            reported = state
    page = competition_page(intent.competition, "submissions")
    command = SubmitRequest(intent.run, intent.competition).make_command()
    raise UserError(
        f"{intent.run} was submitted as [run:{intent.tag}] and has no score after {policy.deadline_s:.0f} s "
        f"({reported}); {command} continues to wait and uploads nothing; see {page}"
    )


def _rank(slug: str, team: str, policy: WaitPolicy) -> int | None:
    try:
        place = find_team(team, leaderboard(slug, policy, team=team))
    except KaggleError as error:
        say(f"our place is not known: {error.problem}")
        return None
    return place.rank if place else None
