"""Which commit of the code wrote a result."""

import subprocess
from pathlib import Path


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
