"""Archives and folders as they come: each way of packing gives the same files; what is refused names what helps."""

import gzip
import io
import os
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from src.base.console import UserError
from src.intake import containers
from src.intake.dance import DanceContent
from src.intake.layouts import read_content
from src.intake.sources import open_source
from tests.dance_images import dance_files, write_folder, write_zip
from tests.packers import PACKERS, Files, tar_bytes, zip_bytes

FILES = dance_files()


def content_of(path: Path) -> Files:
    """The pictures of a data set, by their names below the folder that holds the parts."""
    content = read_content(open_source(path))
    assert isinstance(content, DanceContent)
    prefix = content.listing.prefix
    return {name.removeprefix(prefix): content.source.read(name) for name in content.listing.names}


@pytest.mark.parametrize("way", PACKERS)
def test_a_data_set_is_the_same_however_it_is_packed(tmp_path: Path, way: str) -> None:
    assert content_of(PACKERS[way](tmp_path, FILES)) == FILES


@pytest.mark.parametrize(
    "command", ["zip -qr ../a.zip .", "zip -qry ../a.zip .", "tar -cf ../a.tar .", "tar -czf ../a.tgz *"]
)
def test_the_archives_of_the_usual_programs_are_read(tmp_path: Path, command: str) -> None:
    folder = write_folder(tmp_path / "data", FILES)
    (folder / "frames").symlink_to("train/train_img")
    (folder / "train" / "train_img").rename(folder / "frames.d")
    (folder / "frames").unlink()
    (folder / "train" / "train_img").symlink_to("../frames.d")
    os.link(folder / "val/val_img/0.png", folder / "copy.png")
    subprocess.run(command, shell=True, cwd=folder, check=True)
    (archive,) = tmp_path.glob("a.*")
    assert content_of(archive) == FILES


def test_links_are_counted_and_lead_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, target in (
            ("0.png", str(tmp_path / "secret.png")),
            ("1.png", "../secret.png"),
            ("a/2.png", "../b.png"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        info = tarfile.TarInfo("b.png")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"own"))
    (tmp_path / "x" / "y").mkdir(parents=True)
    path = tmp_path / "x" / "a.tar"
    path.write_bytes(file.getvalue())
    source = open_source(path)
    assert source.read("a/2.png") == b"own"
    assert source.links == ["a/2.png"]
    for name in ("0.png", "1.png"):
        with pytest.raises(UserError, match=f"a.tar: {name} is a link to .*secret.png, which is not in the archive"):
            source.read(name)


def test_a_link_to_its_own_folder_does_not_go_on_for_ever(tmp_path: Path) -> None:
    files = io.BytesIO()
    with zipfile.ZipFile(files, "w") as archive:
        for name, target in (("a/loop", "."), ("a/again", "loop"), ("x", "y"), ("y", "x")):
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
        archive.writestr("a/0.png", b"x")
    (tmp_path / "a.zip").write_bytes(files.getvalue())
    members = open_source(tmp_path / "a.zip").members
    assert len(members) < 20 and "a/loop/0.png" in members
    assert members["x"].problem.startswith("is a link to y, which is not in the archive")


REFUSED = {
    "7z": ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(100), "a.7z is a 7z archive; needed: .*: 7z x a.7z -oa"),
    "rar": ("a.rar", b"Rar!\x1a\x07\x00" + bytes(100), "a.rar is a RAR archive; needed: .*: unrar x a.rar a/"),
    "zst": ("a b.tar.zst", b"\x28\xb5\x2f\xfd" + bytes(100), "mkdir 'a b' && tar -xf 'a b.tar.zst' -C 'a b'"),
    "first of a split zip": ("a.zip", b"PK\x07\x08PK\x03\x04" + bytes(99), "split zip; .*: zip -s 0 a.zip --out whole"),
    "first of a split file": (
        "a.zip.001",
        zip_bytes(FILES)[:3000],
        "first part of a split file; .*: cat a.zip.\\* > who",
    ),
    "gzip without tar": ("a.gz", gzip.compress(b"x" * 999), "a.gz is no zip or tar file"),
    "half a tar.gz": ("a.tgz", gzip.compress(tar_bytes(FILES))[:-3000], "a.tgz is truncated or damaged .*download"),
    "half a tar": ("a.tar", tar_bytes(FILES)[:20000], "a.tar is truncated or damaged .*download it again; needed"),
    "tar without end": ("a.tar", tar_bytes(FILES).rstrip(b"\0"), "a.tar is truncated or damaged .*; needed"),
    "LFS": (
        "a.zip",
        b"version https://git-lfs.github.com/spec/v1\noid x",
        "a.zip is a pointer of git LFS.*git lfs pull",
    ),
}


@pytest.mark.parametrize("place", ["alone", "in a folder"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_names_the_command_that_helps(tmp_path: Path, case: str, place: str) -> None:
    name, content, message = REFUSED[case]
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / name).write_bytes(content)
    given = tmp_path / "x" / name if place == "alone" else tmp_path / "x"
    with pytest.raises(UserError, match=message) as caught:
        read_content(open_source(given))
    assert "\n" not in str(caught.value)


def test_a_zip_that_info_zip_has_split_names_its_command(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", FILES | {"big": os.urandom(200_000)})
    subprocess.run(["zip", "-qr0", "-s", "64k", "../a.zip", "."], cwd=folder, check=True)
    assert (tmp_path / "a.z02").exists()
    with pytest.raises(
        UserError, match=r"a.zip is the last part of a split zip; .*folder: zip -s 0 a.zip --out whole.zip"
    ):
        open_source(tmp_path / "a.zip")
    subprocess.run("zip -s 0 a.zip --out whole.zip", shell=True, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert content_of(tmp_path / "whole.zip") == FILES


def test_an_archive_that_is_not_the_data_set_does_no_harm(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "data", {"a.zip": zip_bytes(FILES), "paper.7z": b"7z\xbc\xaf\x27\x1c", "b.gz": b"?"}
    )
    assert content_of(folder) == FILES
    write_folder(folder, FILES)  # unpacked beside its archive: what is unpacked counts
    assert open_source(folder).members.keys() == FILES.keys() | {"a.zip", "paper.7z", "b.gz"}
    assert content_of(folder) == FILES


def test_what_unpacks_to_more_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_UNPACKED_BYTES", 2**21)
    (tmp_path / "bomb.tgz").write_bytes(gzip.compress(tar_bytes({"0.png": bytes(2**22)})))
    with pytest.raises(UserError, match=r"bomb.tgz unpacks to more than .*; needed: a folder; run: .*tar -xf"):
        open_source(tmp_path / "bomb.tgz")


def test_a_zip_bomb_inside_a_zip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.intake.sources.MAX_UNPACKED_BYTES", 2**21)
    path = write_zip(tmp_path / "a.zip", {"b.zip": bytes(2**22)}, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(
        UserError, match=r"b.zip lies in another archive and has 4,194,304 bytes, too much for the memory"
    ):
        read_content(open_source(path))


def test_in_a_tar_the_later_of_two_files_counts_and_a_double_of_a_zip_may_be_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(
        tar_bytes({"0.png": b"old"}).rstrip(b"\0") + bytes(509) + tar_bytes({"0.png": b"new"})
    )
    assert open_source(tmp_path / "a.tar").read("0.png") == b"new"
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("0.png", b"one")
        archive.writestr("0.png", b"one")
    assert open_source(tmp_path / "a.zip").read("0.png") == b"one"
