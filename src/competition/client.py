"""Runs the official `kaggle` client as a child process. No other file starts it.

The client is never imported, because its import authenticates, prints, creates a folder and calls the network. This
code relies on the behaviour of the versions in `CLIENT_VERSIONS`. tests/competition/test_kaggle_client.py checks that
exactly these are installed and locked. What Kaggle answers is read from the record of src/competition/recorder.py.
"""

import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from src.base.console import UserError, say, track
from src.base.ownership import lock_file
from src.competition.answers import Answer, answers_in, printed_in
from src.competition.errors import RUN_AGAIN, KaggleRefusal, KaggleUnavailable, explain

CLIENT_VERSIONS = {"kaggle": "2.2.5", "kagglesdk": "0.1.38"}
RECORDER = Path(__file__).with_name("recorder.py")  # the client, with a record of its calls
ORPHAN_LIMIT_S = 7200  # a transfer stops itself after this time, even if the process that started it is gone
WATCH_INTERVAL_S = 0.1  # between two checks of a transfer or a lock
SHOW_AFTER_S = 3.0  # a transfer that takes less shows no progress bar


@dataclass(frozen=True)
class WaitPolicy:
    """Time limits and polling intervals, in seconds."""

    call_timeout_s: float = 60.0  # limit for one call to Kaggle
    stall_s: float = 180.0  # limit for an upload or download without progress
    poll_first_s: float = 5.0  # the first pause between two polls; each pause is longer than the one before
    poll_longest_s: float = 60.0  # the longest pause between two polls
    settle_s: float = 60.0  # limit for finding an unconfirmed submission in Kaggle's list
    deadline_s: float = 1800.0  # limit for waiting for the score


@dataclass(frozen=True)
class Transfer:
    """How to measure the progress of a transfer: a file that grows, and a function that returns 0 to 100 percent."""

    file: Path
    percent: Callable[[], float]


class Lock:
    """An open, locked file that holds the number of the working process.

    Child processes inherit the lock. If this process dies, the lock stays until its last child ends.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def name_holder(self, process: int) -> None:
        """Writes the number of the process that a user would have to stop into the file."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, str(process).encode(), 0)


