"""Ways in which people pack a folder of files: zips and tars of several programs, links, archives in archives."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.dance_images import write_folder, write_zip

Files = dict[str, bytes]


def zip_bytes(files: Files, *, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def tar_bytes(files: Files, *, top: str = "", form: int = tarfile.PAX_FORMAT, encoding: str = "utf-8") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, encoding=encoding, errors="surrogateescape") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(top + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def legacy_zip_bytes(files: Files, encoding: str) -> bytes:
    """A zip with names in a code page, as the programs of East Asian computers write it, without the flag of UTF-8."""
    records, directory = b"", b""
    for name, content in files.items():
        raw = name.encode(encoding)
        crc = zipfile.crc32(content)
        common = struct.pack("<HHHHHLLLHH", 20, 0, 0, 0, 33, crc, len(content), len(content), len(raw), 0)
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHLL", 0, 0, 0, 0, len(records))
        directory += raw
        records += b"PK\x03\x04" + common + raw + content
    end = struct.pack("<HHHHLLH", 0, 0, len(files), len(files), len(directory), len(records), 0)
    return records + directory + b"PK\x05\x06" + end


def dot_net(files: Files) -> Files:
    return {name.replace("/", "\\"): content for name, content in files.items()}


def under(top: str, files: Files) -> Files:
    return {top + name: content for name, content in files.items()}


def by_part(files: Files) -> dict[str, Files]:
    """The files of each top folder, below it."""
    parts: dict[str, Files] = {}
    for name, content in files.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = content
    return parts


def linked(folder: Path, files: Files) -> Path:
    """A folder whose data lie elsewhere: each of its top folders is a link."""
    write_folder(folder.with_name("elsewhere"), files)
    folder.mkdir()
    for part in by_part(files):
        (folder / part).symlink_to(folder.with_name("elsewhere") / part)
    return folder


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# Each way writes the files below a folder of its own and returns what a person would give as SOURCE.
PACKERS: dict[str, Callable[[Path, Files], Path]] = {
    "folder": lambda at, files: write_folder(at / "data", files),
    "folder with spaces": lambda at, files: write_folder(at / "my data (1)", files),
    "folder of links": lambda at, files: linked(at / "data", files),
    "zip": lambda at, files: write_zip(at / "a.zip", files),
    "deflated zip": lambda at, files: write_zip(at / "a.zip", files, method=zipfile.ZIP_DEFLATED),
    "zip of .NET": lambda at, files: write_zip(at / "a.zip", dot_net(files)),
    "zip without ending": lambda at, files: write_zip(at / "download", files),
    "zip behind a program": lambda at, files: _written(at / "a.exe", b"MZ" * 300 + zip_bytes(files)),
    "zip in Big5": lambda at, files: _written(at / "a.zip", legacy_zip_bytes(under("\u529f\u8ab2/", files), "big5")),
    "zip in GBK": lambda at, files: _written(at / "a.zip", legacy_zip_bytes(under("\u8bfe\u7a0b/", files), "gbk")),
    "zip in Shift-JIS": lambda at, files: _written(at / "a.zip", legacy_zip_bytes(under("\u8868/", files), "cp932")),
    "zip in UTF-8 unsaid": lambda at, files: _written(at / "a.zip", legacy_zip_bytes(under("\u00fc/", files), "utf-8")),
    "tar": lambda at, files: _written(at / "a.tar", tar_bytes(files)),
    "tar of ./": lambda at, files: _written(at / "a.tar", tar_bytes(files, top="./")),
    "GNU tar in Big5": lambda at, files: _written(
        at / "a.tar", tar_bytes(under("\u529f/", files), form=tarfile.GNU_FORMAT, encoding="big5")
    ),
    "tar.gz": lambda at, files: _written(at / "a.tar.gz", gzip.compress(tar_bytes(files), 1)),
    "tgz named tar": lambda at, files: _written(at / "a.tar", gzip.compress(tar_bytes(files), 1)),
    "folder with the zip": lambda at, files: write_folder(at / "data", {"a.zip": zip_bytes(files)}),
    "folder with the tar.gz": lambda at, files: write_folder(
        at / "data", {"a.tar.gz": gzip.compress(tar_bytes(files), 1)}
    ),
    "zip in a zip": lambda at, files: write_zip(at / "a.zip", {"b/data.zip": zip_bytes(files)}),
    "zip in a tar": lambda at, files: _written(at / "a.tar", tar_bytes({"data.zip": zip_bytes(files)})),
    "a zip for each part": lambda at, files: write_folder(
        at / "data", {f"{part}.zip": zip_bytes(of_part) for part, of_part in by_part(files).items()}
    ),
    "a zip for each part, with its folder": lambda at, files: write_zip(
        at / "a.zip",
        {f"{part}.zip": zip_bytes(under(f"{part}/", of_part)) for part, of_part in by_part(files).items()},
    ),
}
