"""The commit of the code that writes a result."""

import shlex
import subprocess
from functools import cache
from pathlib import Path

from src.base.console import say
from src.base.reading import read_text

CARRIED = Path(__file__).parents[2] / ".commit"
REPORTS = (":(top,exclude)reports", ":(top,exclude)docs/reliability.*")


def commit() -> str | None:
    """Returns the commit of the code, with `-dirty` if tracked files differ from it; None outside a git checkout.

    Code that was carried to another machine, as by `make kernel`, has its commit in a file.

    Changes in reports are ignored, because a command that writes a report must not mark the next command as dirty.
    """
    if CARRIED.is_file():
        return read_text(CARRIED).strip() or None
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *REPORTS)
    return f"{head}-dirty" if head and changed else head or None


def _git(*words: str) -> str:
    """Returns the output of a git command in the code's checkout; "" without git, a checkout or a commit."""
    try:
        result = subprocess.run(("git", *words), cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return ""
    if reason := distrust(result.stderr):
        _say_once(f"the commit of the code is not known, because {reason}")
    return result.stdout.strip() if result.returncode == 0 else ""


def distrust(answer: str) -> str:
    """Returns why git refuses a checkout of another user, with git's own mend; "" for any other answer."""
    if "dubious ownership" not in answer:
        return ""
    folder = shlex.quote(str(Path(__file__).parents[2]))
    return (
        f"git does not trust a checkout of another user; to mend it: git config --global --add safe.directory {folder}"
    )


@cache
def _say_once(text: str) -> None:
    say(text)
