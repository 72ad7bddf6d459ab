"""What the user sees: one line and exit code 2 for a mistake, and progress that suits a log."""

import errno
import io
import sys
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from src.base import console
from src.base.console import UserError, activity, progress_bar, run_main, say, track


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


@pytest.mark.parametrize("total", [0, 1, 7, 1000])
def test_a_fast_step_logs_only_its_end(total: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(total), "reading", total)) == list(range(total))
    captured = capsys.readouterr()
    assert captured.err == ""
    assert [line.partition(" after")[0] for line in captured.out.splitlines()] == [f"reading: {total}/{total}"] * (
        total > 0
    )


def test_a_slow_step_logs_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    for _ in track(range(3600), "reading", 3600):  # one second each
        clock[0] += 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["reading: 5/3600 after 5 s", "reading: 10/3600 after 10 s"]
    assert lines[-1] == "reading: 3600/3600 after 3600 s" and len(lines) < 60


def test_a_log_says_what_runs_if_it_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with activity("hashing"):
        pass
    assert capsys.readouterr().out == ""
    said = threading.Event()
    monkeypatch.setattr(console, "QUIET_SECONDS", 0)
    monkeypatch.setattr(console, "say", lambda line: (print(line), said.set()))
    with activity("hashing"):
        assert said.wait(60)
    assert capsys.readouterr().out == "hashing ...\n"


def test_a_terminal_shows_bars_inside_of_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(console, "terminal", Console(file=shown, force_terminal=True, width=100))
    with progress_bar("steps", 3) as advance:
        with activity("validating"), progress_bar("drawing frames", 630) as count:
            count(630)
            console._displays[0].refresh()
        advance()
    assert console._displays == []
    assert all(word in shown.getvalue() for word in ("steps", "validating", "630/630"))
    assert "1/3" in shown.getvalue()


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
