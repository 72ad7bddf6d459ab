"""What Kaggle said to the client: the calls that src/competition/recorder.py has recorded in the client's output."""

import re
from typing import Any

from pydantic import BaseModel

from src.base.names import shortened
from src.base.reading import Unreadable, parse_json, parse_table
from src.competition.credentials import redact

RECORD = re.compile(r"\n?\x1e([^\n]*)\n")
MAX_WORDS = 300  # characters of Kaggle's or the client's own words in a message


class Answer(BaseModel):
    """A call to Kaggle and its answer. `status` is None if no answer came; `body` is what was recorded of it."""

    call: str  # the method of Kaggle's service, or "storage"
    status: int | None = None
    body: str = ""

    @property
    def table(self) -> dict[str, Any]:
        """Returns the table in the body; Unreadable if it is no JSON table."""
        return parse_table(self.body, f"Kaggle's answer {self.words!r}")

    @property
    def is_table(self) -> bool:
        """Returns whether the answer is a table in JSON that grants what was asked."""
        try:
            return self.code == 200 and self.table is not None
        except Unreadable:
            return False

    @property
    def code(self) -> int | None:
        """Returns the status. An answer with the status 200 can state another one in its body."""
        try:
            stated = self.table.get("code")
        except Unreadable:
            stated = None
        return stated if isinstance(stated, int) and stated >= 400 else self.status

    @property
    def words(self) -> str:
        """Returns what Kaggle said, in one line and without secrets: its message, or the text of the body."""
        try:
            said = parse_table(self.body, "").get("message")
        except Unreadable:
            said = None
        text = said if isinstance(said, str) else re.sub(r"<[^>]*>", " ", self.body)
        return shortened(" ".join(redact(text).split()), MAX_WORDS)


def answers_in(output: str) -> list[Answer]:
    """Returns all calls in the client's output, in order, each with its answer. A line that was cut off is left out."""
    found: list[Answer] = []
    for line in RECORD.findall(output):
        try:
            answer = parse_json(line, Answer, "the record")
        except Unreadable:
            continue
        if answer.status is not None and found and (found[-1].call, found[-1].status) == (answer.call, None):
            found.pop()
        found.append(answer)
    return found


def printed_in(output: str) -> str:
    """Returns what the client itself has printed."""
    return RECORD.sub("", output)
