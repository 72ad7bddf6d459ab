"""The lock of a folder: one owner, which is named; the lock of a killed process is taken over."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.base import ownership
from src.base.console import UserError
from src.base.ownership import owned, partial_name
from tests.conftest import ROOT

HOLDER = """
import sys, time
from pathlib import Path
from src.base.ownership import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
GONE = 2**22 + 1  # beyond the highest process number of Linux


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder to be owned."""
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    return tmp_path / "runs" / "demo"


@pytest.fixture(params=["flock", "without flock"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of file system."""
    if request.param == "without flock":

        def refuse(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)
    return str(request.param)


def test_the_lock_is_held_and_leaves_nothing(run: Path, system: str) -> None:
    with owned(run):
        owner = json.loads((run.parent / ".demo.lock").read_text())
        assert owner["process"] == os.getpid() and owner["command"].startswith("python ")
        with pytest.raises(UserError, match=rf"runs/demo is in use by process {os.getpid()} on .*; needed: one"):
            owned(run).__enter__()
    assert [path.name for path in run.parent.iterdir()] == ["demo"]
    with owned(run):
        pass


def test_another_process_is_named_and_its_lock_is_taken_over_when_it_is_killed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"is in use by process {holder.pid} on .*: python -c "), owned(run):
        pass
    holder.kill()
    holder.communicate()
    with owned(run):
        assert f"taken over from process {holder.pid} on " in capsys.readouterr().out
    with owned(run):
        assert capsys.readouterr().out == ""


def test_without_flock_a_process_of_another_computer_is_believed(
    run: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    place = run.parent / ".demo.owner"
    owner = {"host": "another", "process": GONE, "command": "python", "since": "2026-01-01T00:00:00+00:00"}
    place.write_text(json.dumps(owner))
    if system == "flock":
        with owned(run):
            return
    with pytest.raises(UserError, match=rf"in use by process {GONE} on another.*; if it has ended, delete .*owner"):
        owned(run).__enter__()
    place.write_text(json.dumps(owner | {"host": ownership.socket.gethostname()}))
    with owned(run):
        assert json.loads(place.read_text())["process"] == os.getpid()
    assert not place.exists()


@pytest.mark.parametrize("process", [0, -1, 2**31, 10**30])
def test_without_flock_a_number_that_no_process_has_is_not_believed(
    run: Path, monkeypatch: pytest.MonkeyPatch, process: int
) -> None:
    """For the system, 0 and -1 are groups of processes, which always live."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    owner = {"host": ownership.socket.gethostname(), "process": process, "command": "", "since": ""}
    (run.parent / ".demo.owner").write_text(json.dumps(owner))
    with pytest.raises(UserError, match=r"in use by another process; .*; if it has ended, delete .*\.demo\.owner"):
        owned(run).__enter__()


def test_the_lock_is_on_the_file_that_others_see(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that ends between our opening and our locking removes the file that we have opened."""
    place = run.parent / ".demo.lock"
    flock = fcntl.flock

    def first_its_owner_ends(descriptor: int, operation: int) -> None:
        place.unlink()
        monkeypatch.setattr(fcntl, "flock", flock)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", first_its_owner_ends)
    with owned(run):
        assert json.loads(place.read_text())["process"] == os.getpid()
        with pytest.raises(UserError, match=r"runs/demo is in use by process"):
            owned(run).__enter__()


def test_leftovers_of_killed_processes_are_removed(run: Path) -> None:
    left = [run / f".best.pt.{GONE}.partial", run.parent / f".demo.{GONE}.partial"]
    left += [run.parent / f".demo.csv.{GONE}.partial", run.parent / f"..demo.csv.{GONE}.partial"]
    left += [run / partial_name("best.pt")]  # a killed process of a container often had this process's number
    kept = [run / f".best.pt.{os.getppid()}.partial", run / "best.pt", run / ".best.pt.partial"]
    kept += [run.parent / f".a.{GONE}.partial", run.parent / f".demo2.csv.{GONE}.partial"]
    for path in (left[0], *left[2:], *kept):
        path.write_text("")
    left[1].mkdir()
    with owned(run):
        assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError), owned(tmp_path / "file" / "run"):
        pass


LEFT = """
import os, sys, time
from pathlib import Path
from src.base.ownership import owned
lock = owned(Path(sys.argv[1]))
lock.__enter__()
if os.fork() == 0:  # the child inherits the lock
    os.close(1)
    time.sleep(float(sys.argv[2]))
os._exit(9)
"""


@pytest.mark.parametrize(("seconds", "is_free"), [(0.5, True), (20, False)])
def test_a_child_of_a_killed_owner_is_waited_for_but_not_for_long(
    run: Path, seconds: float, is_free: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", LEFT, str(run), str(seconds)]
    assert subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE).returncode == 9
    if is_free:
        with owned(run):
            assert "taken over from process" in capsys.readouterr().out
    else:
        with pytest.raises(UserError, match=r"runs/demo is in use by process"):
            owned(run).__enter__()
