"""submissions/ledger.jsonl: every submission and its result. One line per event; lines are only appended.

A submission starts with an `intent` line, which is written before anything is uploaded. The line holds a tag that is
unique within the competition. Later lines with the same tag record the result: `accepted`, `refused`, `unknown`,
`scored`. The latest line gives the submission's state. Each line ends with its own checksum, because a wrong digit
could hide an upload, and the csv would be uploaded twice.
"""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from src.base.console import UserError, say
from src.base.ownership import lock_file
from src.base.reading import Unreadable, parse_sealed, read_bytes, sealed_line
from src.base.settings import Sha256

Kind = Literal["intent", "accepted", "refused", "unknown", "scored"]


def now() -> str:
    """Returns the time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Event(BaseModel):
    """One line of the ledger. `event` decides which optional fields are set. Scores are in dB."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    event: Kind
    time: str = Field(default_factory=now)
    competition: str
    run: str
    tag: str
    message: str | None = None  # of an intent, like the four fields below
    csv_sha256: Sha256 | None = None
    commit: str | None = None
    local_score: float | None = None
    boot: str | None = None  # written by older versions
    ref: str | None = None  # of accepted and scored: Kaggle's number of the submission
    reason: str | None = None  # of refused, unknown, and scored with an error or with a score that is no number
    status: str | None = None  # of scored, like the three fields below: COMPLETE, ERROR, or what else Kaggle says
    public_score: float | None = None
    private_score: float | None = None
    rank: int | None = None

    @model_validator(mode="after")
    def _tag_fits(self) -> Self:
        if self.csv_sha256 is not None and self.csv_sha256[:12] != self.tag[:12]:
            raise ValueError(f"the tag {self.tag} is not that of a csv with the hash {self.csv_sha256[:12]}...")
        return self


@dataclass(frozen=True)
class Submission:
    """All lines with one tag: the intent, the latest event, and Kaggle's number of the submission if it is known."""

    intent: Event
    latest: Event
    ref: str | None

    @property
    def state(self) -> Kind:
        """Returns the kind of the latest event. It is `intent` if the submit command stopped before a result."""
        return self.latest.event

    @property
    def is_open(self) -> bool:
        """Returns whether it is still unknown if Kaggle has the submission."""
        return self.state in ("intent", "unknown")

    @property
    def has_score(self) -> bool:
        """Returns whether Kaggle has given it a public or a private score. `reason` says if one is no number."""
        latest = self.latest
        return (
            latest.status not in (None, "ERROR")
            and (latest.public_score, latest.private_score, latest.reason) != (None,) * 3
        )


class Ledger:
    """The ledger file. Several processes can append to it at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reported: set[int] = set()  # numbers of the incomplete lines that are already reported

    def append(self, event: Event) -> None:
        """Appends one line and waits until it is on disk. Raises OSError if the disk is full."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = sealed_line(event)
        with self.path.open("ab+") as file:
            lock_file(file.fileno(), self.path, wait=True)
            if _ends_mid_line(file.fileno()):
                line = b"\n" + line  # keeps the new event apart from an incomplete last line
            if os.write(file.fileno(), line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(file.fileno())
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name of a new file must be on disk too
        finally:
            os.close(folder)

    def events(self) -> list[Event]:
        """Returns all events in order. Reports and skips a line that a crash left incomplete.

        Raises UserError for any other line that is not an event.
        """
        if not self.path.exists():
            return []
        events = []
        for number, line in enumerate(read_bytes(self.path).split(b"\n"), start=1):
            text = line.strip(b"\0 \r")  # a crash of the machine can leave zero bytes
            if not text:
                continue
            try:
                events.append(parse_sealed(text, Event, f"{self.path}, line {number}"))
            except Unreadable as error:
                if not _is_cut_off(text):
                    raise UserError(
                        f"{error}; restore the original line from a copy of this file, or from git if it is tracked"
                    ) from None
                if number not in self._reported:
                    say(f"{self.path}, line {number}: incomplete, because a crash interrupted its writing; skipped")
                    self._reported.add(number)
        return events

    def readable(self) -> tuple[list[Submission], list[str]]:
        """Returns the submissions of the lines that can be read, and a line on each other one.

        It is for showing them. Whoever uploads needs `submissions`, because a line that is left out can hide an upload.
        """
        lines = read_bytes(self.path).split(b"\n") if self.path.exists() else []
        events: list[Event] = []
        notes: list[str] = []
        for number, line in enumerate(lines, start=1):
            if not (text := line.strip(b"\0 \r")):
                continue
            try:
                event = parse_sealed(text, Event, f"{self.path}, line {number}")
                to_submissions([*events, event], self.path)
                events.append(event)
            except UserError as error:
                notes.append(f"{error}; it is left out")
        return to_submissions(events, self.path), notes

    def submissions(self) -> list[Submission]:
        """Returns every submission in the order of the intents."""
        return to_submissions(self.events(), self.path)

    def submission(self, competition: str, tag: str) -> Submission:
        """Returns the submission with that tag, which must exist."""
        return next(
            entry for entry in self.submissions() if (entry.intent.competition, entry.intent.tag) == (competition, tag)
        )


def to_submissions(events: Iterable[Event], path: Path) -> list[Submission]:
    """Returns one submission per intent, in the order of the intents.

    Raises UserError for an event without an intent. To skip it would hide an upload.
    """
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
                f"{path}: [run:{event.tag}] is {event.event} without an intent line; restore the complete file"
            )
    return list(found.values())


def _is_cut_off(line: bytes) -> bool:
    """Returns whether a line ends early, as after a crash. A damaged line that is complete does not."""
    return line.startswith(b"{") and not line.endswith(b"}") and b'"checksum":"' not in line


def _ends_mid_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
