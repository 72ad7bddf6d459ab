"""Processes that end together: signals that stop a command, and children that do not outlive their parent."""

import atexit
import ctypes
import multiprocessing
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
WITH_PARENT = (
    "END_WITH_PARENT"  # a command with this variable ends with its parent: "TERM" saves first, "KILL" does not
)
PR_SET_PDEATHSIG = 1  # of Linux: the signal that a process gets when its parent ends
POLL_SECONDS = 0.2  # where the system has no such signal


class Stopped(KeyboardInterrupt):
    """A signal that stops this command, so that it can remove what is half written. `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Turns Ctrl-C, SIGTERM and a closed terminal into the exception `Stopped`. An ignored signal stays ignored.

    The processes of pools are killed first, because a pool waits for what they have begun.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        leave_terminal(number)
        for child in multiprocessing.active_children():
            child.kill()
        raise Stopped(number)

    with handled(stop):
        yield


@contextmanager
def handled(handler: object) -> Iterator[None]:
    """Calls `handler` for the signals that stop a command. It leaves those that are ignored, as under nohup."""
    before = {number: signal.getsignal(number) for number in STOPS}
    chosen = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in chosen:
        signal.signal(number, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, old in chosen.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


def leave_terminal(number: int) -> None:
    """After SIGHUP, sends what is still printed nowhere. The terminal is gone, and writing to it would fail."""
    if number != getattr(signal, "SIGHUP", None):
        return
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):  # not a file or a pipe
            os.dup2(nowhere, descriptor)
    os.close(nowhere)


def leave_at_once(code: int) -> None:
    """Ends this process, without the two seconds in which torch's modules are taken apart."""
    atexit._run_exitfuncs()  # public functions do this only together with the rest
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or its disk is full
            stream.flush()
    os._exit(code)


def environment_of_child() -> dict[str, str]:
    """Returns the environment for a command of ours that shall end when this process ends, even if it is killed."""
    return os.environ | {WITH_PARENT: f"KILL {os.getpid()}"}


def follow_parent() -> None:
    """Makes this command end with the process that started it, if that process has asked for it.

    Make asks with "TERM". A command that starts another one asks with `environment_of_child`.
    """
    word, _, parent = os.environ.pop(WITH_PARENT, "").partition(" ")
    if word:
        number = signal.SIGTERM if word == "TERM" else signal.SIGKILL
        end_with_parent(int(parent) if parent.isdecimal() else os.getppid(), number)


def end_pool_process_with_parent() -> None:
    """Makes a process of a pool end with the command that started the pool. Ctrl-C is left to that command."""
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None, "this runs in a child process"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in set(STOPS) - {signal.SIGINT}:
        signal.signal(number, signal.SIG_DFL)
    end_with_parent(parent.pid, signal.SIGKILL)


def end_with_parent(parent: int, number: int) -> None:
    """Makes this process get a signal when its parent, the process with that number, ends in any way."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    else:
        threading.Thread(target=_watch, args=(parent, number), daemon=True).start()
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def _watch(parent: int, number: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), number)
