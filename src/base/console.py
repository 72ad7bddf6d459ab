"""What the user sees: one-line errors with exit code 2, progress bars on a terminal, plain lines in a log."""

import _thread
import io
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import InvalidStateError
from contextlib import contextmanager, suppress
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from src.base.processes import STOPS, Stopped, follow_parent, leave_at_once, stoppable
from src.base.system_errors import explained

Item = TypeVar("Item")
terminal = Console(stderr=True, highlight=False)
LOG_SECONDS = 30  # `progress_bar` prints a line to a log after at least this many seconds
QUIET_SECONDS = 5  # after so many seconds a log says what runs
_displays: list[Progress] = []  # the one that the terminal shows


class UserError(ValueError):
    """A mistake that the user can fix. Its text is one line: what was found, what is needed, how to fix it."""


def say(text: str) -> None:
    """Prints one line to standard output and flushes it, so that logs and pipes receive it immediately."""
    print(f"{text}\n", end="", flush=True)  # in one piece, because several threads may print


def run_main(main: Callable[[], None]) -> None:
    """Runs a command and turns the expected errors into one line and an exit code.

    A `UserError` and what the system refuses give exit code 2. Ctrl-C gives 130, another stop signal 128 plus its
    number. A closed pipe gives 1. All other errors keep their traceback, because they are bugs of this project.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name can hold bytes that are no text
    follow_parent()
    threading.excepthook = _leave_to_main_thread
    try:
        with stoppable():
            main()
    except UserError as error:
        _stop(f"error: {' '.join(str(error).split())}", 2)
    except KeyboardInterrupt as stop:
        _stop("stopped", 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT))
    except BrokenPipeError:  # the reader of our output has closed the pipe, as `| head` does
        sys.stderr.close()
        sys.exit(1)
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        line = explained(error)
        if line is None:
            raise
        _stop(f"error: {line}", 2)


def run_program(main: Callable[[], None]) -> None:
    """Runs a command that is the whole program: as `run_main`, but a stopped one ends at once."""
    try:
        run_main(main)
    except SystemExit as leaving:
        if isinstance(leaving.code, int) and leaving.code - 128 in STOPS:
            leave_at_once(leaving.code)
        raise


def _leave_to_main_thread(failure: threading.ExceptHookArgs) -> None:
    """Prints the traceback of a thread that has failed, unless the system has refused something.

    The only thread that writes is TensorBoard's. It raises its error again in the main thread. The thread of a pool
    whose processes a stop has killed finds jobs that are cancelled already.
    """
    if isinstance(failure.exc_value, InvalidStateError):
        return
    if failure.exc_value is None or explained(failure.exc_value) is None:
        threading.__excepthook__(failure)


@contextmanager
def progress_bar(
    description: str, total: int, completed: int = 0, *, visible: bool = True
) -> Iterator[Callable[..., None]]:
    """Yields a function that counts one more step, or as many as it is given.

    On a terminal a bar shows the progress; a bar inside another one is a line below it, while it runs. In a log a plain
    line appears at first every `LOG_SECONDS`, later more seldom. With `visible=False` nothing is printed.
    """
    if not visible:
        yield lambda steps=1: None
    elif not terminal.is_terminal:
        yield _LogLines(description, total, completed).advance
    else:
        with _display() as progress:
            task = progress.add_task(description, total=total, completed=completed)
            try:
                yield lambda steps=1: progress.advance(task, steps)
            finally:
                if len(progress.tasks) > 1:  # the outermost one stays on the screen
                    progress.remove_task(task)


@contextmanager
def activity(description: str) -> Iterator[None]:
    """Says what runs while nothing can be counted: a moving bar on a terminal, in a log one line if it takes long."""
    if terminal.is_terminal:
        with _display() as progress:
            task = progress.add_task(description, total=None)
            try:
                yield
            finally:
                progress.remove_task(task)
        return
    ended = threading.Event()

    def speak() -> None:
        if not ended.wait(QUIET_SECONDS):
            say(f"{description} ...")

    # Not `threading.Thread`: its `start` waits for ever where memory is too short for the new thread.
    with suppress(RuntimeError):  # no thread can be started: then nothing is said
        _thread.start_new_thread(speak, ())
    try:
        yield
    finally:
        ended.set()


@contextmanager
def _display() -> Iterator[Progress]:
    """Yields the bars on the terminal. There is one display at a time; who asks inside of another one shares it."""
    if _displays:
        yield _displays[-1]
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=terminal) as progress:
        _displays.append(progress)
        try:
            yield progress
        finally:
            _displays.pop()


class _LogLines:
    """Prints the count of a step to a log, now and then: the pauses grow with the time that the step takes."""

    def __init__(self, description: str, total: int, completed: int = 0, first: float = LOG_SECONDS) -> None:
        self.description, self.total, self.completed, self.first = description, total, completed, first
        self.started = self.last_line = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Counts steps, and prints a line if one is due."""
        self.completed += steps
        now = time.monotonic()
        if now - self.last_line >= max(self.first, (now - self.started) / 10):
            self.tell()

    def tell(self) -> None:
        """Prints the count."""
        self.last_line = time.monotonic()
        say(f"{self.description} {self.completed}/{self.total} after {self.last_line - self.started:.0f} s")


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yields `items` and shows the progress: a bar on a terminal; in a log a line now and then, and one at the end."""
    lines = _LogLines(f"{description}:", total, first=QUIET_SECONDS)
    with progress_bar(description, total, visible=terminal.is_terminal) as advance:
        for item in items:
            yield item
            advance()
            if not terminal.is_terminal:
                lines.advance()
    if not terminal.is_terminal and total:
        lines.tell()


def _stop(line: str, code: int) -> None:
    with suppress(OSError):  # the terminal or the log's disk may be what has failed
        print(line, file=sys.stderr, flush=True)
    sys.exit(code)
