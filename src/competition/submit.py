"""submissions/<run>.csv -> one submission on Kaggle and its score. If interrupted, run the same command again.

A competition allows only a few submissions a day, so no csv must be uploaded twice by mistake. If the answer to an
upload is lost, only Kaggle knows whether the upload has counted. Therefore `submit` works in three steps:

1. It reads Kaggle's list of submissions.
2. It writes an `intent` line to the ledger, with a tag. The tag is computed from the csv's content and is part of the
   message, so Kaggle's list shows on every machine whether this content is submitted.
3. It uploads once. The client's calls and Kaggle's answers are recorded in submissions/.uploads/<slug>.<tag>.calls.

Two things prove that an upload did not count: the record lacks the call that submits, or Kaggle has refused this call.
Without a proof, nothing is uploaded again unless the user asks for it with `--again`. The record of an accepted
submission stays: if the ledger is lost, it tells what this folder has submitted.

Two machines that submit the same csv at the same moment can both upload it, because neither sees the other's yet.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.base.console import UserError, say
from src.base.files import file_hash
from src.base.reading import read_bytes
from src.competition.client import (
    Lock,
    Transfer,
    WaitPolicy,
    exclusive_lock,
    follow_transfer,
    poll_rounds,
    size_of,
    start_transfer,
)
from src.competition.errors import (
    KaggleError,
    KaggleRefusal,
    KaggleUnavailable,
    Verdict,
    competition_page,
    judge_upload,
    percent_uploaded,
)
from src.competition.ledger import Event, Ledger, Submission
from src.competition.queries import (
    ListedSubmission,
    check_submissions_left,
    list_submissions,
    refuse_code_competition,
)
from src.competition.request import (
    SUBMISSIONS,
    UPLOADS,
    PreparedSubmission,
    SubmitRequest,
    file_to_upload,
    prepare,
)
from src.competition.scores import record, update, wait_for_score


def submit(request: SubmitRequest, policy: WaitPolicy, *, team: str | None) -> Submission:
    """Uploads the csv unless Kaggle has it already, waits for the score, and returns the scored submission."""
    ledger = Ledger(SUBMISSIONS / "ledger.jsonl")
    if not request.csv.exists():
        raise UserError(f"{request.csv} is missing; `make submission RUN={request.run}` writes it")
    sha256 = file_hash(request.csv)
    with _submit_lock(policy) as lock:
        for leftover in UPLOADS.glob("*.zip"):
            leftover.unlink()
        known = _latest_submission(ledger, request.competition, sha256)
        prepared = None if known and not request.again else prepare(request)
        if prepared and _restore(ledger, prepared, _recorded_tags(prepared)):
            known = _latest_submission(ledger, request.competition, sha256)
        found = known
        listed: dict[str, ListedSubmission] = {}
        if prepared or (known and known.is_open):
            listed = _check_kaggle_list(ledger, request, known, prepared, policy)
            found = _latest_submission(ledger, request.competition, sha256)
        if found is None or (request.again and (found.is_open or (known and not known.is_open))):
            prepared = prepared or prepare(request)
            tag = _next_tag(ledger, prepared, listed)
            found = _upload(ledger, prepared, tag, lock, policy, plain_csv=request.plain_csv)
        elif found.is_open:
            raise _unknown_error(found)
        else:  # also with --again, if the submission was found only now
            say(f"{request.competition} has this csv since {found.intent.time}, as {found.intent.message}")
    return wait_for_score(ledger, found, policy, team=team)


def refresh(ledger: Ledger, policy: WaitPolicy) -> KaggleError | None:
    """Updates the ledger from Kaggle's list: late submissions, scores, and private scores after the competition.

    Returns an error if no list could be read.
    """
    problem = None
    any_read = False
    with _submit_lock(policy):
        for slug in dict.fromkeys(entry.intent.competition for entry in ledger.submissions()):
            try:
                listed = list_submissions(slug, policy)
            except KaggleError as error:
                say(f"{slug}: not updated, because its list cannot be read: {error}")
                problem = type(error)(f"nothing was updated: {error.problem}", error.fix)
                continue
            any_read = True
            _update_from_list(ledger, slug, listed)
    return None if any_read else problem


@contextmanager
def _submit_lock(policy: WaitPolicy) -> Iterator[Lock]:
    UPLOADS.mkdir(parents=True, exist_ok=True)
    (UPLOADS / ".gitignore").write_text("*\n")
    with exclusive_lock(UPLOADS / "lock", _record_sizes, policy) as lock:
        yield lock


def _latest_submission(ledger: Ledger, competition: str, sha256: str) -> Submission | None:
    """Returns the latest submission of this content to this competition that was not refused, or None."""
    key = (competition, sha256)
    same = [entry for entry in ledger.submissions() if (entry.intent.competition, entry.intent.csv_sha256) == key]
    return next((entry for entry in reversed(same) if entry.state != "refused"), None)


def _check_kaggle_list(
    ledger: Ledger,
    request: SubmitRequest,
    known: Submission | None,
    prepared: PreparedSubmission | None,
    policy: WaitPolicy,
) -> dict[str, ListedSubmission]:
    """Returns Kaggle's list, and updates the ledger from it. Adds this csv if another machine has submitted it.

    known: the csv's submission in the ledger. If its record proves that Kaggle has it, the list is not read.
    Raises `KaggleError` and changes nothing if the list is needed and cannot be read.
    """
    tag = ""
    settle_s = 0.0
    if known and known.is_open:
        tag = known.intent.tag
        verdict = _recorded_verdict(known)
        if verdict.outcome == "accepted":
            _record_verdict(ledger, known, verdict, "")
            return {}
        settle_s = policy.settle_s if known.state == "intent" and verdict.outcome == "unclear" else 0.0
    try:
        listed = _read_list(request.competition, tag, settle_s, policy)
    except KaggleError as error:
        if tag:
            problem = f"cannot tell whether [run:{tag}] arrived, because Kaggle's list cannot be read: {error.problem}"
            raise type(error)(problem, f"{error.fix}; {request.make_command()} checks again") from error
        raise type(error)(f"nothing was uploaded: {error.problem}", error.fix) from error
    _update_from_list(ledger, request.competition, listed, awaited=tag)
    if prepared:
        same = {tag: row for tag, row in reversed(listed.items()) if tag[:12] == prepared.csv_sha256[:12]}
        for added in _restore(ledger, prepared, {tag: row.message.strip() for tag, row in same.items()}):
            record(ledger, added, "accepted", ref=same[added.intent.tag].ref)
    return listed


def _update_from_list(
    ledger: Ledger, competition: str, listed: dict[str, ListedSubmission], *, awaited: str = ""
) -> None:
    """Updates all submissions to the competition. `wait_for_score` records the score of the tag `awaited` later."""
    for entry in ledger.submissions():
        row = listed.get(entry.intent.tag)
        if entry.intent.competition != competition:
            continue
        if row and entry.intent.tag == awaited:
            _record_verdict(ledger, entry, Verdict("accepted", ref=row.ref), "")
        elif row:
            update(ledger, entry, row, entry.latest.rank)
        elif entry.state == "intent":
            entry = _record_verdict(ledger, entry, _recorded_verdict(entry), "Kaggle does not list it")  # noqa: PLW2901
            if entry.state == "refused":
                say(f"{entry.intent.message} never reached {competition}")


def _recorded_tags(prepared: PreparedSubmission) -> dict[str, str]:
    """Returns {tag: message} of the submissions of this csv that have a record in this folder."""
    first = prepared.csv_sha256[:12]
    names = [path.name.split(".") for path in UPLOADS.glob(f"{prepared.competition}.{first}*.calls")]
    return {tag: _tagged(prepared, tag) for _, tag, _ in sorted(names)}


def _restore(ledger: Ledger, prepared: PreparedSubmission, messages: dict[str, str]) -> list[Submission]:
    """Adds and returns the submissions of this csv, as {tag: message}, that the ledger lacks."""
    known = {entry.intent.tag for entry in ledger.submissions() if entry.intent.competition == prepared.competition}
    missing = {tag: message for tag, message in messages.items() if tag not in known}
    for tag, message in missing.items():
        ledger.append(_intent_event(prepared, tag, message))
    return [ledger.submission(prepared.competition, tag) for tag in missing]


def _next_tag(ledger: Ledger, prepared: PreparedSubmission, listed: dict[str, ListedSubmission]) -> str:
    """Returns the first 12 digits of the csv's hash, followed by -2, -3, ... if this content is submitted again."""
    taken = {entry.intent.tag for entry in ledger.submissions() if entry.intent.competition == prepared.competition}
    first = prepared.csv_sha256[:12]
    number = 2
    if first not in taken | set(listed):
        return first
    while f"{first}-{number}" in taken | set(listed):
        number += 1
    return f"{first}-{number}"


