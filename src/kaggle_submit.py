"""submissions/<run>.csv -> one submission on Kaggle and its score: interrupted anywhere, the same command goes on.

Nobody but Kaggle knows whether an upload whose answer was lost has counted, and a second upload costs one of a few
submissions a day. So: a line in the ledger first, with a tag that is part of the message; one upload; and after
whatever goes wrong the tag is looked up before anything else. Three things prove that an upload did not count: the
client says that the storage refused the file, Kaggle refuses it, or the log shows that the upload never came to its
end, because the client registers the submission after that. Where none of the three holds, nothing is uploaded again
unasked.
"""

import hashlib
import io
import os
import re
import secrets
import zipfile
from dataclasses import dataclass
from pathlib import Path

from src.console import UserError, say
from src.files import file_hash, write_atomically
from src.kaggle_answers import (
    KaggleError,
    KaggleRefusal,
    KaggleSilence,
    Verdict,
    competition_page,
    judge_upload,
    percent_uploaded,
)
from src.kaggle_child import Lock, Patience, Transfer, follow, one_at_a_time, size_of, start, ticks
from src.kaggle_questions import Listed, check_allowance, leaderboard, list_submissions, place_of
from src.ledger import Event, Ledger, Submission

SUBMISSIONS = Path("submissions")
UPLOADS = SUBMISSIONS / ".uploads"  # lock, logs and zips of uploads under way
LONGEST_MESSAGE = 400  # characters; a message cut by the server could lose its tag
ZIP_GAIN = 0.9  # a zip is sent instead of the csv when it is smaller than this part of it


@dataclass(frozen=True)
class Order:
    """What is to be submitted where; all checked."""

    run: str
    competition: str
    message: str
    csv: Path
    csv_sha256: str
    commit: str | None
    local_score: float | None  # dB


def prepare(run: str, competition: str, message: str, *, force_stale: bool) -> Order:
    """Returns the checked order; refuses a csv that is malformed, or that the run would not write today."""
    from src.submission import Provenance, check_submission  # noqa: PLC0415 (loads torch; no other command needs it)

    path, message = SUBMISSIONS / f"{run}.csv", " ".join((message or run).split())
    if len(message) > LONGEST_MESSAGE:
        raise UserError(f"the message has {len(message)} characters; {LONGEST_MESSAGE} are the most")
    if not path.exists():
        raise UserError(f"{path} is missing; `make submission RUN={run}` writes it")
    provenance, checked = Provenance.load(path.with_suffix(".json")), check_submission(path)
    changed = [path] if checked.sha256 != provenance.csv_sha256 else []
    for sha256, names in (
        (provenance.checkpoint_sha256, ("best.pt", "last.pt")),
        (provenance.config_sha256, ("config.json",)),
    ):
        sources = [Path("runs") / run / name for name in names]
        if not any(source.exists() and file_hash(source) == sha256 for source in sources):
            changed.append(sources[0])
    if changed and not force_stale:
        raise UserError(
            f"{', '.join(map(str, changed))}: changed or gone since {path} was written; `make submission RUN={run}` "
            "writes it anew, --force-stale submits it as it is"
        )
    known = path not in changed  # else commit and score are those of another csv
    commit, local_score = (provenance.commit, provenance.local_score) if known else (None, None)
    return Order(run, competition, message, path, checked.sha256, commit, local_score)


def submit(order: Order, patience: Patience, *, again: bool, team: str | None) -> Event:
    """Uploads unless Kaggle has this very csv already, waits for the score, and returns the ledger's line with it."""
    ledger = Ledger(SUBMISSIONS / "ledger.jsonl")
    UPLOADS.mkdir(parents=True, exist_ok=True)
    (UPLOADS / ".gitignore").write_text("*\n")
    with one_at_a_time(UPLOADS / "lock", _sizes_of_logs, patience) as lock:
        for leftover in UPLOADS.glob("*.zip"):
            leftover.unlink()
        submission = _earlier(ledger, order)
        if submission and submission.state in ("intent", "unknown"):
            verdict = _judge(submission.intent.tag, order.competition, None)
            submission = _settle(ledger, submission, verdict, patience)
            if submission.state == "refused":
                say(f"{submission.intent.message} never reached {order.competition}; uploading it now")
            elif submission.state == "unknown" and not again:
                raise _nobody_knows(submission)
            again = submission.state in ("refused", "unknown")  # what has been found is not uploaded again
        elif submission:
            say(f"{order.competition} has this csv since {submission.intent.time}, as {submission.intent.message}")
        if submission is None or again:
            submission = _upload(ledger, order, lock, patience)
    return wait_for_score(ledger, submission, patience, team=team)


