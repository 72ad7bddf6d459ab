"""Runs the official `kaggle` client as a child process and explains its answers; no other file starts it.

The client is never imported: its import authenticates, prints, creates a folder and calls the network. What is relied
on here was found with the versions in `CLIENT_VERSIONS`; tests/test_kaggle_client.py notices when another one differs.
"""

import fcntl
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
from src.competition.errors import AGAIN, KaggleRefusal, KaggleSilence, explain

CLIENT_VERSIONS = {"kaggle": "2.2.4", "kagglesdk": "0.1.37", "tqdm": "4.70.1"}  # tqdm draws the bar of an upload
ORPHAN_LIMIT_S = 7200  # a transfer ends itself after so long, even when the process that began it is gone
WATCH_S = 0.1  # between two looks at a transfer
SHOW_AFTER_S = 3.0  # a shorter transfer shows no bar


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds."""

    call_timeout_s: float = 60.0  # one question
    stall_s: float = 180.0  # an upload or download that moves nothing
    poll_first_s: float = 5.0  # the pause between two looks grows from this ...
    poll_longest_s: float = 60.0  # ... to this
    settle_s: float = 60.0  # looking for a submission that nobody confirmed
    deadline_s: float = 1800.0  # waiting for the score


@dataclass(frozen=True)
class Transfer:
    """How to see a transfer move: a file that grows with it, and how much is done, 0 to 100."""

    file: Path
    percent: Callable[[], float]


class Lock:
    """An open, locked file that names the process at work; children inherit it, so that it outlives us with them."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def name_holder(self, process: int) -> None:
        """Writes down which process a person would have to end."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, str(process).encode(), 0)


def size_of(path: Path) -> int:
    """Returns the size of a file in bytes, 0 where there is none: files of a transfer come and go."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def ticks(patience: Patience, total_s: float) -> Iterator[None]:
    """Yields at once, then after pauses that grow, the last time when `total_s` seconds have passed."""
    end, pause_s = time.monotonic() + total_s, patience.poll_first_s
    while True:
        yield
        left_s = end - time.monotonic()
        if left_s <= 0:
            return
        time.sleep(min(pause_s, left_s))
        pause_s = min(1.5 * pause_s, patience.poll_longest_s)


def ask(slug: str, *arguments: str, patience: Patience) -> str:
    """Returns what the client printed for a question; `KaggleRefusal` or `KaggleSilence` where it failed."""
    try:
        result = subprocess.run(
            _command(arguments),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=patience.call_timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        what = f"Kaggle has not answered within {patience.call_timeout_s:.0f} s"
        raise KaggleSilence(what, f"check the network, then {AGAIN}") from error
    if result.returncode != 0:
        raise explain(f"{result.stdout}\n{result.stderr}", slug)
    return result.stdout


def start(*arguments: str, log: Path, lock: Lock) -> "subprocess.Popen[bytes]":
    """Starts a transfer that goes on when this process dies: it writes to `log`, holds `lock`, ends itself in time."""
    with open(log, "wb", opener=_for_us_alone) as output:
        child = subprocess.Popen(
            _command(arguments),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone: the client answers it with exit code 0
            pass_fds=(lock.descriptor,),
            # an alarm clock outlives exec and the parent; there is one thread here
            preexec_fn=partial(signal.alarm, ORPHAN_LIMIT_S),  # noqa: PLW1509
        )
    lock.name_holder(child.pid)
    return child


def follow(child: "subprocess.Popen[bytes]", description: str, transfer: Transfer, patience: Patience) -> None:
    """Shows a transfer until it ends, and ends it when it stalls or when we are stopped."""

    def steps() -> Iterator[int]:
        shown, last, since = 0, -1, started
        while child.poll() is None:
            if (size := size_of(transfer.file)) != last:
                last, since = size, time.monotonic()
            elif time.monotonic() - since > patience.stall_s:
                say(f"{description}: nothing has moved for {patience.stall_s:.0f} s; stopped")
                return
            if time.monotonic() - started > SHOW_AFTER_S:
                reached = int(transfer.percent())
                yield from range(shown, reached)
                shown = max(shown, reached)
            time.sleep(WATCH_S)

    started = time.monotonic()
    try:
        for _ in track(steps(), description, total=100):
            pass
    finally:
        child.kill()
        child.wait()


@contextmanager
def one_at_a_time(path: Path, progress: Callable[[], object], patience: Patience) -> Iterator[Lock]:
    """Holds the lock at `path`; waits for another holder as long as `progress()` keeps changing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        last, since, said = None, time.monotonic(), False
        while not _try_lock(descriptor):
            holder = os.pread(descriptor, 20, 0).decode()
            if not said:
                say(f"process {holder} is at the same work; waiting for it")
                said = True
            if (current := progress()) != last:
                last, since = current, time.monotonic()
            elif time.monotonic() - since > patience.stall_s:
                raise UserError(
                    f"process {holder} holds {path} and does not move; `kill {holder}`, then the same command again"
                )
            time.sleep(WATCH_S)
        lock = Lock(descriptor)
        lock.name_holder(os.getpid())
        yield lock
    finally:
        os.close(descriptor)


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # an error of the client can name the signed address of a file


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    return [sys.executable, "-P", "-m", "kaggle", "-W", *arguments]  # -P: the current folder is no place for modules


def _environment() -> dict[str, str]:
    unwanted = ("VERBOSE", "VERBOSE_OUTPUT")  # either prints the Authorization header
    kept = {name: value for name, value in os.environ.items() if name not in unwanted and not name.startswith("TQDM_")}
    return kept | {"PYTHONUTF8": "1"}
