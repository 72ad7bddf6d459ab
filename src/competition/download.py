"""A competition's data -> <folder>/<slug>.zip: whole, or absent.

The client writes into <folder>/<slug>.part/, where a later call goes on; the archive moves out of it only after every
member has passed its checksum, because the client has been seen to report success for an archive of wrong bytes.
"""

import errno
import json
import lzma
import shutil
import zipfile
import zlib
from pathlib import Path

from src.base.console import say
from src.competition.client import Lock, Patience, Transfer, follow, one_at_a_time, size_of, start, ticks
from src.competition.errors import AGAIN, KaggleError, KaggleRefusal, KaggleSilence, explain

ATTEMPTS = 5  # that may end without a new byte, or with a damaged archive, before we give up


def download(slug: str, folder: Path, patience: Patience) -> Path:
    """Returns the path of the competition's whole archive, fetched or already there; goes on where it stopped."""
    archive, part = folder / f"{slug}.zip", folder / f"{slug}.part"
    with one_at_a_time(folder / f"{slug}.lock", lambda: size_of(part / archive.name), patience) as lock:
        if archive.exists():
            if is_whole(archive):
                say(f"{archive} is already here and whole; delete it to fetch it again")
                return archive
            say(f"{archive} is damaged; fetching it again")
            archive.unlink()
            _marker(archive).unlink(missing_ok=True)
        _fetch(slug, part, lock, patience)
        (part / archive.name).replace(archive)
        shutil.rmtree(part)
    return archive


def is_whole(archive: Path) -> bool:
    """Returns whether the file is a zip with at least one member, all of which pass their checksums."""
    say(f"checking every file of {archive}, {archive.stat().st_size / 1e6:.1f} MB")
    try:
        with zipfile.ZipFile(archive) as opened:
            return bool(opened.namelist()) and opened.testzip() is None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError):
        return False  # the last two: names that are no text, and what seems encrypted or packed in an unknown way
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # offsets before the file's start; bz2 gives no number
            raise
        return False


def _fetch(slug: str, part: Path, lock: Lock, patience: Patience) -> None:
    """Leaves a whole archive in the folder `part`, or raises what keeps it from coming."""
    failures, archive = 0, part / f"{slug}.zip"
    for _ in ticks(patience, float("inf")):
        before = size_of(archive)
        problem = _attempt(slug, part, lock, patience)
        if problem is None:
            return
        failures = 1 if size_of(archive) > before else failures + 1
        if isinstance(problem, KaggleRefusal) or failures == ATTEMPTS:
            kept = f" ({size_of(archive) / 1e6:.1f} MB are kept, it goes on from there)" if size_of(archive) else ""
            raise type(problem)(f"the download of {slug} failed: {problem.what}", problem.mend + kept)
        say(f"{problem.what}; going on")


def _attempt(slug: str, part: Path, lock: Lock, patience: Patience) -> KaggleError | None:
    """Runs the client once; returns what went wrong, or None when the archive is there and whole."""
    archive, log = part / f"{slug}.zip", part / "client.log"
    part.mkdir(parents=True, exist_ok=True)
    child = start("competitions", "download", slug, "--path", str(part), "--quiet", log=log, lock=lock)
    try:
        follow(child, f"downloading {slug}.zip", Transfer(archive, lambda: _percent(archive)), patience)
        said = log.read_text(encoding="utf-8", errors="replace")
    finally:
        log.unlink()  # it can hold the signed address of the archive
    if child.returncode < 0:
        return KaggleSilence("the download was interrupted", f"check the network, then {AGAIN}")
    if child.returncode > 0:
        return explain(said, slug)
    if archive.exists() and is_whole(archive):
        return None
    shutil.rmtree(part)
    return KaggleSilence("what came is not a whole zip and was deleted", AGAIN)


def _marker(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}.kaggle-partial")  # the client's own note of what it is downloading


def _percent(archive: Path) -> float:
    """Returns how much of the archive is on disk, 0 to 100; 0 as long as the client has not noted its size."""
    try:
        size = json.loads(_marker(archive).read_text(encoding="utf-8"))["size"]
        return 100 * size_of(archive) / size
    except (FileNotFoundError, json.JSONDecodeError):  # not begun, half written, or just finished
        return 0.0
