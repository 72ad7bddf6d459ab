"""A run trained on Kaggle's GPU and brought back: quota, push, status, log, output. One command, safe to repeat.

runs/<run>/kernel.json says how far it is. It is written before the push, and each session has an identity that is in
its script and in its output. So a push whose answer was lost is looked up, and another session's output is refused.
Each session is a notebook of its own, train-<run>-<session>; the next one reads the output of the one before.
"""

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from src.base.console import UserError, say
from src.base.files import file_hash, write_atomically
from src.base.gpus import SESSION_HOURS
from src.base.names import shortened
from src.base.ownership import owned
from src.base.reading import Unreadable, read_bytes, read_json
from src.competition.answers import printed_in
from src.competition.client import (
    Lock,
    Transfer,
    WaitPolicy,
    call_client,
    exclusive_lock,
    follow_transfer,
    poll_rounds,
    size_of,
    start_transfer,
)
from src.competition.credentials import redact
from src.competition.errors import RUN_AGAIN, KaggleRefusal, KaggleUnavailable
from src.competition.kernel_script import SessionOrder, write_kernel
from src.competition.kernel_session import (
    MAX_SHOWN,
    RESERVED_HOURS,
    log_so_far,
    own_lines,
    quota_hours,
    reason_in,
    session_status,
    whole_log,
)

FOLLOW_SECONDS = 14 * 3600.0  # a session that waits in Kaggle's queue takes longer than 12 hours
MAX_TITLE_LENGTH = 50  # characters; Kaggle answers a longer title with "internal error"
ENDED_BADLY = ("ERROR", "CANCEL_ACKNOWLEDGED")
RUNS = Path("runs")


class SessionState(BaseModel):
    """runs/<run>/kernel.json: the latest session of a run on Kaggle."""

    session: str
    kernel: str  # user/name
    competition: str
    stage: Literal["intent", "running", "fetched", "failed"]
    gpus: int
    training_seconds: int
    finished: bool = False  # the training, not the session
    checkpoint: str | None = None  # SHA-256 of the last.pt that was fetched last
    previous: str | None = None  # the latest session with an output, and its notebook: the next one goes on from it
    earlier: str | None = None


class SessionOutput(BaseModel):
    """session.json in a session's output: whose it is, and the hash of each file."""

    session: str
    finished: bool
    bytes: int
    files: dict[str, str]