def manual_command(order: Order) -> str:
    """Returns the line that submits by hand."""
    quoted = re.sub(r'(["$`\\])', r"\\\1", order.message)
    return f'kaggle competitions submit -c {order.competition} -f {order.csv} -m "{quoted}"'


def _earlier(ledger: Ledger, order: Order) -> Submission | None:
    """Returns the latest submission of this content to this competition that was not refused."""
    key = (order.competition, order.csv_sha256)
    same = [entry for entry in ledger.submissions() if (entry.intent.competition, entry.intent.csv_sha256) == key]
    return next((entry for entry in reversed(same) if entry.state != "refused"), None)


def _upload(ledger: Ledger, order: Order, lock: Lock, patience: Patience) -> Submission:
    """Uploads once; returns the submission that Kaggle has accepted, or raises with the ledger telling why not."""
    try:
        check_allowance(order.competition, patience)
    except KaggleError as error:
        say(f"{order.csv} is ready; by hand:\n  {manual_command(order)}")
        raise type(error)(f"nothing was uploaded: {error.what}", error.mend) from error
    tag = secrets.token_hex(6)
    file, log = _packed(order), _log(tag)
    log.touch()  # before the intent: a log that is missing proves nothing, an empty one proves that nothing was sent
    intent = Event(
        event="intent",
        competition=order.competition,
        run=order.run,
        tag=tag,
        message=f"{order.message} [run:{tag}]",
        csv_sha256=order.csv_sha256,
        commit=order.commit,
        local_score=order.local_score,
    )
    ledger.append(intent)
    arguments = ("competitions", "submit", order.competition, "--file", str(file), f"--message={intent.message}")
    child = start(*arguments, log=log, lock=lock)  # without --quiet: its bar tells how far the upload came
    follow(child, f"uploading {file.name}", Transfer(log, lambda: percent_uploaded(_text(log))), patience)
    lock.name_holder(os.getpid())
    if file != order.csv:
        file.unlink()
    verdict = _judge(tag, order.competition, child.returncode)
    submission = _settle(ledger, ledger.submission(tag), verdict, patience)
    if submission.state == "refused":
        raise UserError(f"nothing was submitted: {verdict.what}; {verdict.mend}")
    if submission.state == "unknown":
        raise _nobody_knows(submission)
    return submission


def _settle(ledger: Ledger, submission: Submission, verdict: Verdict, patience: Patience) -> Submission:
    """Returns the submission as accepted, refused, or unknown if nobody can tell; without proof it is looked up."""
    if verdict.outcome == "accepted":
        return _record(ledger, submission, "accepted")
    patient = verdict.outcome == "unclear" and submission.state == "intent"
    row, looked = None, "Kaggle does not list it"
    try:
        row = _look_up(submission.intent, patience.settle_s if patient else 0.0, patience)
    except KaggleError as error:
        looked = f"its list cannot be read: {error.what}"
    if row:
        return _record(ledger, submission, "accepted", ref=row.ref)
    if verdict.outcome == "refused":
        return _record(ledger, submission, "refused", reason=verdict.what)
    return _record(ledger, submission, "unknown", reason=f"{verdict.what}; {looked}")


def _nobody_knows(submission: Submission) -> UserError:
    page = competition_page(submission.intent.competition, "submissions")
    return UserError(
        f"unknown whether Kaggle has [run:{submission.intent.tag}]: its answer was lost ({submission.latest.reason}); "
        f"the same command looks again and uploads nothing; if {page} does not show it either, --again uploads it again"
    )


def wait_for_score(ledger: Ledger, submission: Submission, patience: Patience, *, team: str | None) -> Event:
    """Asks until the score is there and returns the line of the ledger; a scoring error or the deadline raises."""
    intent, said = submission.intent, ""
    if submission.latest.status == "COMPLETE":
        return submission.latest
    for _ in ticks(patience, patience.deadline_s):
        try:
            row = list_submissions(intent.competition, patience).get(intent.tag)
            state = row.status if row else "not listed yet"
        except KaggleSilence as error:
            row, state = None, error.what
        except KaggleRefusal as error:
            what = f"{intent.run} was submitted as [run:{intent.tag}]; its score is not known: {error.what}"
            raise KaggleRefusal(what, error.mend) from error
        if row:
            rank = _rank(intent.competition, team, patience) if team and row.status == "COMPLETE" else None
            submission = _update(ledger, ledger.submission(intent.tag), row, rank)  # another submit may wait as well
        if submission.latest.status == "COMPLETE":
            return submission.latest
        if submission.latest.status == "ERROR":
            raise UserError(
                f"[run:{intent.tag}] {submission.latest.reason}; mend the csv and submit that, or add --again"
            )
        if state != said:
            say(f"[run:{intent.tag}] waiting for the score: {state}")
            said = state
    page = competition_page(intent.competition, "submissions")
    raise UserError(
        f"{intent.run} was submitted as [run:{intent.tag}] and has no score after {patience.deadline_s:.0f} s "
        f"({said}); the same command goes on waiting and uploads nothing; see {page}"
    )