def _upload(
    ledger: Ledger, prepared: PreparedSubmission, tag: str, lock: Lock, policy: WaitPolicy, *, plain_csv: bool
) -> Submission:
    """Uploads once and returns the accepted submission. Otherwise records the reason in the ledger and raises it."""
    try:
        refuse_code_competition(prepared.competition, policy)
        check_submissions_left(prepared.competition, policy)
    except KaggleRefusal as error:
        raise KaggleRefusal(f"nothing was uploaded: {error.problem}", error.fix) from error
    intent = _intent_event(prepared, tag, _tagged(prepared, tag))
    file = file_to_upload(prepared, plain_csv=plain_csv)
    log = _record_path(intent)
    log.touch(mode=0o600)  # before the intent: an empty record proves that nothing was sent, a missing one nothing
    ledger.append(intent)
    arguments = ("competitions", "submit", prepared.competition, "--file", str(file), f"--message={intent.message}")
    child = start_transfer(*arguments, log=log, lock=lock)  # not --quiet: the progress bar shows how much is uploaded
    follow_transfer(child, f"uploading {file.name}", Transfer(log, lambda: percent_uploaded(_read_record(log))), policy)
    lock.name_holder(os.getpid())
    if file != prepared.csv:
        file.unlink()
    submission = ledger.submission(prepared.competition, tag)
    verdict = judge_upload(_read_record(log), prepared.competition, interrupted=child.returncode < 0)
    search_result = "Kaggle does not list it"
    if verdict.outcome == "unclear":
        try:
            if row := _read_list(prepared.competition, tag, policy.settle_s, policy).get(tag):
                verdict = Verdict("accepted", ref=row.ref)
        except KaggleError as error:
            search_result = f"its list cannot be read: {error.problem}"
    submission = _record_verdict(ledger, submission, verdict, search_result)
    if verdict.outcome == "refused":
        about_the_zip = file != prepared.csv and re.search("zip|csv|format|extension", verdict.problem, re.IGNORECASE)
        hint = "; ARGS=--plain-csv uploads the csv itself and not a zip of it" if about_the_zip else ""
        raise UserError(f"nothing was submitted: {verdict.problem}; {verdict.fix}{hint}")
    if verdict.outcome == "unclear":
        raise _unknown_error(submission)
    return submission


