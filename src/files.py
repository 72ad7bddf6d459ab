"""Files that are whole or absent: atomic writing, hashes, the commit that wrote them."""

import hashlib
import os
import subprocess
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


def commit() -> str | None:
    """Returns the commit of the code, marked `-dirty` where tracked files differ; None outside a git checkout.

    Reports do not count: a comparison that was just written must not mark the next one.
    """
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)reports")
    return f"{head}-dirty" if head and changed else head or None


def _git(*words: str) -> str:
    """Returns what git says of the code's checkout; nothing where there is no git, checkout or commit."""
    try:
        result = subprocess.run(("git", *words), cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
