"""submissions/<run>.csv -> one submission on Kaggle and its score. If interrupted, run the same command again.

A competition allows only a few submissions a day, so no csv must be uploaded twice by mistake. If the answer to an
upload is lost, only Kaggle knows whether the upload has counted. Therefore `submit` works in three steps:

1. It reads Kaggle's list of submissions.
2. It writes an `intent` line to the ledger, with a tag. The tag is computed from the csv's content and is part of the
   message, so Kaggle's list shows on every machine whether this content is submitted.
3. It uploads once.

Any one of three things proves that an upload did not count:

* the client prints that the storage did not accept the file;
* Kaggle refuses the submission;
* the log shows that the upload did not finish, because the client registers a submission only after that. The log must
  be from the current boot of the machine: an older one can be incomplete.

Without a proof, nothing is uploaded again unless the user asks for it with `--again`.
"""

import os
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
from src.competition.queries import ListedSubmission, check_submissions_left, list_submissions
from src.competition.request import (
    SUBMISSIONS,
    UPLOADS,
    PreparedSubmission,
    SubmitRequest,
    file_to_upload,
    prepare,
)
from src.competition.scores import record, update, wait_for_score

BOOT = Path("/proc/sys/kernel/random/boot_id")  # changes with every boot of the machine


def submit(request: SubmitRequest, policy: WaitPolicy, *, team: str | None) -> Submission:
    """Uploads the csv unless Kaggle has it already, waits for the score, and returns the scored submission."""
    ledger = Ledger(SUBMISSIONS / "ledger.jsonl")
    if not request.csv.exists():
        raise UserError(f"{request.csv} is missing; `make submission RUN={request.run}` writes it")
    sha256 = file_hash(request.csv)
    with _submit_lock(policy) as lock:
        for leftover in UPLOADS.glob("*.zip"):
            leftover.unlink()
        known = _latest_submission(ledger, request.competition, sha256)  # before Kaggle's list is read
        found = known
        prepared = None if known and not request.again else prepare(request)
        listed: dict[str, ListedSubmission] = {}
        if prepared or (known and known.is_open):
            listed = _check_kaggle_list(ledger, request, known, prepared, policy)
            found = _latest_submission(ledger, request.competition, sha256)
        if found is None or (request.again and (found.is_open or (known and not known.is_open))):
            prepared = prepared or prepare(request)
            found = _upload(ledger, prepared, _next_tag(ledger, prepared, listed), lock, policy)
        elif found.is_open:
            raise _unknown_error(found)
        else:  # also with --again, if the submission was found only now
            say(f"{request.competition} has this csv since {found.intent.time}, as {found.intent.message}")
    return wait_for_score(ledger, found, policy, team=team)


def refresh(ledger: Ledger, policy: WaitPolicy) -> None:
    """Updates the ledger from Kaggle's list: late submissions, scores, and private scores after the competition."""
    with _submit_lock(policy):
        for slug in dict.fromkeys(entry.intent.competition for entry in ledger.submissions()):
            try:
                listed = list_submissions(slug, policy)
            except KaggleError as error:
                say(f"{slug}: not updated, because its list cannot be read: {error}")
                continue
            _update_from_list(ledger, slug, listed)


@contextmanager
def _submit_lock(policy: WaitPolicy) -> Iterator[Lock]:
    UPLOADS.mkdir(parents=True, exist_ok=True)
    (UPLOADS / ".gitignore").write_text("*\n")
    with exclusive_lock(UPLOADS / "lock", _log_sizes, policy) as lock:
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

    known: the csv's submission in the ledger. If its log proves that Kaggle has it, the list is not read.
    Raises `KaggleError` and changes nothing if the list is needed and cannot be read.
    """
    tag = ""
    settle_s = 0.0
    if known and known.is_open:
        tag = known.intent.tag
        verdict = _verdict_from_log(known)
        if verdict.outcome == "accepted":
            _record_verdict(ledger, known, verdict, "")
            return {}
        settle_s = policy.settle_s if known.state == "intent" and verdict.outcome == "unclear" else 0.0
    try:
        listed = _read_list(request.competition, tag, settle_s, policy)
    except KaggleError as error:
        if tag:
            problem = f"cannot tell whether [run:{tag}] arrived, because Kaggle's list cannot be read: {error.problem}"
            raise type(error)(problem, f"{error.fix}; the same command checks again") from error
        raise type(error)(f"nothing was uploaded: {error.problem}", error.fix) from error
    _update_from_list(ledger, request.competition, listed, awaited=tag)
    if prepared:
        _add_missing(ledger, prepared, listed)
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
            _record_verdict(ledger, entry, Verdict("accepted"), "", ref=row.ref)
        elif row:
            update(ledger, entry, row, entry.latest.rank)
            _log_path(entry.intent).unlink(missing_ok=True)
        elif entry.state == "intent":
            entry = _record_verdict(ledger, entry, _verdict_from_log(entry), "Kaggle does not list it")  # noqa: PLW2901
            if entry.state == "refused":
                say(f"{entry.intent.message} never reached {competition}")


def _add_missing(ledger: Ledger, prepared: PreparedSubmission, listed: dict[str, ListedSubmission]) -> None:
    """Adds the submissions of this csv that are in Kaggle's list and not in the ledger."""
    known = {entry.intent.tag for entry in ledger.submissions() if entry.intent.competition == prepared.competition}
    for tag, row in reversed(listed.items()):  # the oldest first
        if tag[:12] == prepared.csv_sha256[:12] and tag not in known:
            ledger.append(_intent_event(prepared, tag, row.message))
            record(ledger, ledger.submission(prepared.competition, tag), "accepted", ref=row.ref)


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


