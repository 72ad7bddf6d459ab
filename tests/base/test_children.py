"""Commands side by side: how many, their shares of the machine, their lines, and stop signals."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from src.base.children import Starter, Steps, run_side_by_side, usable_cores

SAVES_WHEN_STOPPED = (
    "import pathlib, signal, sys, time\n"
    "said = pathlib.Path(sys.argv[1])\n"
    "def save(number, frame):\n"
    "    with said.open('a') as file: file.write(signal.Signals(number).name + ' ')\n"
    "    sys.exit(130)\n"
    "signal.signal(signal.SIGTERM, save)\n"
    "said.write_text('ready ')\n"
    "time.sleep(60)\n"
)
SHOWS_ITS_SHARE = (
    "import os, time; print(os.environ['OMP_NUM_THREADS'], os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(1)"
)


def python(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-c", *words)


def codes_of(*commands: Sequence[str]) -> Steps[list[int | None]]:
    """A task that runs commands one after the other and returns their exit codes."""
    codes = []
    for command in commands:
        codes.append((yield command))
    return codes


@pytest.mark.parametrize("at_once", [1, 2])
def test_each_task_gets_the_exit_codes_of_its_commands(at_once: int) -> None:
    tasks = [("a", codes_of(python("raise SystemExit(7)"), python(""))), ("b", codes_of()), ("c", codes_of(python("")))]
    assert dict(run_side_by_side(tasks, Starter(at_once), at_once)) == {"a": [7, 0], "b": [], "c": [0]}


def test_never_more_than_asked_run_at_once_and_all_places_are_used() -> None:
    seen: list[set[int]] = []
    running: dict[int, subprocess.Popen[bytes]] = {}

    def start(command: Sequence[str], *, label: str, place: int) -> "subprocess.Popen[bytes]":
        busy = {other for other, child in running.items() if child.poll() is None}
        assert place not in busy
        seen.append(busy | {place})
        running[place] = subprocess.Popen(command)
        return running[place]

    tasks = [(str(number), codes_of(python("import time; time.sleep(0.3)"))) for number in range(6)]
    assert len(list(run_side_by_side(tasks, start, 3))) == 6
    assert set.union(*seen) == {0, 1, 2} and max(map(len, seen)) == 3


def test_the_cores_and_the_gpus_are_shared(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    tasks = [(name, codes_of(python(SHOWS_ITS_SHARE))) for name in "ab"]
    before = set(threading.enumerate())
    assert dict(run_side_by_side(tasks, Starter(2, ("3", "5")), 2)) == {"a": [0], "b": [0]}
    for thread in set(threading.enumerate()) - before:
        thread.join()  # the lines come through threads
    share = max(1, usable_cores() // 2)
    assert sorted(capfd.readouterr().out.splitlines()) == [f"a: {share} 3", f"b: {share} 5"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_reaches_each_command_once_and_ends_all(tmp_path: Path, number: int) -> None:
    said = [tmp_path / "a", tmp_path / "b"]

    def stop() -> None:
        while not all(path.exists() and path.read_text() == "ready " for path in said):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    threading.Thread(target=stop, daemon=True).start()
    paths = (*said, tmp_path / "c")
    tasks = [(path.name, codes_of(python(SAVES_WHEN_STOPPED, str(path)), python(""))) for path in paths]
    with pytest.raises(KeyboardInterrupt):
        list(run_side_by_side(tasks, Starter(2), 2))
    assert [path.read_text() for path in said] == 2 * ["ready SIGTERM "] and not paths[2].exists()
    assert signal.getsignal(number) == handler
