"""Files that are whole or absent: atomic writing and hashes."""

import hashlib
import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside the file, makes it durable, and moves it into place; leaves nothing behind on failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # a full disk comes without a name, and nobody knows the temporary one
        raise
    finally:
        if temporary.exists():  # a read-only disk refuses to unlink even what is not there
            temporary.unlink()


def file_hash(path: Path) -> str:
    """Returns the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
