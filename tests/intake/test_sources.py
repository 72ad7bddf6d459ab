"""Zips and folders: complete ones are read unchanged, unsafe or damaged ones are refused with one line."""

import io
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from src.base.console import UserError
from src.intake import sources
from src.intake.sources import check_sizes, open_source
from tests.dance_images import png, write_folder, write_zip

FILES = {"a/0.png": b"first" * 20, "a/b/1.png": b"second" * 30, "empty": b""}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_and_folder_give_the_same_files(tmp_path: Path, method: int) -> None:
    folder = open_source(write_folder(tmp_path / "folder", FILES))
    archive = open_source(write_zip(tmp_path / "archive.zip", FILES, method=method))
    for source in (folder, archive):
        assert {name: source.read(name) for name in source.members} == FILES
        assert {name: member.size for name, member in source.members.items()} == {k: len(v) for k, v in FILES.items()}


def test_fingerprint_of_a_folder_tells_names_and_contents_but_not_the_place(tmp_path: Path) -> None:
    def fingerprint(folder: str, prefix: str, files: dict[str, bytes]) -> str:
        source = open_source(write_folder(tmp_path / folder, {prefix + name: data for name, data in files.items()}))
        return source.fingerprint([name for name in source.members if name.endswith(".png")], prefix)

    original = fingerprint("one", "", FILES)
    assert fingerprint("two", "deep/er/", FILES | {"readme.txt": b"not asked for"}) == original
    assert fingerprint("three", "", FILES | {"a/0.png": b"other"}) != original
    assert (
        fingerprint("four", "", {"a/1.png" if name == "a/0.png" else name: FILES[name] for name in FILES}) != original
    )


def _zip_of(name: str, *, mode: int = 0, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, method
        archive.writestr(info, b"content" * 100)
    return file.getvalue()


def _zip_with_flag(flag: int) -> bytes:
    data = bytearray(_zip_of("0.png"))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= flag
    return bytes(data)


def _zip_with_double() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("0.png", b"one")
        archive.writestr("0.png", b"two")
    return file.getvalue()


UNSAFE = {
    "parent": (lambda: _zip_of("train/../../0.png"), "train/../../0.png.* not a plain path"),
    "absolute": (lambda: _zip_of("/etc/0.png"), "/etc/0.png.* not a plain path"),
    "drive": (lambda: _zip_of("C:0.png"), "C:0.png.* not a plain path"),
    "backslash": (lambda: _zip_of("..\\0.png"), "not a plain path"),
}
UNREADABLE = {
    "link out": (lambda: _zip_of("0.png", mode=stat.S_IFLNK | 0o777), "0.png is a link to contentcon.*not in the arc"),
    "encrypted": (lambda: _zip_with_flag(1), "0.png is encrypted; unpack it with its password"),
    "method": (lambda: _zip_of("0.png", method=zipfile.ZIP_LZMA), "0.png is compressed by method 14, .*: 7z x"),
    "double": (_zip_with_double, "0.png occurs twice, with different contents"),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_unsafe_zip_is_refused_before_anything_is_read(tmp_path: Path, case: str) -> None:
    make, message = UNSAFE[case]
    path = tmp_path / "unsafe.zip"
    path.write_bytes(make())
    source = open_source(path)
    with pytest.raises(UserError, match=f"unsafe.zip: .*{message}.*needed"):
        source.members  # noqa: B018  reading the property runs the checks


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_refused_where_it_is_needed(tmp_path: Path, case: str) -> None:
    make, message = UNREADABLE[case]
    path = tmp_path / "a.zip"
    path.write_bytes(make())
    source = open_source(path)
    assert list(source.members) == ["0.png"]
    for read in (source.read, lambda name: check_sizes(source, [name])):
        with pytest.raises(UserError, match=f"a.zip: {message}"):
            read("0.png")


def _missing(path: Path) -> None:
    pass


def _not_a_zip(path: Path) -> None:
    path.write_bytes(b"<html>Please log in</html>" * 50)


def _without_end(path: Path) -> None:
    data = write_zip(path, FILES).read_bytes()
    path.write_bytes(data[:-30])


def _half(path: Path) -> None:
    data = write_zip(path, FILES).read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_missing, "does not exist; needed: a .zip or .tar file or a folder"),
        (_not_a_zip, "is no zip or tar file; needed"),
        (_without_end, "is truncated or damaged .*download it again"),
        (_half, "is truncated or damaged .*download it again"),
        (Path.touch, "is no zip or tar file"),
    ],
)
def test_what_is_no_whole_zip_is_refused(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "download.zip"
    spoil(path)
    with pytest.raises(UserError, match=f"download.zip {message}"):
        open_source(path)


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("synthetics", "did you mean synthetic?"),
        ("synthetic_pushing", "did you mean synthetic-pushing?"),
        ("kagle", "did you mean kaggle?"),
        (
            "dance",
            "needed: a .zip or .tar file or a folder that holds a data set, or synthetic, synthetic-pushing, kaggle",
        ),
    ],
)
def test_a_source_that_is_not_there_may_be_a_word(
    name: str, needed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        open_source(Path(name))
    assert str(caught.value) == f"{name} does not exist; {needed}"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_changed_byte_in_a_zip_is_noticed(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "changed.zip", {"0.png": png(1)}, method=method)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"changed.zip: 0.png is damaged .*needed"):
        open_source(path).read("0.png")


