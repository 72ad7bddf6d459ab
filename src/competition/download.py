"""A competition's data -> <folder>/<slug>.zip. The file is either complete or absent.

The client writes into <folder>/<slug>.part/. A later call resumes there. The archive moves out of that folder only
after every member has passed its checksum, because the client can report success for an archive with wrong bytes.
"""

import errno
import lzma
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from src.base.console import say
from src.base.reading import Unreadable, read_bytes, read_json
from src.competition.client import (
    Lock,
    Transfer,
    WaitPolicy,
    exclusive_lock,
    follow_transfer,
    poll_rounds,
    size_of,
    start_transfer,
)
from src.competition.errors import RUN_AGAIN, KaggleError, KaggleRefusal, KaggleUnavailable, explain

MAX_FAILURES = 5  # failed attempts in a row, without a new byte or with a damaged archive, before giving up


class DownloadNote(BaseModel):
    """What the client writes beside an unfinished download."""

    size: Annotated[int, Field(ge=1)]  # bytes


def download(slug: str, folder: Path, policy: WaitPolicy) -> Path:
    """Returns the path of the competition's complete archive. Downloads it if needed, or resumes a download."""
    archive = folder / f"{slug}.zip"
    part = folder / f"{slug}.part"
    with exclusive_lock(folder / f"{slug}.lock", lambda: size_of(part / archive.name), policy) as lock:
        if archive.exists():
            if is_complete(archive):
                say(f"{archive} is already complete; delete it to download it again")
                return archive
            say(f"{archive} is damaged; downloading it again")
            archive.unlink()
            _client_note(archive).unlink(missing_ok=True)
        _download_with_retries(slug, part, lock, policy)
        (part / archive.name).replace(archive)
        shutil.rmtree(part)
    return archive


def is_complete(archive: Path) -> bool:
    """Returns whether the file is a zip with at least one member and all members pass their checksums."""
    say(f"checking every file in {archive}, {archive.stat().st_size / 1e6:.1f} MB")
    try:
        with zipfile.ZipFile(archive) as opened:
            return bool(opened.namelist()) and opened.testzip() is None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError):
        # ValueError: a name that is not text. RuntimeError: a member that seems encrypted or has unknown compression.
        return False
    except OSError as error:
        # EINVAL: an offset before the start of the file. None: damaged bz2 data, an error without a number.
        if error.errno not in (None, errno.EINVAL):
            raise
        return False


def _download_with_retries(slug: str, part: Path, lock: Lock, policy: WaitPolicy) -> None:
    """Downloads a complete archive into the folder `part`. Raises the error that prevents it."""
    archive = part / f"{slug}.zip"
    failures = 0
    for _ in poll_rounds(policy, float("inf")):
        size_before = size_of(archive)
        error = _download_once(slug, part, lock, policy)
        if error is None:
            return
        failures = 1 if size_of(archive) > size_before else failures + 1
        if isinstance(error, KaggleRefusal) or failures == MAX_FAILURES:
            kept = f" ({size_of(archive) / 1e6:.1f} MB are kept; it continues from there)" if size_of(archive) else ""
            raise type(error)(f"the download of {slug} failed: {error.problem}", error.fix + kept)
        say(f"{error.problem}; trying again")


def _download_once(slug: str, part: Path, lock: Lock, policy: WaitPolicy) -> KaggleError | None:
    """Runs the client once. Returns None if the archive is then complete, otherwise the error."""
    archive = part / f"{slug}.zip"
    log = part / "client.log"
    part.mkdir(parents=True, exist_ok=True)
    child = start_transfer("competitions", "download", slug, "--path", str(part), "--quiet", log=log, lock=lock)
    try:
        follow_transfer(child, f"downloading {slug}.zip", Transfer(archive, lambda: _percent(archive)), policy)
        output = read_bytes(log).decode(errors="replace")
    finally:
        log.unlink()  # it can contain the archive's signed URL
    if child.returncode < 0:
        return KaggleUnavailable("the download was interrupted", f"check the network, then {RUN_AGAIN}")
    if child.returncode > 0:
        return explain(output, slug)
    if archive.exists() and is_complete(archive):
        return None
    shutil.rmtree(part)
    return KaggleUnavailable("the downloaded file was not a complete zip and was deleted", RUN_AGAIN)


def _client_note(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}.kaggle-partial")  # the client writes the download's state there


def _percent(archive: Path) -> float:
    """Returns the percentage of the archive that is on disk, 0 to 100. It is 0 until its size is known."""
    try:
        return min(100.0, 100 * size_of(archive) / read_json(_client_note(archive), DownloadNote).size)
    except Unreadable:  # not started yet, partly written, or just finished
        return 0.0
