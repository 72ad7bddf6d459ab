"""Reads the files of a user's zip, tar or folder, one at a time and safely. Nothing is extracted to disk."""

import difflib
import hashlib
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from src.base.console import UserError, track
from src.base.files import file_hash
from src.base.names import printable
from src.intake.containers import (
    ARCHIVE,
    MAX_UNPACKED_BYTES,
    Container,
    Entry,
    FolderContainer,
    Kind,
    open_container,
    raise_if_of_system,
)
from src.intake.file_names import is_litter

WORDS = ("synthetic", "synthetic-pushing", "kaggle")  # values of SOURCE other than a file or a folder
MAX_FILES = 2_000_000  # all 44,000 clips of robot pushing have 1.4 million
SLOW_TO_HASH = 100_000  # files
MAX_IMAGE_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 64 * 2**30
MAX_ARCHIVES = 64  # inside a source
# Zipping hardly shrinks a picture. A file that unpacks to more than 200 times its stored size is a zip bomb.
MAX_EXPANSION = 200
EXPANSION_SLACK_BYTES = 2**20
NEEDED = "a .zip or .tar file or a folder that holds a data set"


@dataclass(frozen=True, slots=True)
class Member:
    """One file: its sizes in bytes, unpacked and as stored in its container, and why it cannot be read, if so."""

    size: int
    stored_size: int
    problem: str = ""