class Trip:
    """One run's way to Kaggle's GPU and back."""

    def __init__(self, run: str, folder: Path, policy: WaitPolicy, lock: Lock) -> None:
        self.run = run
        self.folder = folder  # of the script, the logs and what is fetched
        self.policy = policy
        self.lock = lock
        self.path = RUNS / run / "kernel.json"
        self.last = RUNS / run / "last.pt"
        self.state = read_json(self.path, SessionState) if self.path.exists() else None

    def save(self, state: SessionState) -> SessionState:
        """Writes kernel.json."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, (state.model_dump_json(indent=2, exclude_none=True) + "\n").encode())
        self.state = state
        return state

    def begin(self, competition: str, user: str, gpus: int) -> SessionState:
        """Returns a new session, which goes on from the last fetched output. Nothing of it is written yet."""
        before = self.state
        session = secrets.token_hex(4)
        title = re.sub(r"[^a-z0-9]+", "-", f"train-{self.run}-{session}".lower())
        if len(title) > MAX_TITLE_LENGTH:
            raise UserError(
                f"the notebook's title {title!r} has {len(title)} characters, Kaggle allows {MAX_TITLE_LENGTH}; "
                f"copy configs/{self.run}.toml to a shorter name"
            )
        self.refuse_other_training(before.checkpoint if before else None)
        hours = min(SESSION_HOURS, quota_hours(self.policy))
        return SessionState(
            session=session,
            kernel=f"{user}/{title}",
            competition=competition,
            stage="intent",
            gpus=gpus,
            training_seconds=int((hours - RESERVED_HOURS) * 3600),
            **(before.model_dump(include={"checkpoint", "previous", "earlier"}) if before else {}),
        )

    def order(self, state: SessionState) -> SessionOrder:
        """Returns what the session is to do."""
        known = state.model_dump()
        return SessionOrder(self.run, **{field.name: known[field.name] for field in fields(SessionOrder)[1:]})

    def push(self, state: SessionState) -> SessionState:
        """Writes the script, then the intent, then pushes. The push is a child that holds the lock to its end."""
        log = self.folder / "push.log"
        words = ("kernels", "push", "--path", str(self.folder), "--timeout", str(int(SESSION_HOURS * 3600)))
        write_kernel(self.order(state), self.folder)
        self.save(state)
        child = start_transfer(*words, log=log, lock=self.lock)
        follow_transfer(child, f"pushing {state.kernel}", Transfer(log, lambda: 0.0), self.policy)
        answer = redact(printed_in(read_bytes(log).decode(errors="replace")))
        lines = [line for line in answer.splitlines() if not line.startswith("Warning:")]
        said = " ".join(lines)
        if "Kernel push error: " in said or "not valid" in said:
            self.save(state.model_copy(update={"stage": "failed"}))
            fix = f"mend it, then {RUN_AGAIN}"
            raise KaggleRefusal(f"Kaggle did not accept the notebook: {shortened(said, MAX_SHOWN)}", fix)
        if "successfully pushed" not in said and not self.is_at_kaggle(state):
            problem = f"Kaggle has not got the notebook ({shortened(said or 'no answer', MAX_SHOWN)})"
            raise KaggleUnavailable(problem, f"{RUN_AGAIN}; it looks first, and pushes nothing twice")
        say(f"pushed session {state.session} as https://www.kaggle.com/code/{state.kernel}")
        return self.save(state.model_copy(update={"stage": "running"}))

    def is_at_kaggle(self, state: SessionState) -> bool:
        """Returns whether Kaggle has this session's script; it can take a moment to appear."""
        place = self.folder / "pulled"
        place.mkdir(parents=True, exist_ok=True)
        for _ in poll_rounds(self.policy, self.policy.settle_s):
            try:
                call_client(state.kernel, "kernels", "pull", state.kernel, "-p", str(place), policy=self.policy)
            except KaggleRefusal as error:
                if error.status not in (403, 404):
                    raise
                continue
            found = "".join(path.read_text(errors="replace") for path in place.glob("*.py"))
            if f"SESSION = {state.session!r}" in found:
                return True
        return False

    def follow(self, state: SessionState) -> None:
        """Waits until the session has ended, and prints the run's own lines. UserError if it has failed."""
        shown = 0
        said = ""
        for _ in poll_rounds(self.policy, FOLLOW_SECONDS):
            try:
                status, message = session_status(state.kernel, self.policy)
            except KaggleUnavailable as error:
                status = f"{error.problem}; waiting"
                message = ""
            if status != said:
                say(f"{state.kernel}: {status.lower() if status.isupper() else status}")
                said = status
            ended = status in ("COMPLETE", *ENDED_BADLY)
            log = (whole_log if ended else log_so_far)(state.kernel, self.policy)
            lines = own_lines(log)
            for line in lines[shown:]:
                say(line)
            shown = max(shown, len(lines))
            if status in ENDED_BADLY:
                self.save(state.model_copy(update={"stage": "failed"}))
                reason = shortened(reason_in(log) or message or "its log is empty", MAX_SHOWN)
                raise UserError(
                    f"the session on Kaggle has failed: {reason}; see https://www.kaggle.com/code/{state.kernel}; "
                    "the same command starts another"
                )
            if ended:
                return
        raise UserError(f"{state.kernel} has not ended; {RUN_AGAIN} to follow it again")

    def fetch(self, state: SessionState) -> SessionState:
        """Downloads the output, compares all hashes, and puts the files where a run made here has them."""
        place = self.folder / "output"
        place.mkdir(parents=True, exist_ok=True)
        self._download(state, place, r"^session\.json$", 1)
        output = self._output(state, place)
        self.refuse_other_training(state.checkpoint, output)
        if any(self._differs(place / name, sha256) for name, sha256 in output.files.items()):
            self._download(state, place, rf"^(runs/{re.escape(self.run)}/|submissions/)", output.bytes)
        if wrong := [name for name, sha256 in output.files.items() if self._differs(place / name, sha256)]:
            shutil.rmtree(place)
            problem = f"the download of {', '.join(wrong[:3])} is incomplete or damaged"
            raise KaggleUnavailable(f"{problem}; nothing was replaced", RUN_AGAIN)
        with owned(RUNS / self.run):
            for name in sorted(output.files, key=_place_in_order):
                target = Path(name)
                if self._differs(target, output.files[name]):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(target, read_bytes(place / name))
        changes = {
            "stage": "fetched",
            "finished": output.finished,
            "checkpoint": output.files[str(self.last)],
            "previous": state.session,
            "earlier": state.kernel,
        }
        state = self.save(state.model_copy(update=changes))
        shutil.rmtree(place)
        return state

    def _output(self, state: SessionState, place: Path) -> SessionOutput:
        """Returns session.json; UserError if it is missing, damaged or of another session."""
        allowed = re.compile(rf"runs/{re.escape(self.run)}/(?!kernel\.json$)|submissions/{re.escape(self.run)}\.")
        try:
            output = read_json(place / "session.json", SessionOutput)
        except Unreadable as error:
            fix = f"{RUN_AGAIN}; if that does not help, move {self.path} away to start another session"
            raise KaggleUnavailable(f"the session's output cannot be read ({error})", fix) from None
        if output.session != state.session:
            (place / "session.json").unlink()
            raise UserError(
                f"the output at {state.kernel} is of another session ({output.session}, not {state.session}); nothing "
                f"was fetched; {RUN_AGAIN} in a few minutes"
            )
        strange = [name for name in output.files if not allowed.match(name) or ".." in name]
        if strange or str(self.last) not in output.files:
            self.save(state.model_copy(update={"stage": "failed"}))
            found = f"names {strange[0]!r}, which is no file of {self.run}" if strange else f"has no {self.last}"
            raise UserError(
                f"the session's output {found}; nothing was fetched; the same command starts another session"
            )
        return output

    def _download(self, state: SessionState, place: Path, pattern: str, size: int) -> None:
        """Downloads the files of the output whose names match."""
        log = self.folder / "download.log"
        words = ("kernels", "output", state.kernel, "--path", str(place), "--force", "--page-size", "200")
        child = start_transfer(*words, "--file-pattern", pattern, log=log, lock=self.lock)

        def percent() -> float:
            return 100 * min(1.0, sum(map(size_of, filter(Path.is_file, place.rglob("*")))) / max(1, size))

        follow_transfer(child, f"fetching {state.kernel}", Transfer(log, percent), self.policy)
        if child.returncode != 0:
            said = shortened(redact(printed_in(read_bytes(log).decode(errors="replace"))), MAX_SHOWN)
            raise KaggleUnavailable(f"the output of {state.kernel} was not downloaded ({said})", RUN_AGAIN)

    @staticmethod
    def _differs(path: Path, sha256: str | None) -> bool:
        return not path.is_file() or file_hash(path) != sha256

    def refuse_other_training(self, known: str | None, output: SessionOutput | None = None) -> None:
        """Raises UserError if the run or the csv here is neither what was fetched last (`known`) nor the output."""
        from src.submission import safe_to_replace  # noqa: PLC0415 (loads torch; most commands need no torch)

        coming = output.files if output else {}
        if self.last.exists() and file_hash(self.last) not in (known, coming.get(str(self.last))):
            raise UserError(
                f"{self.last.parent} was trained here, and the session's output would replace it; move it away, or "
                "train under another name"
            )
        csv = Path("submissions") / f"{self.run}.csv"
        if self._differs(csv, coming.get(str(csv))):
            safe_to_replace(csv)


