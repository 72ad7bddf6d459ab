"""What a command has written is on the disk before it is recorded or has its name, so a power cut takes nothing back.

The operations are counted outside of Python, by the fault injector.
"""

import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest

from tests.conftest import ROOT
from tests.dance_images import dance_files, write_zip
from tests.faults.injector import run

ATOMIC = """
from pathlib import Path
from src.base.files import write_atomically
write_atomically(Path("a"), b"1")
"""
LEDGER = """
from pathlib import Path
from src.competition.ledger import Event, Ledger
for kind in ("intent", "unknown"):
    Ledger(Path("submissions/ledger.jsonl")).append(Event(event=kind, competition="s", run="r", tag="t"))
"""
LOG = """
from pathlib import Path
from src.training.log import History
history = History(Path("."), 0)
for epoch in (1, 2):
    history.add({"epoch": epoch, "step": epoch})
history.close()
"""
COMMANDS = {
    "one file": ["-c", ATOMIC],
    "ledger": ["-c", LEDGER],
    "log": ["-c", LOG],
    "data": ["-m", "src.packing", "--source", "a.zip", "--dataset", "tiny"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_everything_is_on_the_disk_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_zip(tmp_path / "a.zip", dance_files())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = run([sys.executable, *COMMANDS[name]], tmp_path)
    assert done.code == 0, done.errors
    operations = [(call, path) for _, call, path in (line.split(" ", 2) for line in done.operations)]
    kept = [(call, path) for call, path in operations if not path.startswith("/tensorboard")]
    assert sum(call == "write" for call, _ in kept) >= 1
    assert mistakes(kept) == []


def mistakes(operations: Sequence[tuple[str, str]]) -> list[str]:
    """Returns a line for each write, and each new name, that a power cut could take back."""
    found = []
    waiting: set[str] = set()  # files and folders that are not on the disk yet
    synced: set[str] = set()
    for call, path in operations:
        if call == "write":
            if path in waiting & synced:
                found.append(f"{path} is written on before its last record is on the disk")
            waiting.add(path)
        elif call == "fsync":
            waiting.discard(path)
            synced.add(path)
        elif call == "rename":
            found += [f"{other} is not on the disk when {path} gets its name" for other in sorted(waiting)]
            waiting.add(str(PurePosixPath(path).parent).removesuffix("/"))
    return found + [f"{path} is not on the disk at the end" for path in sorted(waiting)]


def test_the_mistakes_are_found() -> None:
    assert mistakes([("write", "/a"), ("write", "/a"), ("fsync", "/a"), ("rename", "/b"), ("fsync", "")]) == []
    assert mistakes([("write", "/a")]) == ["/a is not on the disk at the end"]
    assert mistakes([("write", "/a"), ("rename", "/b"), ("fsync", "/a"), ("fsync", "")]) == [
        "/a is not on the disk when /b gets its name"
    ]
    assert mistakes([("rename", "/c/b")]) == ["/c is not on the disk at the end"]
    assert mistakes([("write", "/a"), ("fsync", "/a"), ("write", "/a"), ("write", "/a"), ("fsync", "/a")]) == [
        "/a is written on before its last record is on the disk"
    ]
