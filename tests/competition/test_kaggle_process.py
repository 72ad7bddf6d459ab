"""Tests of the client process: its arguments and environment, all time limits, and the lock."""

import itertools
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from src.base.console import UserError
from src.competition.client import (
    CLIENT_VERSIONS,
    Transfer,
    WaitPolicy,
    call_client,
    exclusive_lock,
    follow_transfer,
    poll_rounds,
    start_transfer,
)
from src.competition.errors import KaggleRefusal, KaggleUnavailable

SHORT = WaitPolicy(call_timeout_s=0.2, stall_s=0.3, poll_first_s=0.01, poll_longest_s=0.04)


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Replaces the client with a program that records its input, then sleeps. Returns the folder of the records."""
    script = f'env > "{tmp_path}/env"; echo "$@" > "{tmp_path}/words"; cat > "{tmp_path}/stdin"; sleep 60'
    monkeypatch.setattr("src.competition.client._command", lambda words: ["sh", "-c", script, "sh", *words])
    return tmp_path


def test_pauses_grow_and_the_last_poll_is_at_the_end() -> None:
    started = time.monotonic()
    looks = [time.monotonic() - started for _ in poll_rounds(SHORT, 0.2)]
    pauses = [after - before for before, after in itertools.pairwise(looks)]
    assert looks[0] < 0.01 and looks[-1] >= 0.2 and len(list(poll_rounds(SHORT, 0.0))) == 1
    assert all(pause >= least for pause, least in zip(pauses[:-1], (0.01, 0.015, 0.0225, 0.03375, 0.04), strict=False))


def test_a_call_ends_in_time_and_without_variables_that_print_secrets(
    sleeper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VERBOSE", "VERBOSE_OUTPUT", "TQDM_MININTERVAL"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(KaggleUnavailable, match="has not answered within 2 s"):
        call_client("slug", "competitions", "files", policy=WaitPolicy(call_timeout_s=2.0))
    given = dict(line.split("=", 1) for line in (sleeper / "env").read_text().splitlines() if "=" in line)
    assert not {"VERBOSE", "VERBOSE_OUTPUT", "TQDM_MININTERVAL"} & set(given) and given["PYTHONUTF8"] == "1"
    assert (sleeper / "words").read_text() == "competitions files\n" and (sleeper / "stdin").read_bytes() == b""


def test_a_transfer_without_progress_is_stopped(sleeper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with exclusive_lock(sleeper / "lock", lambda: None, SHORT) as lock:
        child = start_transfer("download", log=sleeper / "log", lock=lock)
        follow_transfer(child, "downloading", Transfer(sleeper / "none", lambda: 0.0), SHORT)
    assert child.returncode == -signal.SIGKILL and "no progress for 0 s" in capsys.readouterr().out


def test_a_child_keeps_the_lock_after_its_parent_and_is_named(sleeper: Path) -> None:
    with exclusive_lock(sleeper / "lock", lambda: None, SHORT) as lock:
        child = start_transfer("download", log=sleeper / "log", lock=lock)
    try:  # the parent has released the lock, the child has not
        needed = f"process {child.pid} holds .*lock and makes no progress; run `kill {child.pid}`"
        with pytest.raises(UserError, match=needed), exclusive_lock(sleeper / "lock", lambda: None, SHORT):
            pass
    finally:
        os.killpg(child.pid, signal.SIGKILL)  # the shell and its `sleep`, which have their own session
        child.wait()
    with exclusive_lock(sleeper / "lock", lambda: None, SHORT):
        assert (sleeper / "lock").read_text() == str(os.getpid())


def test_a_transfer_without_parent_ends_by_itself(sleeper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.competition.client.ORPHAN_LIMIT_S", 1)
    monkeypatch.setattr("src.competition.client._command", lambda words: ["sleep", "60"])
    with exclusive_lock(sleeper / "lock", lambda: None, SHORT) as lock:
        child = start_transfer(log=sleeper / "log", lock=lock)
    assert child.wait(10) == -signal.SIGALRM


def test_another_version_of_the_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CLIENT_VERSIONS, "kaggle", "9.9.9")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it was started"))
    with pytest.raises(KaggleRefusal, match=r"kaggle 9\.9\.9 is needed and .* is installed; run `make setup`"):
        call_client("slug", "competitions", "files", policy=SHORT)
