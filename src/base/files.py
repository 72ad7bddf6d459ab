"""Atomic and durable writing, so that a file is complete or absent even after a power cut, and hashes of files."""

import hashlib
import os
from pathlib import Path

from src.base.ownership import partial_name
from src.base.reading import open_plain


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a temporary file beside `path`, syncs it to disk, renames it to `path`, and syncs the folder.

    On failure the old file stays and the temporary one is removed.
    """
    temporary = path.with_name(partial_name(path.name))
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move(temporary, path)
    except OSError as error:
        error.filename = str(path)  # name the file that the caller knows; the error has the temporary name or none
        raise
    finally:
        if temporary.exists():  # on a read-only disk `unlink` fails even for a missing file
            temporary.unlink()


def move(source: Path, destination: Path) -> None:
    """Renames a file or folder within a folder. Afterwards a power cut cannot undo it."""
    source.replace(destination)
    sync(destination.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a plain file in hexadecimal."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