def test_bytes_missing_inside_a_zip_are_noticed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "short.zip", {f"{n}.png": png(n) for n in range(9)})
    data = path.read_bytes()
    path.write_bytes(data[:3000] + data[4000:])  # the directory at the end stays complete
    source = open_source(path)
    with pytest.raises(UserError, match="is damaged"):
        for name in source.members:
            source.read(name)


@pytest.mark.parametrize("declared", [10, 5000])
def test_zip_that_lies_about_a_size_is_noticed(tmp_path: Path, declared: int) -> None:
    path = write_zip(tmp_path / "liar.zip", {"0.png": bytes(1000)}, method=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = struct.pack("<I", declared)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"0.png (is damaged|holds 1000 bytes, not the declared 5000)"):
        open_source(path).read("0.png")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("elsewhere"), "is a link to elsewhere, which is not there; bring that back"),
        (lambda path: path.symlink_to(path.parent.parent), "is a link to a folder in which it lies; remove it"),
        (os.mkfifo, "is a special file; put a plain file in its place"),
    ],
    ids=["link", "circle", "pipe"],
)
def test_link_to_nothing_or_pipe_in_a_folder_is_refused_where_it_is_needed(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    folder = write_folder(tmp_path / "folder", FILES)
    make(folder / "a" / "2.png")
    source = open_source(folder)
    assert source.members.keys() == FILES.keys() | {"a/2.png"}
    with pytest.raises(UserError, match=f"folder: a/2.png {message}"):
        source.read("a/2.png")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_FILES", 2)
    for path in (write_folder(tmp_path / "folder", FILES), write_zip(tmp_path / "archive.zip", FILES)):
        with pytest.raises(UserError, match="holds more than 2 files"):
            open_source(path).members  # noqa: B018


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "bomb.zip", {"0.png": bytes(8 * 2**20)}, method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    with pytest.raises(UserError, match=r"0.png unpacks from [0-9,]+ to 8,388,608 bytes; needed"):
        check_sizes(open_source(path), ["0.png"])


def test_sizes_are_limited_for_one_image_and_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(write_folder(tmp_path, {"0.png": bytes(60), "1.png": bytes(50)}))
    check_sizes(source, ["0.png", "1.png"])
    monkeypatch.setattr(sources, "MAX_TOTAL_BYTES", 109)
    with pytest.raises(UserError, match="unpacks to 110 bytes; needed: 109 at most"):
        check_sizes(source, ["0.png", "1.png"])
    monkeypatch.setattr(sources, "MAX_IMAGE_BYTES", 59)
    with pytest.raises(UserError, match=r"0.png takes 60 bytes; needed: 59 at most"):
        check_sizes(source, ["0.png", "1.png"])