def _place_in_order(name: str) -> tuple[bool, bool, str]:
    """Puts the csv's provenance last: without it, nothing is submitted."""
    is_submission = name.startswith("submissions/")
    return is_submission, is_submission and name.endswith(".json"), name


@contextmanager
def _trip(run: str, folder: Path, policy: WaitPolicy) -> Iterator[Trip]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    logs = (folder / "push.log", folder / "download.log")
    with exclusive_lock(folder / "lock", lambda: [size_of(log) for log in logs], policy) as lock:
        yield Trip(run, folder, policy, lock)


def train_on_kaggle(run: str, competition: str, folder: Path, user: str, *, gpus: int, policy: WaitPolicy) -> None:
    """Takes the run to Kaggle and back, from wherever an earlier command has stopped."""
    with _trip(run, folder / run, policy) as trip:
        state = trip.state
        if state and state.stage in ("intent", "running") and state.competition != competition:
            raise UserError(f"a session of {run} for {state.competition} is under way; COMPETITION={state.competition}")
        if state and state.stage == "fetched" and state.finished:
            say(
                f"{run} is trained, session {state.session}; submit it: make submit RUN={run} COMPETITION={competition}"
            )
            return
        if state is None or state.stage not in ("intent", "running"):
            state = trip.push(trip.begin(competition, user, gpus))
        elif state.stage == "intent":  # an earlier command was stopped: Kaggle may have the script
            say(f"looking whether Kaggle has session {state.session}")
            pushed = trip.is_at_kaggle(state)
            state = trip.save(state.model_copy(update={"stage": "running"})) if pushed else trip.push(state)
        trip.follow(state)
        state = trip.fetch(state)
    if state.finished:
        say(f"runs/{run} and submissions/{run}.csv are here; next: make submit RUN={run} COMPETITION={competition}")
    else:
        say(f"the session's time was over before the training's; {RUN_AGAIN}: it goes on in a new session")
