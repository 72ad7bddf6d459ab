"""One owner at a time: the lock of a folder or file that a command writes into.

The lock of runs/demo is the file runs/.demo.lock. It says who holds it. The system's own lock on that file (flock)
counts, so a command that is killed holds nothing. File systems without flock exist, for example some network folders.
There, the file .demo.owner is created, which only one process can do, and the number of its process counts.
"""

import errno
import fcntl
import os
import re
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from src.base.console import UserError, say
from src.base.reading import Unreadable, parse_json, read_json

WITHOUT_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
MAX_OWNER_BYTES = 4096
CHILDREN_END_S = 2.0  # in which the children of a killed command have ended
PARTIAL = re.compile(r"\.(?P<name>.+)\.(?P<process>[0-9]+)\.partial")  # the names of `partial_name`


class Owner(BaseModel):
    """The process that holds a lock: its computer, its number, its command and the time of its start."""

    host: str
    process: Annotated[int, Field(ge=1, lt=2**31)]  # 0 and negative numbers mean groups of processes
    command: str
    since: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}: {self.command}"

    def is_of_this_host(self) -> bool:
        """Returns whether it is, or was, a process of this computer."""
        return self.host == socket.gethostname()

    def is_here(self) -> bool:
        """Returns whether it is of this computer and alive."""
        return self.is_of_this_host() and is_alive(self.process)


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Holds the lock of a folder or file that is written into; UserError, which names the owner, if it is taken.

    Afterwards nobody else writes there, so what killed commands have left half written is removed.
    """
    with _lock(path):
        remove_leftovers(path)
        yield


def partial_name(name: str) -> str:
    """Returns the name under which this process writes a file until it is complete."""
    return f".{name}.{os.getpid()}.partial"


def lock_file(descriptor: int, path: Path, *, wait: bool) -> None:
    """Locks an open file until it is closed; BlockingIOError if another process has it and `wait` is False.

    OSError with ENOLCK and the path where the file system has no locks, whatever number the system uses for that.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in WITHOUT_FLOCK:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(path)) from None
        raise


def remove_leftovers(path: Path) -> None:
    """Removes what killed commands have left half written: in a folder, and beside a folder or file."""
    inside = list(os.scandir(path)) if path.is_dir() else []
    beside = os.scandir(path.parent) if path.parent.is_dir() else ()
    for entry in (*inside, *beside):
        found = PARTIAL.fullmatch(entry.name)
        if not found or _is_other_process(int(found["process"])):
            continue
        if entry not in inside and not f"{found['name'].lstrip('.')}.".startswith(f"{path.name}."):
            continue  # of something else in the parent folder
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink(missing_ok=True)


def _is_other_process(process: int) -> bool:
    """Returns whether another process has this number. In containers, a killed process often had the present number."""
    return process != os.getpid() and is_alive(process)


def is_alive(process: int) -> bool:
    """Returns whether a process of this computer runs."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it belongs to another user
        return True
    return True


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.lock")
    descriptor = _opened(path, place)
    try:
        text = os.pread(descriptor, MAX_OWNER_BYTES, 0)
        if text:
            before = _owner_in(text, place) or "a process"
            say(f"{path}: taken over from {before}; it was killed")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{_this_process().model_dump_json()}\n".encode(), 0)
        yield
    finally:
        place.unlink(missing_ok=True)
        place.with_suffix(".owner").unlink(missing_ok=True)
        os.close(descriptor)


def _opened(path: Path, place: Path) -> int:
    """Returns the descriptor of the locked file; UserError if another process has locked it.

    What a killed owner has just started holds its lock too, until it ends a moment later. That is waited for.
    """
    deadline = time.monotonic() + CHILDREN_END_S
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            lock_file(descriptor, path, wait=False)
        except BlockingIOError:
            owner = _owner_in(os.pread(descriptor, MAX_OWNER_BYTES, 0), place)
            os.close(descriptor)
            if owner and owner.is_of_this_host() and not owner.is_here() and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            raise _taken(path, owner) from None
        except OSError as error:
            if error.errno != errno.ENOLCK:
                os.close(descriptor)
                raise
            try:
                _create_owner(path, place.with_suffix(".owner"))
            except BaseException:
                os.close(descriptor)
                raise
        try:
            if os.path.samestat(os.fstat(descriptor), place.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its owner has removed the file between our opening and our locking


def _create_owner(path: Path, place: Path) -> None:
    """Creates the file that counts where flock is missing; UserError if a living process has created it."""
    while True:
        try:
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            try:
                owner: Owner | None = read_json(place, Owner)
            except Unreadable:
                owner = None
            if owner is None or not owner.is_of_this_host():
                raise _taken(path, owner, f"; if it has ended, delete {place}") from None
            if owner.is_here():
                raise _taken(path, owner) from None
            place.unlink(missing_ok=True)
            continue
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_this_process().model_dump_json())
        return


def _owner_in(text: bytes, place: Path) -> Owner | None:
    """Returns the owner that a lock file names; None for a damaged text or none."""
    try:
        return parse_json(text, Owner, str(place))
    except Unreadable:
        return None


def _this_process() -> Owner:
    return Owner(
        host=socket.gethostname(),
        process=os.getpid(),
        command=shlex.join(["python", *sys.orig_argv[1:]])[: MAX_OWNER_BYTES // 2],
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _taken(path: Path, owner: Owner | None, more: str = "") -> UserError:
    holder = owner or "another process"
    return UserError(f"{path} is in use by {holder}; needed: one command at a time; wait for it, or stop it{more}")
