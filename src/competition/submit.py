"""submissions/<run>.csv -> one submission on Kaggle and its score: interrupted anywhere, the same command goes on.

Nobody but Kaggle knows whether an upload whose answer was lost has counted, and a second upload costs one of a few
submissions a day. So: Kaggle's own list is read before an upload; then a line in the ledger, with a tag that is part of
the message and follows from the csv's content, so that the list tells this content on any machine; then one upload.
Three things prove that an upload did not count: the client says that the storage refused the file, Kaggle refuses it,
or the log, if this start of the machine wrote it, shows that the upload never came to its end, because the client
registers the submission after that. Where none of the three holds, nothing is uploaded again unasked.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.base.console import UserError, say
from src.base.files import file_hash
from src.competition.client import Lock, Patience, Transfer, follow, one_at_a_time, size_of, start, ticks
from src.competition.errors import (
    KaggleError,
    KaggleRefusal,
    KaggleSilence,
    Verdict,
    competition_page,
    judge_upload,
    percent_uploaded,
)
from src.competition.ledger import Event, Ledger, Submission
from src.competition.order import SUBMISSIONS, UPLOADS, Order, Wish, manual_command, packed, prepare
from src.competition.queries import Listed, check_allowance, list_submissions
from src.competition.scores import record, update, wait_for_score

BOOT = Path("/proc/sys/kernel/random/boot_id")  # changes with every start of the machine


def submit(wish: Wish, patience: Patience, *, team: str | None) -> Submission:
    """Uploads unless Kaggle has this very csv already, waits for the score, and returns the scored submission."""
    ledger = Ledger(SUBMISSIONS / "ledger.jsonl")
    if not wish.csv.exists():
        raise UserError(f"{wish.csv} is missing; `make submission RUN={wish.run}` writes it")
    sha256 = file_hash(wish.csv)
    with _at_work(patience) as lock:
        for leftover in UPLOADS.glob("*.zip"):
            leftover.unlink()
        before = found = _earlier(ledger, wish.competition, sha256)
        order = None if before and not wish.again else prepare(wish)
        listed: dict[str, Listed] = {}
        if order or (before and before.is_open):
            listed = _consult(ledger, wish, before, order, patience)
            found = _earlier(ledger, wish.competition, sha256)
        if found is None or (wish.again and (found.is_open or (before and not before.is_open))):
            order = order or prepare(wish)
            found = _upload(ledger, order, _next_tag(ledger, order, listed), lock, patience)
        elif found.is_open:
            raise _nobody_knows(found)
        else:  # what has been found only now is not uploaded again, whatever was asked
            say(f"{wish.competition} has this csv since {found.intent.time}, as {found.intent.message}")
    return wait_for_score(ledger, found, patience, team=team)


def refresh(ledger: Ledger, patience: Patience) -> None:
    """Brings the ledger up to date with what Kaggle lists: late submissions, scores, private scores after the end."""
    with _at_work(patience):
        for slug in dict.fromkeys(entry.intent.competition for entry in ledger.submissions()):
            try:
                listed = list_submissions(slug, patience)
            except KaggleError as error:
                say(f"{slug}: nothing new, its list cannot be read: {error}")
                continue
            _settle(ledger, slug, listed)


@contextmanager
def _at_work(patience: Patience) -> Iterator[Lock]:
    UPLOADS.mkdir(parents=True, exist_ok=True)
    (UPLOADS / ".gitignore").write_text("*\n")
    with one_at_a_time(UPLOADS / "lock", _sizes_of_logs, patience) as lock:
        yield lock


def _earlier(ledger: Ledger, competition: str, sha256: str) -> Submission | None:
    """Returns the latest submission of this content to this competition that was not refused."""
    key = (competition, sha256)
    same = [entry for entry in ledger.submissions() if (entry.intent.competition, entry.intent.csv_sha256) == key]
    return next((entry for entry in reversed(same) if entry.state != "refused"), None)


def _consult(
    ledger: Ledger, wish: Wish, mine: Submission | None, order: Order | None, patience: Patience
) -> dict[str, Listed]:
    """Settles what the ledger does not know yet, takes in this csv if another machine sent it; returns Kaggle's list.

    Raises `KaggleError`, and leaves everything as it is, where the list cannot be read and is needed.
    """
    tag, settle_s = "", 0.0
    if mine and mine.is_open:
        tag, verdict = mine.intent.tag, _verdict_from_log(mine)
        if verdict.outcome == "accepted":
            _conclude(ledger, mine, verdict, "")
            return {}
        settle_s = patience.settle_s if mine.state == "intent" and verdict.outcome == "unclear" else 0.0
    try:
        listed = _look_up(wish.competition, tag, settle_s, patience)
    except KaggleError as error:
        if tag:
            what = f"cannot tell whether [run:{tag}] arrived, Kaggle's list cannot be read: {error.what}"
            raise type(error)(what, f"{error.mend}; the same command looks again") from error
        if order and not mine:
            say(f"{order.csv} is ready; by hand:\n  {manual_command(order, _next_tag(ledger, order, {}))}")
        raise type(error)(f"nothing was uploaded: {error.what}", error.mend) from error
    _settle(ledger, wish.competition, listed, mine=tag)
    if order:
        _adopt(ledger, order, listed)
    return listed


def _settle(ledger: Ledger, competition: str, listed: dict[str, Listed], *, mine: str = "") -> None:
    """Brings every submission to the competition up to date; of `mine` the score is left to the waiting."""
    for entry in ledger.submissions():
        row = listed.get(entry.intent.tag)
        if entry.intent.competition != competition:
            continue
        if row and entry.intent.tag == mine:
            _conclude(ledger, entry, Verdict("accepted"), "", ref=row.ref)
        elif row:
            update(ledger, entry, row, entry.latest.rank)
            _log(entry.intent).unlink(missing_ok=True)
        elif entry.state == "intent":
            entry = _conclude(ledger, entry, _verdict_from_log(entry), "Kaggle does not list it")  # noqa: PLW2901
            if entry.state == "refused":
                say(f"{entry.intent.message} never reached {competition}")


def _adopt(ledger: Ledger, order: Order, listed: dict[str, Listed]) -> None:
    """Enters the submissions of this very csv that Kaggle lists and the ledger lacks."""
    known = {entry.intent.tag for entry in ledger.submissions() if entry.intent.competition == order.competition}
    for tag, row in reversed(listed.items()):  # the oldest first
        if tag[:12] == order.csv_sha256[:12] and tag not in known:
            ledger.append(_intent(order, tag, row.message))
            record(ledger, ledger.submission(order.competition, tag), "accepted", ref=row.ref)


def _next_tag(ledger: Ledger, order: Order, listed: dict[str, Listed]) -> str:
    """Returns the beginning of the csv's hash, numbered from the second submission of the same content on."""
    taken = {entry.intent.tag for entry in ledger.submissions() if entry.intent.competition == order.competition}
    first, number = order.csv_sha256[:12], 2
    if first not in taken | set(listed):
        return first
    while f"{first}-{number}" in taken | set(listed):
        number += 1
    return f"{first}-{number}"


