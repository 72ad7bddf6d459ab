"""Packed arrays: opened with known shape and type, and verified by their hashes.

Hashing all arrays at every start would take too long. So a stamp keeps the size, the times and the number (inode) of
each file at its last whole check. A file for which these are the same has not been written since. If they differ, as
after a copy of the data set, its content is hashed again.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from src.base.console import UserError, say
from src.base.files import file_hash, write_atomically
from src.base.ownership import remove_leftovers
from src.base.reading import Unreadable, open_plain, read_json
from src.base.system_errors import explained

STAMP = ".checked.json"
SLOW_TO_HASH_BYTES = 2**30
# Times of files advance in steps of some milliseconds. A file that was written so shortly before its check could have
# been written once more in the same step.
STEP_NS = 50_000_000
MAX_HEADER_BYTES = 10_000
Shapes = dict[str, tuple[int, ...]]  # array name -> shape


class FileState(NamedTuple):
    """What changes when a file is written."""

    size: int
    modified_ns: int
    changed_ns: int  # also changed by a new name, owner or permission, and not settable
    inode: int


class Stamp(BaseModel):
    """The files at their last whole check, by name, with their hashes, and the time at which that check began."""

    began_ns: int
    files: dict[str, FileState]
    hashes: dict[str, str]


def array_type(name: str) -> np.dtype:
    """Returns the dtype of an array by its name: float32 for conditions, uint8 for pictures."""
    return np.dtype(np.float32 if name.endswith("conditions") else np.uint8)


def open_array(folder: Path, name: str, shape: tuple[int, ...]) -> np.memmap:
    """Returns an array of a data set, memory-mapped, read-only; Unreadable if the file is not exactly that array."""
    path = folder / f"{name}.npy"
    kind = array_type(name)
    try:
        with open_plain(path) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            found = read(file, max_header_size=MAX_HEADER_BYTES)
            begin = file.tell()
            size = os.fstat(file.fileno()).st_size
    except (OSError, Unreadable):
        raise
    except Exception:  # numpy evaluates the header as Python, so a damaged one gives errors of many types
        raise Unreadable(f"{path} is damaged in its header") from None
    if found != (shape, False, kind) or size != begin + int(np.prod(shape, dtype=object)) * kind.itemsize:
        raise Unreadable(f"{path} is not the packed array {kind} {shape}, or is cut off")
    return np.memmap(path, kind, "r", begin, shape)


def array_hashes(folder: Path) -> dict[str, str]:
    """Returns the sha256 of each array's file by name."""
    files = sorted(folder.glob("*.npy"))
    total = sum(file.stat().st_size for file in files)
    if total >= SLOW_TO_HASH_BYTES:
        say(f"hashing {total / 2**30:.1f} GiB of arrays")
    with ThreadPoolExecutor() as threads:  # hashing releases the interpreter lock
        return dict(zip((file.stem for file in files), threads.map(file_hash, files), strict=True))


def check_arrays(folder: Path, hashes: dict[str, str]) -> None:
    """Raises UserError if an array does not have its hash. It hashes only if a file was written since the last check.

    hashes: name -> sha256.
    """
    _check_states(folder, tuple(sorted(hashes.items())), _states(folder, hashes))


@lru_cache(maxsize=16)  # where the stamp cannot be saved, one command does not hash twice
def _check_states(folder: Path, hashes: tuple[tuple[str, str], ...], states: tuple[FileState, ...]) -> None:
    names = tuple(name for name, _ in hashes)
    if not _is_unwritten(folder, dict(hashes), dict(zip(names, states, strict=True))):
        was_checked = (folder / STAMP).exists()
        check_contents(folder, dict(hashes))
        if was_checked:
            say(f"{folder}: written or copied since its last check; its {len(names)} arrays match their hashes")


def check_contents(folder: Path, hashes: dict[str, str]) -> None:
    """Raises UserError if an array does not have its hash. It hashes them all, and stamps them if they are right."""
    with suppress(OSError):  # others' data may be read-only, and leftovers do no harm
        remove_leftovers(folder)
    began_ns = time.time_ns()
    states = _states(folder, hashes)
    found = array_hashes(folder)
    for name, wanted in hashes.items():
        if found.get(name) != wanted:
            raise UserError(
                f"{folder}/{name}.npy is not what was packed: its content does not match its hash; "
                f"restore it, or delete {folder} and pack it again"
            )
    if states == _states(folder, hashes):  # nobody has written meanwhile
        try:
            stamp_arrays(folder, hashes, began_ns)
        except OSError as error:
            say(
                f"{folder}: its arrays are right, but this cannot be noted there, so each command checks them again "
                f"({explained(error) or error})"
            )


def stamp_arrays(folder: Path, hashes: dict[str, str], began_ns: int) -> None:
    """Saves that a whole check, which began at a time in ns, has found these hashes."""
    files = dict(zip(sorted(hashes), _states(folder, hashes), strict=True))
    stamp = Stamp(began_ns=began_ns, files=files, hashes=hashes)
    write_atomically(folder / STAMP, stamp.model_dump_json().encode())


def settled_time_ns() -> int:
    """Waits until files that were just written count as settled, and returns the time in ns."""
    time.sleep(2 * STEP_NS / 1e9)
    return time.time_ns()


def _states(folder: Path, names: dict[str, str]) -> tuple[FileState, ...]:
    found = [(folder / f"{name}.npy").stat() for name in sorted(names)]
    return tuple(FileState(each.st_size, each.st_mtime_ns, each.st_ctime_ns, each.st_ino) for each in found)


def _is_unwritten(folder: Path, hashes: dict[str, str], states: dict[str, FileState]) -> bool:
    """Returns whether the last whole check found these hashes and no file was written since."""
    try:
        stamp = read_json(folder / STAMP, Stamp)
    except (Unreadable, PermissionError):  # there is no check yet that could be trusted
        return False
    is_past = stamp.began_ns <= time.time_ns()  # else the clock was changed, and times prove nothing
    settled = is_past and all(state.changed_ns < stamp.began_ns - STEP_NS for state in states.values())
    return settled and (stamp.hashes, stamp.files) == (hashes, states)
