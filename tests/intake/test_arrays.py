"""Packed arrays: every change is found, at once or by their hashes; an unchanged array is not hashed again."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.base.console import UserError
from src.base.reading import Unreadable
from src.intake import arrays
from src.intake.arrays import (
    STAMP,
    array_hashes,
    check_arrays,
    check_contents,
    open_array,
    settled_time_ns,
    stamp_arrays,
)

SHAPE = (5, 3, 2)
PIXELS = np.arange(30, dtype=np.uint8).reshape(SHAPE)
NUMBERS = np.linspace(0, 1, 8, dtype=np.float32).reshape(4, 2)


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder with two arrays that are stamped as checked, and their hashes."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    np.save(folder / "frames.npy", PIXELS)
    np.save(folder / "conditions.npy", NUMBERS)
    began = settled_time_ns()
    hashes = array_hashes(folder)
    stamp_arrays(folder, hashes, began)
    arrays._check_states.cache_clear()
    return folder, hashes


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders whose arrays have been hashed since the start of the test."""
    folders: list[Path] = []

    def counted(folder: Path) -> dict[str, str]:
        folders.append(folder)
        return array_hashes(folder)

    monkeypatch.setattr(arrays, "array_hashes", counted)
    return folders


def test_an_array_comes_back_read_only(packed: tuple[Path, dict[str, str]]) -> None:
    frames, conditions = open_array(packed[0], "frames", SHAPE), open_array(packed[0], "conditions", (4, 2))
    assert np.array_equal(frames, PIXELS) and np.array_equal(conditions, NUMBERS)
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = 0


def test_an_unchanged_array_is_not_hashed(packed: tuple[Path, dict[str, str]], hashed: list[Path]) -> None:
    for _ in range(3):
        arrays._check_states.cache_clear()
        check_arrays(*packed)
    assert hashed == []


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def flip_and_hide(path: Path) -> None:
    """Changes a bit and sets the time of the last change back."""
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_another(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    flip(other)
    other.replace(path)


@pytest.mark.parametrize("change", [flip, flip_and_hide, replace_by_another])
@pytest.mark.parametrize("name", ["frames", "conditions"])
def test_a_changed_array_is_refused_again_and_again(
    packed: tuple[Path, dict[str, str]], name: str, change: Callable[[Path], None]
) -> None:
    folder, hashes = packed
    change(folder / f"{name}.npy")
    for _ in range(2):
        with pytest.raises(UserError, match=rf"tiny/{name}.npy is not what was packed: .* hash; restore it, or delete"):
            check_arrays(folder, hashes)


@pytest.mark.parametrize(
    "touch",
    [
        lambda folder: os.utime(folder / "frames.npy"),
        lambda folder: (folder / "frames.npy").chmod(0o600),
        lambda folder: (folder / STAMP).unlink(),
        lambda folder: (folder / STAMP).write_text("{"),
        lambda folder: (folder / STAMP).write_text('{"began_ns": 1, "files": {"frames": [1, 2]}, "hashes": {}}'),
        lambda folder: stamp_arrays(folder, {"frames": "0" * 64, "conditions": "0" * 64}, time.time_ns()),
        lambda folder: stamp_arrays(folder, array_hashes(folder), 0),
        lambda folder: stamp_arrays(folder, array_hashes(folder), 2**62),
    ],
    ids=[
        "touched",
        "mode",
        "no stamp",
        "damaged stamp",
        "foreign stamp",
        "stamp of other data",
        "stamp before the file",
        "stamp of the future",
    ],
)
def test_in_doubt_the_arrays_are_hashed_once(
    packed: tuple[Path, dict[str, str]], hashed: list[Path], touch: Callable[[Path], None]
) -> None:
    touch(packed[0])
    check_arrays(*packed)
    assert hashed == [packed[0]]
    settled_time_ns()
    hashed.clear()
    for _ in range(2):  # the first check was perhaps too soon after the change to count
        arrays._check_states.cache_clear()
        check_arrays(*packed)
    assert len(hashed) <= 1
    hashed.clear()
    arrays._check_states.cache_clear()
    check_arrays(*packed)
    assert hashed == []


def test_what_is_written_during_the_check_is_not_stamped(
    packed: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the clock of a network folder is behind, so that its times tell nothing."""

    def then_changed(folder: Path) -> dict[str, str]:
        found = array_hashes(folder)
        flip(folder / "frames.npy")
        return found

    now = time.time_ns
    monkeypatch.setattr(arrays.time, "time_ns", lambda: now() + 10**12)
    monkeypatch.setattr(arrays, "array_hashes", then_changed)
    check_contents(*packed)
    monkeypatch.setattr(arrays, "array_hashes", array_hashes)
    with pytest.raises(UserError, match=r"tiny/frames.npy is not what was packed"):
        check_arrays(*packed)


def test_a_copy_is_hashed_and_then_known(
    packed: tuple[Path, dict[str, str]], hashed: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    copy = packed[0].with_name("copy")
    shutil.copytree(packed[0], copy)
    settled_time_ns()
    for _ in range(2):
        check_arrays(copy, packed[1])
    assert hashed == [copy]
    assert capsys.readouterr().out.endswith(
        "copy: written or copied since its last check; its 2 arrays match their hashes\n"
    )


def test_a_folder_that_cannot_be_written_is_hashed_by_each_command(
    packed: tuple[Path, dict[str, str]],
    hashed: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (packed[0] / STAMP).unlink()

    def read_only(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(arrays, "write_atomically", read_only)
    monkeypatch.setattr(arrays, "remove_leftovers", read_only)
    for _ in range(3):  # one command
        check_arrays(*packed)
    assert len(hashed) == 1
    assert capsys.readouterr().out.count("each command checks them again (a file: permission denied") == 1
    check_contents(*packed)


def test_a_pipe_in_the_place_of_an_array_is_refused_and_not_waited_for(packed: tuple[Path, dict[str, str]]) -> None:
    (packed[0] / "frames.npy").unlink()
    os.mkfifo(packed[0] / "frames.npy")
    with pytest.raises(Unreadable, match=r"frames.npy is no plain file"):
        open_array(packed[0], "frames", SHAPE)
    with pytest.raises(Unreadable, match=r"frames.npy is no plain file"):
        check_arrays(*packed)


HEADERS = [b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x09\x00", b"PK\x03\x04", b"\x80\x05" * 40]


@pytest.mark.parametrize("head", HEADERS)
def test_a_damaged_header_is_named(packed: tuple[Path, dict[str, str]], head: bytes) -> None:
    path = packed[0] / "frames.npy"
    path.write_bytes(head + path.read_bytes()[len(head) :])
    with pytest.raises(Unreadable, match=r"tiny/frames.npy is "):
        open_array(packed[0], "frames", SHAPE)


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, 157), byte=st.integers(0, 255), cut=st.integers(-3, 3))
def test_a_mutated_file_is_the_array_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("mutated")
    np.save(folder / "frames.npy", PIXELS)
    content = bytearray((folder / "frames.npy").read_bytes())
    content[place] = byte
    (folder / "frames.npy").write_bytes(
        bytes(content[: len(content) + cut]) if cut < 0 else bytes(content) + b"\0" * cut
    )
    try:
        found = open_array(folder, "frames", SHAPE)
    except Unreadable as error:
        assert "frames.npy" in str(error) and "\n" not in str(error)
    else:
        assert found.shape == SHAPE and found.dtype == np.uint8 and cut == 0