def _upload(ledger: Ledger, order: Order, tag: str, lock: Lock, patience: Patience) -> Submission:
    """Uploads once; returns the submission that Kaggle has accepted, or raises with the ledger telling why not."""
    try:
        check_allowance(order.competition, patience)
    except KaggleRefusal as error:
        raise KaggleRefusal(f"nothing was uploaded: {error.what}", error.mend) from error
    intent = _intent(order, tag, f"{order.message} [run:{tag}]")
    file, log = packed(order), _log(intent)
    log.touch(mode=0o600)  # before the intent: a log that is missing proves nothing, an empty one: nothing was sent
    ledger.append(intent)
    arguments = ("competitions", "submit", order.competition, "--file", str(file), f"--message={intent.message}")
    child = start(*arguments, log=log, lock=lock)  # without --quiet: its bar tells how far the upload came
    follow(child, f"uploading {file.name}", Transfer(log, lambda: percent_uploaded(_text(log))), patience)
    lock.name_holder(os.getpid())
    if file != order.csv:
        file.unlink()
    submission = ledger.submission(order.competition, tag)
    verdict = judge_upload(_text(log), child.returncode, order.competition)
    if verdict.outcome == "accepted":
        return _conclude(ledger, submission, verdict, "")
    looked = "Kaggle does not list it"
    try:
        settle_s = patience.settle_s if verdict.outcome == "unclear" else 0.0
        if row := _look_up(order.competition, tag, settle_s, patience).get(tag):
            return _conclude(ledger, submission, Verdict("accepted"), "", ref=row.ref)
    except KaggleError as error:
        looked = f"its list cannot be read: {error.what}"
    submission = _conclude(ledger, submission, verdict, looked)
    if submission.state == "refused":
        raise UserError(f"nothing was submitted: {verdict.what}; {verdict.mend}")
    raise _nobody_knows(submission)


