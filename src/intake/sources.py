"""Reads the files of a user's zip or folder, one at a time and safely. Nothing is extracted to disk."""

import difflib
import errno
import hashlib
import os
import stat
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from src.base.console import UserError, track
from src.base.files import file_hash
from src.intake.file_names import is_litter

WORDS = ("synthetic", "synthetic-pushing", "kaggle")  # values of SOURCE other than FILE.zip or FOLDER
MAX_FILES = 2_000_000  # all 44,000 clips of robot pushing have 1.4 million
SLOW_TO_HASH = 100_000  # files
MAX_IMAGE_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 64 * 2**30
# Zipping hardly shrinks a picture. A file that unpacks to more than 200 times its stored size is a zip bomb.
MAX_EXPANSION = 200
EXPANSION_SLACK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Member:
    """The sizes of one file in bytes: unpacked, and as stored in the zip."""

    size: int
    stored_size: int


def _raise_if_of_system(error: Exception) -> None:
    """Raises an error again if it says something of the system and not of the file."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
        raise error


class ZipSource:
    """A zip file; UserError if the file is no zip or is not complete."""

    kind: Literal["zip"] = "zip"

    def __init__(self, path: Path) -> None:
        self.path = path
        file = path.open("rb")
        was_zip = file.read(4) == b"PK\x03\x04"
        try:
            self._archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile raises errors of many types for a damaged file
            _raise_if_of_system(error)
            found = f"is truncated or damaged ({error}); download it again" if was_zip else "is not a zip file"
            raise UserError(f"{path} {found}; needed: a whole .zip file or a folder") from error
        # .NET writes names with the separator of Windows. On other systems zipfile leaves it as it is.
        self._entries = [(info.filename.replace("\\", "/"), info) for info in self._archive.infolist()]
        self._infos = dict(self._entries)
        self.litter: list[str] = []

    def reopen(self) -> None:
        """Opens the file again, so that a forked process has its own position in it."""
        self._archive.fp = self.path.open("rb")

    @cached_property
    def members(self) -> dict[str, Member]:
        """The files by name, without litter. UserError for unsafe names, links, encryption and duplicates."""
        if len(self._entries) > MAX_FILES:
            raise UserError(f"{self.path} holds more than {MAX_FILES:,} files; needed: the data set alone")
        members: dict[str, Member] = {}
        for name, info in self._entries:
            if is_litter(name):
                self.litter.append(name)
                continue
            if not name.strip("/"):
                problem = "has no name"
            elif name.startswith("/") or ".." in name.split("/") or name[1:2] == ":":
                problem = "is not a plain path inside the archive"
            elif stat.S_ISLNK(info.external_attr >> 16):
                problem = "is a symbolic link"
            elif info.flag_bits & 0x1:
                problem = "is encrypted"
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                problem = f"is compressed by method {info.compress_type}, neither stored nor deflated"
            elif name in members:
                problem = "occurs twice"
            else:
                members[name] = Member(info.file_size, info.compress_size)
                continue
            raise UserError(
                f"{self.path}: {name!r} {problem}; needed: plain files; unpack it with care and zip it again"
            )
        return {name: member for name, member in members.items() if not name.endswith("/")}

    def read(self, name: str) -> bytes:
        """Returns the bytes of one file; UserError if they are damaged or if their number is not the declared one."""
        info = self._infos[name]
        _check_size(name, self.members[name])
        try:
            with self._archive.open(info) as member:
                data = member.read(info.file_size + 1)  # without this limit a zip bomb would be unpacked whole
        except Exception as error:  # as above
            _raise_if_of_system(error)
            raise UserError(
                f"{self.path}: {name} is damaged ({error}); needed: a whole archive; download it again"
            ) from error
        if len(data) != info.file_size:
            raise UserError(
                f"{self.path}: {name} holds {len(data)} bytes, not the declared {info.file_size}; download it again"
            )
        return data

    def fingerprint(self, names: Iterable[str], prefix: str) -> str:
        """Returns the sha256 of the whole zip file. It does not use the names."""
        return file_hash(self.path)


class FolderSource:
    """A folder."""

    kind: Literal["folder"] = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.litter: list[str] = []

    def reopen(self) -> None:
        """Does nothing: every read opens its own file."""

    @cached_property
    def members(self) -> dict[str, Member]:
        """The files by name relative to the folder, without litter. UserError for links and for special files."""
        members: dict[str, Member] = {}
        folders = [(self.path, "")]
        while folders:
            folder, prefix = folders.pop()
            with os.scandir(folder) as entries:
                for entry in entries:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    name = f"{prefix}{entry.name}{'/' if is_folder else ''}"
                    if is_litter(name):
                        self.litter.append(name)
                    elif is_folder:
                        folders.append((Path(entry.path), name))
                    elif entry.is_file(follow_symlinks=False):
                        size = entry.stat(follow_symlinks=False).st_size
                        members[name] = Member(size, size)
                    else:
                        raise UserError(f"{entry.path} is a link or a special file; needed: a plain file in its place")
            if len(members) > MAX_FILES:
                raise UserError(f"{self.path} holds more than {MAX_FILES:,} files; needed: the data set's own folder")
        return members

    def read(self, name: str) -> bytes:
        """Returns the bytes of one file; UserError if there are too many."""
        _check_size(name, self.members[name])
        # Path.open takes five times as long: 2 seconds for 50,000 files.
        descriptor = os.open(f"{self.path}/{name}", os.O_RDONLY)
        try:
            return os.read(descriptor, min(os.fstat(descriptor).st_size, MAX_IMAGE_BYTES))
        finally:
            os.close(descriptor)

    def fingerprint(self, names: Iterable[str], prefix: str) -> str:
        """Returns the sha256 of the named files and of their names after `prefix`. It does not depend on the folder."""
        total = hashlib.sha256()
        ordered = sorted(names)
        for name in track(ordered, "hashing files", len(ordered)) if len(ordered) >= SLOW_TO_HASH else ordered:
            own_hash = hashlib.sha256(self.read(name)).hexdigest()
            total.update(os.fsencode(f"{name.removeprefix(prefix)}\0{own_hash}\n"))
        return total.hexdigest()


Source = ZipSource | FolderSource


def open_source(path: Path) -> Source:
    """Returns the opened zip or folder; UserError if it is missing or neither."""
    if path.is_dir():
        return FolderSource(path)
    if not path.is_file():
        if str(path) in WORDS:
            raise UserError(f"SOURCE={path} is a word of make; run: make data SOURCE={path} DATASET=name")
        close = difflib.get_close_matches(str(path), WORDS, n=1, cutoff=0.7)
        needed = f"a .zip file or a folder that holds a data set, or {', '.join(WORDS)}"
        raise UserError(f"{path} does not exist; {f'did you mean {close[0]}?' if close else f'needed: {needed}'}")
    return ZipSource(path)


def check_sizes(source: Source, names: Iterable[str]) -> None:
    """Raises UserError if one of the named images is too big when unpacked, or if all together are."""
    total = 0
    for name in names:
        member = source.members[name]
        total += member.size
        _check_size(name, member)
    if total > MAX_TOTAL_BYTES:
        raise UserError(
            f"{source.path} unpacks to {total:,} bytes; needed: {MAX_TOTAL_BYTES:,} at most; scale the images"
        )


def _check_size(name: str, member: Member) -> None:
    """Raises UserError for a file that is too big when unpacked."""
    if max(member.size, member.stored_size) > MAX_IMAGE_BYTES:
        raise UserError(f"{name} takes {member.size:,} bytes; needed: {MAX_IMAGE_BYTES:,} at most; scale it down")
    if member.size > MAX_EXPANSION * member.stored_size + EXPANSION_SLACK_BYTES:
        found = f"{name} unpacks from {member.stored_size:,} to {member.size:,} bytes"
        raise UserError(f"{found}; needed: an image (a zip hardly shrinks one); replace it")
