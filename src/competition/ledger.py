"""submissions/ledger.jsonl: everything ever submitted and what became of it; one line per event, never rewritten.

A submission begins with an `intent` line, written before a byte leaves the machine, and carries a tag that no other one
in that competition has. Later lines with the same tag tell the rest: `accepted`, `refused`, `unknown`, `scored`. The
state is what they add up to.
"""

import errno
import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from src.base.console import UserError, say

Kind = Literal["intent", "accepted", "refused", "unknown", "scored"]


def now() -> str:
    """Returns the time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Event(BaseModel):
    """One line. Which of the optional fields are set depends on `event`; scores are in dB."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: Kind
    time: str = Field(default_factory=now)
    competition: str
    run: str
    tag: str
    message: str | None = None  # intent, and the four below
    csv_sha256: str | None = None
    commit: str | None = None
    local_score: float | None = None
    boot: str | None = None  # which start of the machine wrote the intent: a log of another one may have lost lines
    ref: str | None = None  # accepted and scored: Kaggle's number of the submission
    reason: str | None = None  # refused, unknown, scored with an error
    status: Literal["COMPLETE", "ERROR"] | None = None  # scored, and the three below
    public_score: float | None = None
    private_score: float | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Submission:
    """What the lines of one tag add up to: the intent, the latest event, and Kaggle's number once it is known."""

    intent: Event
    latest: Event
    ref: str | None

    @property
    def state(self) -> Kind:
        """Returns the kind of the latest event; `intent` where the submit ended before it knew more."""
        return self.latest.event

    @property
    def is_open(self) -> bool:
        """Returns whether the ledger does not know yet if Kaggle has it."""
        return self.state in ("intent", "unknown")

    @property
    def has_score(self) -> bool:
        """Returns whether it is scored, with a public or a private score."""
        latest = self.latest
        return latest.status == "COMPLETE" and (latest.public_score, latest.private_score) != (None, None)


class Ledger:
    """The file, safe to append to from several processes at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._said: set[int] = set()  # the torn lines already spoken of

    def append(self, event: Event) -> None:
        """Writes one line that survives a crash of the machine once this returns; OSError where it does not fit."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = event.model_dump_json(exclude_none=True).encode() + b"\n"
        with self.path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _ends_torn(file.fileno()):
                line = b"\n" + line  # the torn line stays, on a line of its own
            if os.write(file.fileno(), line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(file.fileno())
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # a new file needs its name on disk too
        finally:
            os.close(folder)

    def events(self) -> list[Event]:
        """Returns all events in order; a line torn by a crash is said and left out, any other odd line is an error."""
        if not self.path.exists():
            return []
        events = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n"), start=1):
            text = line.strip(b"\0 \r")  # a crash of the machine can leave zeros
            if not text:
                continue
            try:
                events.append(Event.model_validate_json(text))
            except ValidationError as error:
                first = error.errors()[0]
                if text.startswith(b"{") and first["type"] == "json_invalid":
                    if number not in self._said:
                        say(f"{self.path}, line {number}: torn by a crash while it was written; left out")
                        self._said.add(number)
                    continue
                raise UserError(
                    f"{self.path}, line {number} is not an event of this ledger ({first['msg']}); bring back the line "
                    f"as it was, `git diff {self.path}` shows it"
                ) from error
        return events

    def submissions(self) -> list[Submission]:
        """Returns every submission in the order of the intents."""
        return add_up(self.events(), self.path)

    def submission(self, competition: str, tag: str) -> Submission:
        """Returns the submission of that tag, which must exist."""
        return next(
            entry for entry in self.submissions() if (entry.intent.competition, entry.intent.tag) == (competition, tag)
        )


def add_up(events: Iterable[Event], path: Path) -> list[Submission]:
    """Returns one submission per intent; an event whose intent is missing is an error, for it would hide an upload."""
    found: dict[tuple[str, str], Submission] = {}
    for event in events:
        key = (event.competition, event.tag)
        if event.event == "intent":
            found[key] = Submission(event, event, None)
        elif key in found:
            earlier = found[key]
            found[key] = Submission(earlier.intent, event, event.ref or earlier.ref)
        else:
            raise UserError(
                f"{path}: [run:{event.tag}] is {event.event} without an intent line; bring back the whole file"
            )
    return list(found.values())


def _ends_torn(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