def _intent(order: Order, tag: str, message: str) -> Event:
    return Event(
        event="intent",
        competition=order.competition,
        run=order.run,
        tag=tag,
        message=message,
        csv_sha256=order.csv_sha256,
        commit=order.commit,
        local_score=order.local_score,
        boot=_boot(),
    )


def _conclude(
    ledger: Ledger, submission: Submission, verdict: Verdict, looked: str, *, ref: str | None = None
) -> Submission:
    """Records what an upload came to, and deletes its log where that is certain."""
    if verdict.outcome == "unclear":
        return record(ledger, submission, "unknown", reason=f"{verdict.what}; {looked}")
    submission = record(ledger, submission, verdict.outcome, ref=ref, reason=verdict.what or None)
    _log(submission.intent).unlink(missing_ok=True)
    return submission


def _verdict_from_log(submission: Submission) -> Verdict:
    """Returns what the log of an open submission proves, whose end nobody saw; what was unclear once stays so."""
    log, boot = _log(submission.intent), _boot()
    if submission.state == "unknown" or not log.exists():
        return Verdict("unclear", submission.latest.reason or "its log is not here")
    whole = boot is not None and boot == submission.intent.boot  # else the end may never have come to the disk
    return judge_upload(_text(log), None, submission.intent.competition, whole=whole)


def _look_up(slug: str, tag: str, total_s: float, patience: Patience) -> dict[str, Listed]:
    """Returns Kaggle's list, read until the tag is in it or `total_s` have passed; raises if no look was answered."""
    listed, silence = None, None
    for _ in ticks(patience, total_s):
        try:
            listed = list_submissions(slug, patience)
        except KaggleSilence as error:
            silence = error
            continue
        if tag in listed:
            break
    if listed is None:
        assert silence is not None
        raise silence
    return listed


def _nobody_knows(submission: Submission) -> UserError:
    intent = submission.intent
    page, once_more = competition_page(intent.competition, "submissions"), Wish(intent.run, intent.competition)
    return UserError(
        f"unknown whether Kaggle has [run:{intent.tag}]: its answer was lost ({submission.latest.reason}); the same "
        f"command looks again and uploads nothing; if {page} does not show it either, {once_more.make('--again')} "
        "uploads it again"
    )


def _log(intent: Event) -> Path:
    return UPLOADS / f"{intent.competition}.{intent.tag}.log"


def _text(log: Path) -> str:
    """Returns the log, "" without one; its line ends tell a bar that is done, \\n, from one that goes on, \\r."""
    return log.read_bytes().decode(errors="replace") if log.exists() else ""


def _boot() -> str | None:
    return BOOT.read_text().strip() if BOOT.exists() else None


def _sizes_of_logs() -> list[tuple[str, int]]:
    return [(path.name, size_of(path)) for path in sorted(UPLOADS.glob("*.log"))]
