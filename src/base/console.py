"""What the user sees: one-line errors with exit code 2, progress bars on a terminal, plain lines in a log."""

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
LOG_LINES = 10  # `track` prints at most this many lines to a log
LOG_SECONDS = 30  # `progress_bar` prints a line to a log after at least this many seconds


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
        _print_error("stopped")
        _leave(main, 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT))
    except SystemExit as leaving:
        if isinstance(leaving.code, int) and leaving.code - 128 in STOPS:
            _leave(main, leaving.code)
        raise
    except BrokenPipeError:  # the reader of our output has closed the pipe, as `| head` does
        sys.stderr.close()
        sys.exit(1)
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        line = explained(error)
        if line is None:
            raise
        _stop(f"error: {line}", 2)


def _leave(main: Callable[[], None], code: int) -> None:
    """Ends a stopped command at once, if it is a program of its own."""
    if main.__module__ == "__main__":
        leave_at_once(code)
    sys.exit(code)


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
) -> Iterator[Callable[[], None]]:
    """Yields a function that counts one more step.

    On a terminal a bar shows the progress. In a log a plain line appears every `LOG_SECONDS`.
    With `visible=False` nothing is printed.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    if visible and not terminal.is_terminal:
        yield _log_lines(description, total, completed)
        return
    with Progress(*columns, console=terminal, disable=not visible) as progress:
        task = progress.add_task(description, total=total, completed=completed)
        yield lambda: progress.advance(task)


def _log_lines(description: str, total: int, completed: int) -> Callable[[], None]:
    """Returns a function that counts one more step and prints the count every `LOG_SECONDS`."""
    started = time.monotonic()
    last_line = started

    def advance() -> None:
        nonlocal completed, last_line
        completed += 1
        now = time.monotonic()
        if now - last_line >= LOG_SECONDS:
            last_line = now
            say(f"{description} {completed}/{total} after {now - started:.0f} s")

    return advance


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yields `items` and shows the progress: a bar on a terminal, at most `LOG_LINES` plain lines in a log."""
    started = time.monotonic()
    stride = max(1, -(-total // LOG_LINES))
    with progress_bar(description, total, visible=terminal.is_terminal) as advance:
        for count, item in enumerate(items, start=1):
            yield item
            advance()
            if not terminal.is_terminal and (count % stride == 0 or count == total):
                say(f"{description}: {count}/{total} after {time.monotonic() - started:.0f} s")


def _stop(line: str, code: int) -> None:
    _print_error(line)
    sys.exit(code)


def _print_error(line: str) -> None:
    with suppress(OSError):  # the terminal or the log's disk may be what has failed
        print(line, file=sys.stderr, flush=True)
