"""What the user sees: one line and exit code 2 for a mistake, and progress that suits a log."""

import errno
import io
import sys
from collections.abc import Callable

import pytest

from src.base import console
from src.base.console import LOG_LINES, UserError, progress_bar, run_main, say, track


def failing(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("seed = -1:\n  needed: 0 or more"), 2, "error: seed = -1: needed: 0 or more"),
        (OSError(errno.ENOSPC, "No space", "a.npy"), 2, "error: a.npy: the disk is full"),
        (OSError(errno.ENOSPC, "No space"), 2, "error: a file: the disk is full"),
        (OSError(errno.EDQUOT, "Quota", "a.npy"), 2, "error: a.npy: the disk quota is used up"),
        (OSError(errno.EROFS, "Read-only", "a.npy"), 2, "error: a.npy: the file system is read-only"),
        (OSError(errno.EACCES, "Denied", "a.npy"), 2, "error: a.npy: permission denied"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_a_mistake_is_one_line(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_main(failing(error))
    assert stop.value.code == code
    captured = capsys.readouterr()
    assert captured.err.startswith(line)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("error", [AssertionError("ours"), ValueError("ours"), OSError("no number")])
def test_our_own_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        run_main(failing(error))


def test_a_closed_pipe_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with pytest.raises(SystemExit) as stop:
        run_main(failing(BrokenPipeError()))
    assert stop.value.code == 1


def test_success_leaves_no_trace(capsys: pytest.CaptureFixture[str]) -> None:
    run_main(lambda: say("done"))
    assert capsys.readouterr() == ("done\n", "")


@pytest.mark.parametrize("total", [0, 1, 7, LOG_LINES, 25, 1000])
def test_a_log_holds_few_lines_and_the_last_count(total: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(total), "reading", total)) == list(range(total))
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) <= LOG_LINES
    assert captured.err == ""
    assert (f"reading: {total}/{total} after" in lines[-1]) if total else not lines


def test_a_long_step_logs_a_line_every_half_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with progress_bar("demo: steps", 100, 5) as advance:
        for _ in range(7):  # 10 s each
            clock[0] += 10
            advance()
    assert capsys.readouterr() == ("demo: steps 8/100 after 30 s\ndemo: steps 11/100 after 60 s\n", "")
    with progress_bar("demo: steps", 100, visible=False) as advance:
        clock[0] += 100
        advance()
    assert capsys.readouterr() == ("", "")


def test_a_short_step_is_silent_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("steps", 3) as advance:
        advance()
    assert capsys.readouterr() == ("", "")
