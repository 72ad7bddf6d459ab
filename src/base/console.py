"""What a person sees: one-line errors with exit code 2, progress bars on a terminal, plain lines in a log."""

import errno
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
terminal = Console(stderr=True, highlight=False)
LOG_LINES = 10  # lines a long step leaves in a log file, at most
LOG_SECONDS = 30  # between the lines of a step whose end is far


class UserError(ValueError):
    """A mistake the user can mend; its text says what was found, what is needed and what mends it, in one line."""


def say(text: str) -> None:
    """Prints one line to standard output at once, so that logs and pipes see it when it happens."""
    print(text, flush=True)


def run_main(main: Callable[[], None]) -> None:
    """Runs a command; a `UserError` or a full or read-only disk ends in one line and exit code 2, Ctrl-C in 130."""
    try:
        main()
    except UserError as error:
        _stop(f"error: {' '.join(str(error).split())}", 2)
    except KeyboardInterrupt:
        _stop("stopped", 130)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        mend = {
            errno.ENOSPC: "the disk is full; free some space and run the same command again",
            errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
            errno.EROFS: "the file system is read-only; use a folder that can be written",
            errno.EACCES: "permission denied; use a folder that this user can read and write",
            errno.EPERM: "not permitted; use a folder that this user can read and write",
        }.get(error.errno or 0)
        if mend is None:
            raise
        _stop(f"error: {error.filename or 'writing a file'}: {mend}", 2)


@contextmanager
def progress_bar(
    description: str, total: int, completed: int = 0, *, shown: bool = True
) -> Iterator[Callable[[], None]]:
    """Shows a bar on a terminal, a plain line now and then in a log; yields a function that advances it by one."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    if shown and not terminal.is_terminal:
        yield _log_lines(description, total, completed)
        return
    with Progress(*columns, console=terminal, disable=not shown) as progress:
        task = progress.add_task(description, total=total, completed=completed)
        yield lambda: progress.advance(task)


def _log_lines(description: str, total: int, completed: int) -> Callable[[], None]:
    """Returns a function that counts, and says so every `LOG_SECONDS`."""
    started = said = time.monotonic()

    def advance() -> None:
        nonlocal completed, said
        completed, now = completed + 1, time.monotonic()
        if now - said >= LOG_SECONDS:
            said = now
            say(f"{description} {completed}/{total} after {now - started:.0f} s")

    return advance


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yields `items` while showing a bar on a terminal, or at most `LOG_LINES` plain lines in a log."""
    started, stride = time.monotonic(), max(1, -(-total // LOG_LINES))
    with progress_bar(description, total, shown=terminal.is_terminal) as advance:
        for count, item in enumerate(items, start=1):
            yield item
            advance()
            if not terminal.is_terminal and (count % stride == 0 or count == total):
                say(f"{description}: {count}/{total} after {time.monotonic() - started:.0f} s")


def _stop(line: str, code: int) -> None:
    print(line, file=sys.stderr, flush=True)
    sys.exit(code)