def size_of(path: Path) -> int:
    """Returns the size of a file in bytes, or 0 if it does not exist. A transfer creates and removes files."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def poll_rounds(policy: WaitPolicy, total_s: float) -> Iterator[None]:
    """Yields once per poll: immediately, then after growing pauses, and a last time after `total_s` seconds."""
    end = time.monotonic() + total_s
    pause_s = policy.poll_first_s
    while True:
        yield
        left_s = end - time.monotonic()
        if left_s <= 0:
            return
        time.sleep(min(pause_s, left_s))
        pause_s = min(1.5 * pause_s, policy.poll_longest_s)


def call_client(slug: str, *arguments: str, policy: WaitPolicy) -> str:
    """Returns what the client prints for a command. Raises `KaggleRefusal` or `KaggleUnavailable` if it fails."""
    exit_code, output = _run_client(arguments, policy)
    if exit_code != 0:
        raise explain(output, slug)
    return printed_in(output)


def ask_client(call: str, slug: str, *arguments: str, policy: WaitPolicy) -> Answer:
    """Returns Kaggle's answer to the call that a command makes, a table in JSON. Raises as `call_client`.

    What the client then prints, and whether it fails, does not matter.
    """
    _, output = _run_client(arguments, policy)
    answer = (answers_in(output) or [Answer(call="")])[-1]
    if answer.call != call or not answer.is_table:
        raise explain(output, slug)
    return answer


def _run_client(arguments: tuple[str, ...], policy: WaitPolicy) -> tuple[int, str]:
    try:
        result = subprocess.run(
            _command(arguments),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=policy.call_timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        problem = f"Kaggle has not answered within {policy.call_timeout_s:.0f} s"
        raise KaggleUnavailable(problem, f"check the network, then {RUN_AGAIN}") from error
    return result.returncode, f"{result.stdout}\n{result.stderr}"


def start_transfer(*arguments: str, log: Path, lock: Lock) -> "subprocess.Popen[bytes]":
    """Starts an upload or download, which continues if this process dies.

    The child writes its output to `log`, holds `lock`, and stops itself after `ORPHAN_LIMIT_S`.
    """
    with open(log, "wb", opener=_open_private) as output:
        child = subprocess.Popen(
            _command(arguments),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so Ctrl-C stops only this process; the client would end with exit code 0
            pass_fds=(lock.descriptor,),
            # An alarm survives exec and the death of the parent. This is safe here, with only one thread.
            preexec_fn=partial(signal.alarm, ORPHAN_LIMIT_S),  # noqa: PLW1509
        )
    lock.name_holder(child.pid)
    return child


def follow_transfer(child: "subprocess.Popen[bytes]", description: str, transfer: Transfer, policy: WaitPolicy) -> None:
    """Shows the progress of a transfer until it ends. Stops it if it stalls or if this process is interrupted."""

    def steps() -> Iterator[int]:
        shown = 0
        last_size = -1
        last_progress = started
        while child.poll() is None:
            if (size := size_of(transfer.file)) != last_size:
                last_size = size
                last_progress = time.monotonic()
            elif time.monotonic() - last_progress > policy.stall_s:
                say(f"{description}: no progress for {policy.stall_s:.0f} s; stopped")
                return
            if time.monotonic() - started > SHOW_AFTER_S:
                reached = int(transfer.percent())
                yield from range(shown, reached)
                shown = max(shown, reached)
            time.sleep(WATCH_INTERVAL_S)

    started = time.monotonic()
    try:
        for _ in track(steps(), description, total=100):
            pass
    finally:
        child.kill()
        child.wait()


@contextmanager
def exclusive_lock(path: Path, progress: Callable[[], object], policy: WaitPolicy) -> Iterator[Lock]:
    """Holds the lock at `path`. Waits for another holder while the value of `progress()` keeps changing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        last_state = None
        last_progress = time.monotonic()
        reported = False
        while not _try_lock(descriptor, path):
            holder = os.pread(descriptor, 20, 0).decode()
            if not reported:
                say(f"process {holder} is doing the same work; waiting for it")
                reported = True
            if (state := progress()) != last_state:
                last_state = state
                last_progress = time.monotonic()
            elif time.monotonic() - last_progress > policy.stall_s:
                raise UserError(
                    f"process {holder} holds {path} and makes no progress; run `kill {holder}`, then {RUN_AGAIN}"
                )
            time.sleep(WATCH_INTERVAL_S)
        lock = Lock(descriptor)
        lock.name_holder(os.getpid())
        yield lock
    finally:
        os.close(descriptor)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # an error message of the client can contain a signed storage URL


def _try_lock(descriptor: int, path: Path) -> bool:
    try:
        lock_file(descriptor, path, wait=False)
    except BlockingIOError:
        return False
    return True


def _command(arguments: tuple[str, ...]) -> list[str]:
    for package, tested in CLIENT_VERSIONS.items():
        try:
            installed = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed = "no version of it"
        if installed != tested:
            raise KaggleRefusal(f"{package} {tested} is needed and {installed} is installed", "run `make setup`")
    return [sys.executable, "-P", str(RECORDER), "-W", *arguments]  # -P: import nothing from the current folder


def _environment() -> dict[str, str]:
    unwanted = ("VERBOSE", "VERBOSE_OUTPUT")  # with either of them the client prints the Authorization header
    kept = {name: value for name, value in os.environ.items() if name not in unwanted and not name.startswith("TQDM_")}
    return kept | {"PYTHONUTF8": "1"}


def peek_client(*arguments: str, seconds: float) -> str:
    """Returns what the client prints in the first seconds of a command that goes on, such as following a log."""
    settings = {"env": _environment(), "stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    stop = partial(signal.alarm, int(seconds) + 10)  # also if this process is killed
    with subprocess.Popen(_command(arguments), stdout=subprocess.PIPE, preexec_fn=stop, **settings) as child:  # type: ignore[call-overload] # noqa: PLW1509
        try:
            printed, _ = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            printed, _ = child.communicate()
    return printed_in(bytes(printed).decode(errors="replace"))
