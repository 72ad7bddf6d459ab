"""Zips, tars and folders: which files they hold, and the bytes of one of them. Nothing is extracted to disk."""

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import shlex
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol

from src.base.console import UserError, activity
from src.base.names import printable
from src.intake.file_names import is_litter

Kind = Literal["zip", "tar", "folder"]
ARCHIVE = re.compile(r"(.*?)\.(?i:(?:tar\.)?(?:gz|bz2|xz|zst)|zip|tar|tgz|tbz2?|txz|7z|rar|(?:zip|7z)\.001)", re.DOTALL)
# A compressed tar has no index, and an archive inside another one is no file. Both are unpacked in memory, up to this.
MAX_UNPACKED_BYTES = 2 * 2**30
MAX_LINK_BYTES = 4096
STEP_BYTES = 2**20
COMPRESSED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
FOREIGN = {  # how a file of another program begins -> what it is, and the command that helps
    b"7z\xbc\xaf\x27\x1c": ("is a 7z archive", "7z x {file} -o{stem}"),
    b"Rar!\x1a\x07": ("is a RAR archive", "unrar x {file} {stem}/"),
    b"\x28\xb5\x2f\xfd": ("is packed with Zstandard", "mkdir {stem} && tar -xf {file} -C {stem}"),
    b"PK\x07\x08": ("is the first part of a split zip", "zip -s 0 {stem}.zip --out whole.zip"),
    b"version https://git-lfs": ("is a pointer of git LFS without the data", "git lfs pull"),
}
# Behind a letter that is not ASCII, the byte of a backslash may be the second half of a Chinese or Japanese character.
LEGACY_SEPARATOR = re.compile(r"(?<![\x80-\U0010ffff])\\")
Identities = tuple[tuple[int, int], ...]  # of folders: device and inode
UTF8_FLAG, ENCRYPTED_FLAG = 0x800, 0x1
ZIP_END, MAX_END_BYTES = b"PK\x05\x06", 2**16 + 22  # the record at the end of a zip, and how far from the end it begins


class Entry(NamedTuple):
    """A file in a container.

    name: with "/" between folders. stored_size: bytes as stored in the container. key: the container finds it by this.
    link: the name for which this one stands. problem: why the file cannot be read, and what helps.
    """

    name: str
    size: int
    stored_size: int
    key: Any
    link: str | None = None
    problem: str = ""


class Container(Protocol):
    """Something that holds files."""

    kind: Kind

    def entries(self) -> Iterator[Entry]:
        """Yields the files."""

    def read(self, key: Any, limit: int) -> bytes:
        """Returns the content of one file, at most `limit` bytes. Errors of many types if it is damaged."""

    def place(self, key: Any) -> tuple[Path, int] | None:
        """Returns the file on disk that holds the content as it is, and the offset there; None if there is none."""

    def content(self, key: Any) -> "Path | bytes":
        """Returns one file whole, as `open_container` takes it."""

    def reopen(self) -> None:
        """Opens the container again, so that a forked process has its own position in it."""


class _Archive:
    """The file of an archive: on disk, or in memory."""

    def __init__(self, content: Path | bytes) -> None:
        self._content = content

    def _open(self) -> BinaryIO:
        return self._content.open("rb") if isinstance(self._content, Path) else io.BytesIO(self._content)

    def read(self, key: Any, limit: int) -> bytes:
        raise NotImplementedError

    def content(self, key: Any) -> Path | bytes:
        """Returns one file whole, at most `MAX_UNPACKED_BYTES` of it."""
        return self.read(key, MAX_UNPACKED_BYTES)


