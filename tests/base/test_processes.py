"""Children end with their parent, however it ends; a stop signal is an exception that cleans up."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.base.processes import Stopped, handled, stoppable
from tests.conftest import ROOT

PARENT = """
import subprocess, sys, time
from src.base.processes import environment_of_child
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=environment_of_child(), start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""
CHILD = """
import time
from src.base.processes import follow_parent
follow_parent()
print("ready", flush=True)
time.sleep(60)
"""
POOL = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from src.base.processes import end_pool_process_with_parent
if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, get_context(sys.argv[1]), end_pool_process_with_parent)
    jobs = [pool.submit(time.sleep, 60) for _ in range(2)]
    while len(pool._processes) < 2:
        time.sleep(0.01)
    time.sleep(1)
    print(*pool._processes, flush=True)
    time.sleep(60)
"""


def is_running(process: int) -> bool:
    """Returns whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_end(*processes: int) -> None:
    for _ in range(500):
        if not any(map(is_running, processes)):
            return
        time.sleep(0.01)
    raise AssertionError(f"of {processes} some are alive")


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.parametrize("stopped_first", [False, True], ids=["running", "stopped"])
def test_a_child_is_killed_with_its_parent(stopped_first: bool) -> None:
    parent = start("-c", PARENT, CHILD)
    assert parent.stdout
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == "ready\n"
    if stopped_first:  # as a child on a slow machine, which goes on much later
        os.kill(child, signal.SIGSTOP)
    parent.kill()
    wait_for_end(child)
    parent.communicate()


def test_a_child_whose_parent_has_ended_does_not_begin() -> None:
    environment = os.environ | {"END_WITH_PARENT": "KILL 1"}
    result = subprocess.run(
        [sys.executable, "-c", CHILD],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=30,
    )
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_is_killed_with_its_parent(method: str, tmp_path: Path) -> None:
    (tmp_path / "pool.py").write_text(POOL)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "pool.py"), method],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout
    children = [int(word) for word in parent.stdout.readline().split()]
    assert len(children) == 2 and all(map(is_running, children))
    parent.kill()
    wait_for_end(*children)
    parent.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_is_an_exception(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stop, stoppable():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert stop.value.number == number
    assert signal.getsignal(number) == before


def test_an_ignored_signal_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled(lambda number, frame: pytest.fail("called")):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_stopped_command_cleans_up_and_says_so(number: signal.Signals, code: int) -> None:
    script = (
        "import time\nfrom src.base.console import run_main\n"
        "def main():\n    try:\n        print('ready', flush=True)\n        time.sleep(60)\n"
        "    finally:\n        print('cleaned', flush=True)\nrun_main(main)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (code, "cleaned\n", "stopped\n")
