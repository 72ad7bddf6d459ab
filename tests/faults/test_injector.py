"""The fault injector does what it says, shown on small programs whose right outcome is known."""

import errno
import sys
from pathlib import Path

import pytest

from tests.faults.injector import Fault, Kind, run

REPLACE = """
import os
with open("new", "wb", buffering=0) as file:
    file.write(b"12345678")
    os.fsync(file.fileno())
os.replace("new", "old")
folder = os.open(".", os.O_RDONLY)
os.fsync(folder)
with open("old", "r+b", buffering=0) as file:
    file.seek(2)
    file.write(b"ab")
os.unlink("spare")
"""
CALLS = ["open /new", "write /new", "fsync /new", "rename /old", "fsync ", "write /old", "unlink /spare"]


def replace(folder: Path, fault: Fault, script: str = REPLACE) -> tuple[int, dict[str, bytes]]:
    """Runs the program with a fault; returns its exit code and the files that it leaves."""
    (folder / "old").write_bytes(b"before")
    (folder / "spare").write_bytes(b"")
    result = run([sys.executable, "-S", "-c", script], folder, fault)
    return result.code, {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_operations_are_counted_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    (tmp_path / "spare").touch()
    result = run([sys.executable, "-S", "-c", REPLACE], tmp_path)
    assert (result.code, result.operations) == (0, [f"{n} {call}" for n, call in enumerate(CALLS, start=1)])


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        (Fault(1, "before"), {"old": b"before", "spare": b""}),
        (Fault(1, "after"), {"old": b"before", "spare": b"", "new": b""}),
        (Fault(2, "half"), {"old": b"before", "spare": b"", "new": b"1234"}),
        (Fault(2, "after"), {"old": b"before", "spare": b"", "new": b"12345678"}),
        (Fault(4, "before"), {"old": b"before", "spare": b"", "new": b"12345678"}),
        (Fault(4, "after"), {"old": b"12345678", "spare": b""}),
        (Fault(7, "after"), {"old": b"12ab5678"}),
        (Fault(3, "drop"), {"old": b"before", "spare": b"", "new": b""}),  # written, but not synced
        (Fault(5, "drop"), {"old": b"before", "spare": b"", "new": b"12345678"}),  # renamed, but the folder not synced
        (Fault(6, "drop"), {"old": b"12345678", "spare": b""}),
        (Fault(7, "drop"), {"old": b"12345678", "spare": b""}),  # overwritten, but not synced
    ],
    ids=str,
)
def test_a_kill_leaves_what_a_kill_leaves(tmp_path: Path, fault: Fault, left: dict[str, bytes]) -> None:
    assert replace(tmp_path, fault) == (-9, left)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EMFILE])
@pytest.mark.parametrize(("place", "kind"), [(1, "fail"), (2, "fail"), (1, "fail on")])
def test_a_failure_has_its_number(tmp_path: Path, place: int, kind: Kind, code: int) -> None:
    inner = "".join(f"    {line}\n" for line in REPLACE.splitlines())
    script = f"try:\n    pass\n{inner}except OSError as error:\n    raise SystemExit(error.errno)\n"
    found, files = replace(tmp_path, Fault(place, kind, code), script)
    assert found == code and files["old"] == b"before"


def test_children_share_the_count_and_the_end(tmp_path: Path) -> None:
    child = "[sys.executable, '-S', '-c', f'open({name!r}, \"w\")']"
    script = f"import subprocess, sys\nfor name in 'abc':\n    subprocess.run({child})"
    result = run([sys.executable, "-S", "-c", script], tmp_path, Fault(2, "after"))
    assert result.code == -9 and sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
