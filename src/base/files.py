"""Atomic writing, so that a file is complete or absent, and hashes of files."""

import hashlib
import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a temporary file beside `path`, syncs it to disk, and renames it to `path`.

    On failure the old file stays and the temporary one is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # name the file that the caller knows; the error has the temporary name or none
        raise
    finally:
        if temporary.exists():  # on a read-only disk `unlink` fails even for a missing file
            temporary.unlink()


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
