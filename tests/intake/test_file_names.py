"""Names: what other programs leave is litter, what a person made is not, and a picture's number is found or not."""

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.base.console import UserError
from src.intake.file_names import is_litter, numbered
from src.intake.sources import Source

LITTER = (
    "a/.DS_Store",
    "a/._0.png",
    "__MACOSX/a/0.png",
    "Thumbs.db",
    "a/desktop.ini",
    "a/.ipynb_checkpoints/0-checkpoint.png",
    "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
    "a/.directory",
    "a/.gitkeep",
    "0.png:Zone.Identifier",
    ".git/HEAD",
)
OWN = ("a/0.png", "0.png", "thumbs/0.png", "a.b/c.png", "MACOSX/0.png", "./0.png", "readme.txt")


@pytest.mark.parametrize("name", LITTER)
def test_what_other_programs_leave_is_litter(name: str) -> None:
    assert is_litter(name)


@pytest.mark.parametrize("name", OWN)
def test_what_a_person_made_is_not(name: str) -> None:
    assert not is_litter(name)


NUMBERS = {
    "0.png": 0,
    "007.PNG": 7,
    "frame12.jpg": 12,
    "frame_0001.jpeg": 1,
    "Bild 3.Png": 3,
    "Bild (3).png": 3,
    "ñ5.png": 5,
    "take2_5.png": 5,
    "dance_000000000012_rendered.png": 12,
    "2024-01-31_0007.webp": 7,
    "3.gif": 3,
    "1.5.png": 5,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_number_of_a_picture_is_the_last_one_in_its_name(name: str) -> None:
    assert numbered([name], "a") == {NUMBERS[name]: name}


@pytest.mark.parametrize("name", ["cover.png", ".png", "1234567890.png", "٣.png", "3.txt", "3", "3\n"])
def test_a_name_without_a_number_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is unexpected; needed in a: numbered pictures such as"):
        numbered(["0.png", name], "a")


@pytest.mark.parametrize("names", [("0.png", "1 (1).png"), ("a0.png", "b1.png"), ("0.png", "1_mask.png")])
def test_names_of_two_forms_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="are named in two ways; needed: the same text around each number"):
        numbered(names, "a")


@given(number=st.integers(0, 10**9 - 1), zeros=st.integers(0, 9))
def test_zeros_do_not_change_a_number(number: int, zeros: int) -> None:
    name = f"frame_{str(number).zfill(zeros)}.png"
    assert numbered([name], "a") == {number: name}


def test_a_zip_and_a_folder_have_the_same_files_and_the_same_litter(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in (*LITTER, *OWN[:5]):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
            archive.writestr(name, b"x")
    sources = Source(folder), Source(tmp_path / "a.zip")
    assert [sorted(source.members) for source in sources] == [sorted(OWN[:5])] * 2
    assert all(len(source.litter) >= 9 for source in sources)


def test_the_separators_of_windows_are_read_as_such(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("train\\train_img\\0.png", b"x")
    source = Source(tmp_path / "a.zip")
    assert list(source.members) == ["train/train_img/0.png"]
    assert source.read("train/train_img/0.png") == b"x"


def test_a_name_that_is_no_text_has_a_fingerprint(tmp_path: Path) -> None:
    path = Path(str(tmp_path) + "/\udca4\udca4.png")
    path.write_bytes(b"x")
    source = Source(tmp_path)
    assert source.fingerprint(source.members, "") == Source(tmp_path).fingerprint(source.members, "")