class ZipContainer(_Archive):
    """A zip file."""

    kind: Kind = "zip"

    def __init__(self, content: Path | bytes) -> None:
        super().__init__(content)
        self._archive = zipfile.ZipFile(self._open())

    def reopen(self) -> None:
        """Opens the container again, so that a forked process has its own position in it."""
        self._archive.fp = self._open()

    def entries(self) -> Iterator[Entry]:
        """Yields the files. A zip keeps the target of a link as its content, so that is read."""
        for info in self._archive.infolist():
            name, link, problem = _zip_name(info), None, ""
            if info.flag_bits & ENCRYPTED_FLAG:
                problem = "is encrypted; unpack it with its password"
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                problem = f"is compressed by method {info.compress_type}, neither stored nor deflated; unpack it: 7z x"
            elif stat.S_ISLNK(info.external_attr >> 16):
                link = _beside(name, os.fsdecode(self.read(info, MAX_LINK_BYTES)))
            yield Entry(name, info.file_size, info.compress_size, info, link, problem)

    def read(self, key: zipfile.ZipInfo, limit: int) -> bytes:
        """Returns the content of one file, at most `limit` bytes; without a limit, a zip bomb would be unpacked."""
        with self._archive.open(key) as member:
            return member.read(min(limit, key.file_size + 1))

    def place(self, key: zipfile.ZipInfo) -> tuple[Path, int] | None:
        """Returns None: a zip mostly compresses."""
        return None


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Returns a name with "/" between folders.

    Names without the flag of UTF-8 are in the code page of some computer, nobody knows which; zipfile takes the oldest.
    macOS and Linux write UTF-8 there. .NET writes the separator of Windows.
    """
    name = info.orig_filename
    if info.flag_bits & UTF8_FLAG or name.isascii():
        return name.replace("\\", "/")
    try:
        return name.encode("cp437").decode().replace("\\", "/")
    except UnicodeError:
        return LEGACY_SEPARATOR.sub("/", name)


def _beside(name: str, target: str) -> str:
    """Returns the target of a link, from the top of the container; an absolute path, or one with "..", leads out."""
    if target.startswith("/"):
        return target
    return os.path.normpath(f"{name.rpartition('/')[0]}/{target}".lstrip("/"))


class TarContainer(_Archive):
    """A tar file that is not compressed."""

    kind: Kind = "tar"

    def __init__(self, content: Path | bytes) -> None:
        super().__init__(content)
        self._file = self._open()
        archive = tarfile.TarFile(fileobj=self._file, encoding="utf-8", errors="surrogateescape")
        self._infos = archive.getmembers()
        self._file.seek(archive.offset)
        if self._file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("its end is missing")

    def reopen(self) -> None:
        """Opens the container again, so that a forked process has its own position in it."""
        self._file = self._open()

    def entries(self) -> Iterator[Entry]:
        """Yields the files."""
        for info in self._infos:
            name = f"{info.name}/" if info.isdir() else info.name
            link, problem = None, ""
            if info.issym():
                link = _beside(name, info.linkname)
            elif info.islnk():
                link = os.path.normpath(info.linkname)
            elif info.issparse() or not (info.isreg() or info.isdir()):
                problem = "is a special file; leave it out"
            yield Entry(name, info.size, info.size, info, link, problem)

    def read(self, key: tarfile.TarInfo, limit: int) -> bytes:
        """Returns the content of one file, at most `limit` bytes."""
        self._file.seek(key.offset_data)
        return self._file.read(min(limit, key.size))

    def place(self, key: tarfile.TarInfo) -> tuple[Path, int] | None:
        """Returns the tar and the offset of the content in it; None for a tar in memory."""
        return (self._content, key.offset_data) if isinstance(self._content, Path) else None


class FolderContainer:
    """A folder. Its links are followed, as other programs do; `links` names those outside litter."""

    kind: Kind = "folder"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.links: list[str] = []

    def reopen(self) -> None:
        """Does nothing: every read opens its own file."""

    def entries(self) -> Iterator[Entry]:
        """Yields the files, and the folders with a slash behind their names. What lies in litter is not listed."""
        waiting: list[tuple[str, str, Identities]] = [(str(self._path), "", (_identity(self._path.stat()),))]
        while waiting:
            folder, prefix, around = waiting.pop()
            with os.scandir(folder) as found:
                for each in found:
                    entry = _entry_of(each, prefix, around)
                    yield entry
                    if is_litter(entry.name):
                        continue
                    if each.is_symlink() and not entry.problem:
                        self.links.append(entry.name)
                    if entry.name.endswith("/"):
                        waiting.append((each.path, entry.name, (*around, _identity(each.stat()))))

    def read(self, key: str, limit: int) -> bytes:
        """Returns the content of one file, at most `limit` bytes."""
        # Path.open takes five times as long: 2 seconds for 50,000 files.
        descriptor = os.open(f"{self._path}/{key}", os.O_RDONLY)
        try:
            return os.read(descriptor, min(os.fstat(descriptor).st_size, limit))
        finally:
            os.close(descriptor)

    def place(self, key: str) -> tuple[Path, int] | None:
        """Returns the file itself, and 0."""
        return self._path / key, 0

    def content(self, key: str) -> Path | bytes:
        """Returns the path of one file."""
        return self._path / key


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _entry_of(each: "os.DirEntry[str]", prefix: str, around: Identities) -> Entry:
    """Returns a folder's entry. around: the identities of the folders in which it lies."""
    name = prefix + each.name
    problem = "is a special file; put a plain file in its place"
    if each.is_dir():
        if _identity(each.stat()) not in around:
            return Entry(f"{name}/", 0, 0, name)
        problem = "is a link to a folder in which it lies; remove it"
    elif each.is_file():
        size = each.stat().st_size
        return Entry(name, size, size, name)
    elif each.is_symlink():
        target = printable(str(Path(each.path).readlink()))
        problem = f"is a link to {target}, which is not there; bring that back, or remove the link"
    return Entry(name, 0, 0, name, problem=problem)