class Source:
    """What a person has: an archive or a folder.

    members: the files by name, without litter. litter, links, archives: names of what other programs have left, of
    links that were followed, and of archives that were looked into. refused: why some of these cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._container = open_container(path, str(path))
        self._places: dict[str, tuple[Container, Any]] = {}  # name -> the container of the file, and its key there
        self.litter: list[str] = []
        self.links: list[str] = []
        self.archives: list[str] = []
        self.refused: list[str] = []
        self._in_memory = 0  # bytes of archives

    @property
    def kind(self) -> Kind:
        """What the path is."""
        return self._container.kind

    @property
    def name(self) -> str:
        """The name of the file or folder, for people and for manifests; bytes that are no text are written as such."""
        return os.fsencode(self.path.resolve().name).decode("utf-8", "backslashreplace")

    @cached_property
    def members(self) -> dict[str, Member]:
        """The files by name, without litter. UserError for unsafe names and for too many files."""
        return self._list(self._container, "", str(self.path))

    def reopen(self) -> None:
        """Opens everything again, so that a forked process has its own position in the files."""
        for container in {id(container): container for container, _ in self._places.values()}.values():
            container.reopen()

    def read(self, name: str) -> bytes:
        """Returns the bytes of one file; UserError if they are damaged or if their number is not the declared one."""
        member = self.members[name]
        check_size(self.path, name, member)
        data = self._bytes(name, MAX_IMAGE_BYTES)
        if len(data) != member.size:
            found = f"{self.path}: {name} holds {len(data)} bytes, not the declared {member.size}"
            raise UserError(f"{found}; needed: the whole file; copy or download it again")
        return data

    def place(self, name: str) -> tuple[Path, int]:
        """Returns a file on disk and the offset at which the content of one file begins; UserError if it is packed."""
        container, key = self._places[name]
        if (place := container.place(key)) is None:
            found = f"{self.path} holds {name} packed, and so large a file is not unpacked in memory"
            raise UserError(f"{found}; needed: a folder or a plain .tar; unpack it and give the folder")
        return place

    def look_into_archives(self) -> bool:
        """Adds the files of the archives among the members, and returns whether there are any.

        An archive counts as a folder of its name. If it holds a single folder of that name, both are the same.
        """
        names = [name for name in self.members if ARCHIVE.fullmatch(name) and name not in self.archives]
        if len(names) > MAX_ARCHIVES:
            raise UserError(f"{self.path} holds {len(names)} archives; needed: one data set; unpack those that belong")
        for name in names:
            self.archives.append(name)
            container, key = self._places[name]
            shown = f"{self.path}/{name}"
            if container.kind != "folder":
                self._in_memory += self.members[name].size
                check_archive(shown, self.members[name], self._in_memory)
            try:
                inside = open_container(container.content(key), shown)
            except UserError as error:  # perhaps the data set is in another one
                self.refused.append(str(error))
                continue
            for inner, member in self._list(inside, name, shown).items():
                self.members.setdefault(inner, member)
        return bool(names)

    def fingerprint(self, names: Iterable[str], prefix: str) -> str:
        """Returns the sha256 of an archive's file. Of a folder, that of the named files and of their names.

        It does not depend on the folder: the names are those after `prefix`.
        """
        if self.kind != "folder":
            return file_hash(self.path)
        total = hashlib.sha256()
        ordered = sorted(names)
        for name in track(ordered, "hashing files", len(ordered)) if len(ordered) >= SLOW_TO_HASH else ordered:
            own_hash = hashlib.sha256(self.read(name)).hexdigest()
            total.update(os.fsencode(f"{name.removeprefix(prefix)}\0{own_hash}\n"))
        return total.hexdigest()

    def _bytes(self, name: str, limit: int) -> bytes:
        container, key = self._places[name]
        try:
            return container.read(key, limit)
        except Exception as error:  # zipfile raises errors of many types for a damaged file
            raise_if_of_system(error)
            found = f"{self.path}: {name} is damaged ({error})"
            raise UserError(f"{found}; needed: a whole archive; download it again") from error

    def _list(self, container: Container, archive: str, shown: str) -> dict[str, Member]:
        """Returns the files of a container; `archive` is its name in this source, "" for the source itself."""
        entries: dict[str, Entry] = {}
        for number, entry in enumerate(container.entries()):
            if number >= MAX_FILES:
                raise UserError(f"{shown} holds more than {MAX_FILES:,} files; needed: the data set alone")
            name = entry.name if isinstance(container, FolderContainer) else _plain(entry.name, shown)
            if is_litter(name):
                self.litter.append(name)
            elif name in entries and not name.endswith("/"):
                entries[name] = _one_of_two(entries[name], entry)
            elif name:
                entries[name] = entry
        self.links += container.links if isinstance(container, FolderContainer) else _resolve_links(entries)
        top = _top_of(archive, entries)
        files = {f"{top}{name}": entry for name, entry in entries.items() if not name.endswith("/")}
        self._places = {name: (container, entry.key) for name, entry in files.items()} | self._places
        return {name: Member(entry.size, entry.stored_size, entry.problem) for name, entry in files.items()}


def _top_of(archive: str, names: Iterable[str]) -> str:
    """Returns the folder for which an archive stands, with a slash behind it; "" for the source itself."""
    match = ARCHIVE.fullmatch(archive)
    if match is None:
        return ""
    around, _, own = match[1].rpartition("/")
    is_double = all(name.startswith(f"{own}/") for name in names)
    return "".join(f"{part}/" for part in (around, "" if is_double else own) if part)


def _plain(name: str, shown: str) -> str:
    """Returns a name without "./"; UserError for one that leads out of its container."""
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
        needed = "needed: plain files; unpack it with care and zip it again"
        raise UserError(f"{shown}: {name!r} is not a plain path inside the archive; {needed}")
    if "./" in name or "//" in name:
        folder = "/" if name.endswith("/") else ""
        return "/".join(part for part in name.split("/") if part not in ("", ".")) + folder
    return name


def _one_of_two(one: Entry, other: Entry) -> Entry:
    """Returns one of two entries of the same name. In a tar the later one counts, as for tar itself.

    In a zip, programs disagree which one counts. So it is a problem unless the contents are the same.
    """
    if not isinstance(one.key, zipfile.ZipInfo) or (one.size, one.key.CRC) == (other.size, other.key.CRC):
        return other
    return one._replace(problem="occurs twice, with different contents; unpack it with care and zip it again")


def _resolve_links(entries: dict[str, Entry]) -> list[str]:
    """Replaces the links among the entries by what they stand for, and returns the names of the links.

    A link may stand for a file or a folder of the same container, never for anything else.
    """
    waiting = {name: entry for name, entry in entries.items() if entry.link is not None}
    resolved: list[str] = []
    for name in waiting:
        del entries[name]
    while waiting:
        found: dict[str, dict[str, Entry]] = {}
        for name, entry in waiting.items():
            target = str(entry.link)
            if target in entries:
                found[name] = {name: entries[target]}
            elif inside := {key: each for key, each in entries.items() if key.startswith(f"{target}/")}:
                found[name] = {f"{name}/{key.removeprefix(f'{target}/')}": each for key, each in inside.items()}
        for name, stands_for in found.items():
            del waiting[name]
            resolved.append(name)
            entries.update(stands_for)
        if len(entries) > MAX_FILES:
            raise UserError(f"links make more than {MAX_FILES:,} files; needed: the data set alone")
        if not found:
            break
    for name, entry in waiting.items():
        target = printable(str(entry.link))
        entries[name] = entry._replace(problem=f"is a link to {target}, which is not in the archive; add that")
    return resolved


def open_source(path: Path) -> Source:
    """Returns the opened archive or folder; UserError if it is missing or neither."""
    if not path.is_dir() and not path.is_file():
        if str(path) in WORDS:
            raise UserError(f"SOURCE={path} is a word of make; run: make data SOURCE={path} DATASET=name")
        close = difflib.get_close_matches(str(path), WORDS, n=1, cutoff=0.7)
        needed = f"{NEEDED}, or {', '.join(WORDS)}"
        raise UserError(f"{path} does not exist; {f'did you mean {close[0]}?' if close else f'needed: {needed}'}")
    return Source(path)


def check_sizes(source: Source, names: Iterable[str]) -> None:
    """Raises UserError if one of the named images cannot be read or is too big, or if all together are."""
    total = 0
    for name in names:
        member = source.members[name]
        total += member.size
        check_size(source.path, name, member)
    if total > MAX_TOTAL_BYTES:
        raise UserError(
            f"{source.path} unpacks to {total:,} bytes; needed: {MAX_TOTAL_BYTES:,} at most; scale the images"
        )


def check_size(path: Path, name: str, member: Member) -> None:
    """Raises UserError for a file that cannot be read or is too big when unpacked."""
    if member.problem:
        raise UserError(f"{path}: {name} {member.problem}")
    if max(member.size, member.stored_size) > MAX_IMAGE_BYTES:
        raise UserError(f"{name} takes {member.size:,} bytes; needed: {MAX_IMAGE_BYTES:,} at most; scale it down")
    if member.size > MAX_EXPANSION * member.stored_size + EXPANSION_SLACK_BYTES:
        found = f"{name} unpacks from {member.stored_size:,} to {member.size:,} bytes"
        raise UserError(f"{found}; needed: an image (a zip hardly shrinks one); replace it")


def check_archive(shown: str, member: Member, in_memory: int) -> None:
    """Raises UserError for an archive inside another one that cannot be read, or that is too large for the memory."""
    if member.problem:
        raise UserError(f"{shown} {member.problem}")
    if in_memory > MAX_UNPACKED_BYTES:
        found = f"{shown} lies in another archive and has {member.size:,} bytes, too much for the memory"
        raise UserError(f"{found}; needed: a folder; unpack the outer archive and give the folder")