def refresh(ledger: Ledger, patience: Patience) -> None:
    """Brings the ledger up to date with what Kaggle lists: late submissions, scores, private scores after the end."""
    submissions = ledger.submissions()
    for slug in dict.fromkeys(submission.intent.competition for submission in submissions):
        listed = list_submissions(slug, patience)
        for submission in submissions:
            if submission.intent.competition == slug and submission.intent.tag in listed:
                _update(ledger, submission, listed[submission.intent.tag], submission.latest.rank)


def _update(ledger: Ledger, submission: Submission, row: Listed, rank: int | None) -> Submission:
    """Records what a row of Kaggle's list adds to what the ledger knows."""
    latest = submission.latest
    if row.status not in ("COMPLETE", "ERROR"):
        return submission if submission.ref else _record(ledger, submission, "accepted", ref=row.ref)
    if (latest.status, latest.public_score, latest.private_score) == (row.status, row.public_score, row.private_score):
        return submission
    page = competition_page(submission.intent.competition, "submissions")
    reason = f"Kaggle could not score it, {page} shows why" if row.status == "ERROR" else None
    scores = {"status": row.status, "public_score": row.public_score, "private_score": row.private_score, "rank": rank}
    return _record(ledger, submission, "scored", ref=row.ref, reason=reason, **scores)


def _rank(slug: str, team: str, patience: Patience) -> int | None:
    try:
        place = place_of(team, leaderboard(slug, patience, team=team))
    except KaggleError as error:
        say(f"our place is not known: {error.what}")
        return None
    return place.rank if place else None


def _record(ledger: Ledger, submission: Submission, kind: str, **fields: object) -> Submission:
    """Appends an event to the ledger and returns what the submission is now."""
    names = {name: getattr(submission.intent, name) for name in ("competition", "run", "tag")}
    ledger.append(Event.model_validate({"event": kind, **names, **fields}))
    if kind in ("accepted", "refused"):
        _log(submission.intent.tag).unlink(missing_ok=True)
    return ledger.submission(submission.intent.tag)


def _judge(tag: str, slug: str, exit_code: int | None) -> Verdict:
    log = _log(tag)
    return judge_upload(_text(log), exit_code, slug) if log.exists() else Verdict("unclear", "its log is not here")


def _look_up(intent: Event, total_s: float, patience: Patience) -> Listed | None:
    """Looks for the tag for `total_s` seconds; raises only if not one look was answered."""
    answered, silence = False, None
    for _ in ticks(patience, total_s):
        try:
            row = list_submissions(intent.competition, patience).get(intent.tag)
        except KaggleSilence as error:
            silence = error
            continue
        if row:
            return row
        answered = True
    if silence and not answered:
        raise silence
    return None


def _packed(order: Order) -> Path:
    """Returns the file to upload: a zip of the csv, the same bytes each time, or the csv where a zip is no gain."""
    content = order.csv.read_bytes()
    if hashlib.sha256(content).hexdigest() != order.csv_sha256:
        raise UserError(f"{order.csv} was changed while it was being submitted; run the same command again")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(order.csv.name, date_time=(1980, 1, 1, 0, 0, 0))
        archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=6)
    if len(buffer.getvalue()) > ZIP_GAIN * len(content):
        return order.csv
    path = UPLOADS / f"{order.run}.zip"
    write_atomically(path, buffer.getvalue())
    return path


def _log(tag: str) -> Path:
    return UPLOADS / f"{tag}.log"


def _text(log: Path) -> str:
    return log.read_bytes().decode(errors="replace")  # as it is: a bar that goes on ends in \r, one that is done in \n


def _sizes_of_logs() -> list[tuple[str, int]]:
    return [(path.name, size_of(path)) for path in sorted(UPLOADS.glob("*.log"))]