def _tagged(prepared: PreparedSubmission, tag: str) -> str:
    """Returns the message with its tag. The tag comes first, so that no limit of length cuts it off."""
    return f"[run:{tag}] {prepared.message}"


def _intent_event(prepared: PreparedSubmission, tag: str, message: str) -> Event:
    return Event(
        event="intent",
        competition=prepared.competition,
        run=prepared.run,
        tag=tag,
        message=message,
        csv_sha256=prepared.csv_sha256,
        commit=prepared.commit,
        local_score=prepared.local_score,
    )


def _record_verdict(ledger: Ledger, submission: Submission, verdict: Verdict, search_result: str) -> Submission:
    """Writes the result of an upload to the ledger. Deletes the record of one that is refused."""
    if verdict.outcome == "unclear":
        return record(ledger, submission, "unknown", reason=f"{verdict.problem}; {search_result}")
    submission = record(ledger, submission, verdict.outcome, ref=verdict.ref, reason=verdict.problem or None)
    if verdict.outcome == "refused":
        _record_path(submission.intent).unlink(missing_ok=True)
    return submission


def _recorded_verdict(submission: Submission) -> Verdict:
    """Returns what the record of an open submission proves. Its client has ended, because this process has the lock."""
    path = _record_path(submission.intent)
    if not path.exists():
        return Verdict("unclear", submission.latest.reason or "its record is missing")
    return judge_upload(_read_record(path), submission.intent.competition, interrupted=True)


def _read_list(slug: str, tag: str, total_s: float, policy: WaitPolicy) -> dict[str, ListedSubmission]:
    """Returns Kaggle's list. Reads it repeatedly until it contains the tag or `total_s` seconds have passed.

    Raises `KaggleError` if no attempt was answered.
    """
    listed = None
    unavailable = None
    for _ in poll_rounds(policy, total_s):
        try:
            listed = list_submissions(slug, policy)
        except KaggleUnavailable as error:
            unavailable = error
            continue
        if tag in listed:
            break
    if listed is None:
        assert unavailable is not None
        raise unavailable
    return listed


def _unknown_error(submission: Submission) -> UserError:
    intent = submission.intent
    page = competition_page(intent.competition, "submissions")
    request = SubmitRequest(intent.run, intent.competition)
    return UserError(
        f"unknown whether Kaggle has [run:{intent.tag}] ({submission.latest.reason}); {request.make_command()} checks "
        f"again and uploads nothing; if {page} does not show it either, {request.make_command('--again')} uploads it"
    )


def _record_path(intent: Event) -> Path:
    return UPLOADS / f"{intent.competition}.{intent.tag}.calls"


def _read_record(path: Path) -> str:
    return read_bytes(path).decode(errors="replace") if path.exists() else ""


def _record_sizes() -> list[tuple[str, int]]:
    return [(path.name, size_of(path)) for path in sorted(UPLOADS.glob("*.calls"))]