def _upload(ledger: Ledger, prepared: PreparedSubmission, tag: str, lock: Lock, policy: WaitPolicy) -> Submission:
    """Uploads once and returns the accepted submission. Otherwise records the reason in the ledger and raises it."""
    try:
        check_submissions_left(prepared.competition, policy)
    except KaggleRefusal as error:
        raise KaggleRefusal(f"nothing was uploaded: {error.problem}", error.fix) from error
    intent = _intent_event(prepared, tag, f"{prepared.message} [run:{tag}]")
    file = file_to_upload(prepared)
    log = _log_path(intent)
    log.touch(mode=0o600)  # before the intent: an empty log proves that nothing was sent, a missing log proves nothing
    ledger.append(intent)
    arguments = ("competitions", "submit", prepared.competition, "--file", str(file), f"--message={intent.message}")
    child = start_transfer(*arguments, log=log, lock=lock)  # not --quiet: the progress bar shows how much is uploaded
    follow_transfer(child, f"uploading {file.name}", Transfer(log, lambda: percent_uploaded(_read_log(log))), policy)
    lock.name_holder(os.getpid())
    if file != prepared.csv:
        file.unlink()
    submission = ledger.submission(prepared.competition, tag)
    verdict = judge_upload(_read_log(log), child.returncode, prepared.competition)
    if verdict.outcome == "accepted":
        return _record_verdict(ledger, submission, verdict, "")
    search_result = "Kaggle does not list it"
    try:
        settle_s = policy.settle_s if verdict.outcome == "unclear" else 0.0
        if row := _read_list(prepared.competition, tag, settle_s, policy).get(tag):
            return _record_verdict(ledger, submission, Verdict("accepted"), "", ref=row.ref)
    except KaggleError as error:
        search_result = f"its list cannot be read: {error.problem}"
    submission = _record_verdict(ledger, submission, verdict, search_result)
    if submission.state == "refused":
        raise UserError(f"nothing was submitted: {verdict.problem}; {verdict.fix}")
    raise _unknown_error(submission)


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
        boot=_boot_id(),
    )


def _record_verdict(
    ledger: Ledger, submission: Submission, verdict: Verdict, search_result: str, *, ref: str | None = None
) -> Submission:
    """Records the result of an upload. Deletes its log if the result is certain."""
    if verdict.outcome == "unclear":
        return record(ledger, submission, "unknown", reason=f"{verdict.problem}; {search_result}")
    submission = record(ledger, submission, verdict.outcome, ref=ref, reason=verdict.problem or None)
    _log_path(submission.intent).unlink(missing_ok=True)
    return submission


def _verdict_from_log(submission: Submission) -> Verdict:
    """Returns what the log of an open submission proves. A submission whose state is `unknown` stays unclear."""
    log = _log_path(submission.intent)
    boot = _boot_id()
    if submission.state == "unknown" or not log.exists():
        return Verdict("unclear", submission.latest.reason or "its log is missing")
    complete = boot is not None and boot == submission.intent.boot  # otherwise a crash can have lost the log's end
    return judge_upload(_read_log(log), None, submission.intent.competition, complete=complete)


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


def _log_path(intent: Event) -> Path:
    return UPLOADS / f"{intent.competition}.{intent.tag}.log"


def _read_log(log: Path) -> str:
    """Returns the log's text with its line ends unchanged, or "" without a log.

    A finished progress bar ends in a newline, an unfinished one in a carriage return.
    """
    return read_bytes(log).decode(errors="replace") if log.exists() else ""


def _boot_id() -> str | None:
    return BOOT.read_text().strip() if BOOT.exists() else None


def _log_sizes() -> list[tuple[str, int]]:
    return [(path.name, size_of(path)) for path in sorted(UPLOADS.glob("*.log"))]