def open_container(content: Path | bytes, shown: str) -> Container:
    """Returns an archive or a folder, opened; UserError, which names it as `shown`, if it cannot be read.

    What it is, is told by its content and not by its name.
    """
    if isinstance(content, Path) and content.is_dir():
        return FolderContainer(content)
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
        head = file.read(tarfile.BLOCKSIZE)
        _refuse_foreign(head, file, shown)
        file.seek(0)
        for start, unpacking in COMPRESSED.items():
            if head.startswith(start):
                content = _unpacked(file, unpacking, shown)
                head = content[: tarfile.BLOCKSIZE]
    is_tar, is_zip = head[257:262] == b"ustar", head.startswith(b"PK\x03\x04")
    try:
        return TarContainer(content) if is_tar else ZipContainer(content)
    except Exception as error:  # zipfile and tarfile raise errors of many types for a damaged file
        raise_if_of_system(error)
        found = f"is truncated or damaged ({error}); download it again" if is_tar or is_zip else "is no zip or tar file"
        raise UserError(f"{shown} {found}; needed: a whole .zip or .tar file, or a folder") from error


def _refuse_foreign(head: bytes, file: BinaryIO, shown: str) -> None:
    """Raises UserError, with the command that helps, for an archive of another program and for a part of an archive."""
    folder, _, name = shown.rpartition("/")
    path = {"file": shlex.quote(name), "stem": shlex.quote(name.partition(".")[0])}
    for start, (found, command) in FOREIGN.items():
        if head.startswith(start):
            place = f" in {folder}" if folder else ""
            raise UserError(f"{shown} {found}; needed: a zip, a tar or a folder; run{place}: {command.format(**path)}")
    file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_END_BYTES))
    end = file.read()
    parts = end[end.rfind(ZIP_END) + 4 :][:2] if ZIP_END in end else b"\0\0"
    if parts not in (b"\0\0", b"\xff\xff"):
        command = FOREIGN[b"PK\x07\x08"][1].format(**path)
        raise UserError(f"{shown} is the last part of a split zip; needed: all in one; run in its folder: {command}")
    if re.fullmatch(r".*\.(001|aa)", name) and ZIP_END not in end:
        whole = shlex.quote(name.rpartition(".")[0])
        found = f"{shown} is the first part of a split file"
        raise UserError(f"{found}; needed: all in one; run in its folder: cat {whole}.* > whole.zip")


def _unpacked(file: BinaryIO, unpacking: Callable[[BinaryIO], Any], shown: str) -> bytes:
    """Returns the content of a compressed file; UserError if it is damaged or too large for the memory."""
    unpacked = bytearray()
    try:
        with activity(f"unpacking {shown} in memory"), unpacking(file) as stream:
            while step := stream.read(STEP_BYTES):
                unpacked += step
                if len(unpacked) > MAX_UNPACKED_BYTES:
                    break
    except Exception as error:
        raise_if_of_system(error)
        found = f"{shown} is truncated or damaged ({error}); download it again"
        raise UserError(f"{found}; needed: a whole .zip or .tar file, or a folder") from error
    if len(unpacked) > MAX_UNPACKED_BYTES:
        found = f"{shown} unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB, too much for the memory"
        raise UserError(f"{found}; needed: a folder; run: mkdir unpacked && tar -xf {shlex.quote(shown)} -C unpacked")
    return bytes(unpacked)


def raise_if_of_system(error: Exception) -> None:
    """Raises an error again if it says something of the system and not of the file."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
        raise error
