"""BAIR's original files: clips are read byte for byte, the last ones are held out, and errors name their place."""

from pathlib import Path

import numpy as np
import pytest

from src.base.console import UserError
from src.intake.bair import list_records
from src.intake.manifest import Camera
from src.intake.sources import open_source
from tests.dance_images import write_zip
from tests.packers import tar_bytes
from tests.pushing_clips import clip, clip_features, clip_record, example, framed, write_records

FILES = {  # in numerical order, which differs from alphabetical order
    "train/traj_9_to_10.tfrecords": [0, 1],
    "train/traj_10_to_12.tfrecords": [2, 3, 4],
    "test/traj_0_to_0.tfrecords": [5],
}


@pytest.mark.parametrize("camera", ["main", "aux1"])
def test_clips_are_read_byte_for_byte(tmp_path: Path, camera: Camera, capsys: pytest.CaptureFixture[str]) -> None:
    top = "a/softmotion30_44k/"
    source = open_source(write_records(tmp_path, {top + name: keys for name, keys in FILES.items()}))
    (tmp_path / "readme.txt").write_text("hello")
    listing = list_records(source, camera)
    found = {split: [item.read(source) for item in clips] for split, clips in listing.clips.items()}
    for split, keys in {"train": [0, 1, 2, 3], "validate": [4], "test": [5]}.items():
        for content, (frames, actions, positions) in zip(found[split], map(clip, keys), strict=True):
            expected = frames if camera == "main" else 255 - frames
            assert content.frames.shape == (30, 3, 64, 64)
            np.testing.assert_array_equal(content.frames, np.moveaxis(expected, 3, 1))
            np.testing.assert_array_equal(content.conditions, np.hstack([actions, positions]))
            assert (content.frames.dtype, content.conditions.dtype) == (np.uint8, np.float32)
    assert (listing.camera, listing.held_out, listing.unused) == (camera, True, ("readme.txt",))
    assert "the last 1 of 5 training clips are held out for validation (5%)" in capsys.readouterr().out


def test_fingerprint_depends_only_on_the_content(tmp_path: Path) -> None:
    def fingerprint(folder: str, files: dict[str, list[int]]) -> str:
        return list_records(open_source(write_records(tmp_path / folder, files)), "main").fingerprint

    original = fingerprint("a", FILES)
    assert fingerprint("b", {f"deeper/{name}": keys for name, keys in FILES.items()}) == original
    assert fingerprint("c", FILES | {"train/traj_10_to_12.tfrecords": [2, 4, 3]}) != original
    assert fingerprint("d", FILES | {"test/traj_0_to_0.tfrecords": [4]}) != original


LISTED = {  # file -> its content, the expected error
    "cut off": (
        {"train/traj_10_to_12.tfrecords": clip_record(2) + clip_record(3)[:-9]},
        r"train/traj_10_to_12.tfrecords: record 1 at byte 7\d{5} is cut off; needed: the whole file",
    ),
    "no records": (
        {"test/traj_0_to_0.tfrecords": b"<html>not found</html>"},
        "record 0 at byte 0 has a damaged length",
    ),
    "empty file": ({"test/traj_0_to_0.tfrecords": b""}, "test holds 0 clips; needed: at least 1"),
    "unexpected": ({"train/notes.txt": b""}, r"train/notes.txt is unexpected; needed: traj_A_to_B.tfrecords alone"),
    "another name": ({"test/data.tfrecords": b""}, "test/data.tfrecords is unexpected"),
    "two": ({"copy/train/traj_0_to_1.tfrecords": clip_record(0)}, r"holds two data sets, in \. and copy; needed: one"),
}


@pytest.mark.parametrize("case", LISTED)
def test_error_of_a_file_names_it(tmp_path: Path, case: str) -> None:
    files, needed = LISTED[case]
    write_records(tmp_path, FILES)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=needed) as caught:
        list_records(open_source(tmp_path), "main")
    assert "\n" not in str(caught.value)


def test_missing_split_is_named(tmp_path: Path) -> None:
    for number, missing in enumerate(("train", "test")):
        folder = write_records(tmp_path / str(number), {n: keys for n, keys in FILES.items() if missing not in n})
        with pytest.raises(UserError, match=f"{missing} is missing or empty; needed: traj_A_to_B.tfrecords in it"):
            list_records(open_source(folder), "main")
    few = write_records(tmp_path / "few", {"train/traj_0_to_0.tfrecords": [0], "test/traj_0_to_0.tfrecords": [1]})
    with pytest.raises(UserError, match="train holds 1 clips; needed: at least 2"):
        list_records(open_source(few), "main")
    packed = write_zip(tmp_path / "a.zip", dict.fromkeys(FILES, b""))
    with pytest.raises(UserError, match=r"a.zip holds .* packed, .*; needed: a folder or a plain .tar; unpack it"):
        list_records(open_source(packed), "main")


def test_the_tar_in_which_the_records_are_handed_out_is_read_as_its_folder(tmp_path: Path) -> None:
    folder = write_records(tmp_path / "data", FILES)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.tfrecords")}
    (tmp_path / "a.tar").write_bytes(tar_bytes(files, top="softmotion30_44k/"))
    sources = open_source(folder), open_source(tmp_path / "a.tar")
    plain, packed = (list_records(source, "main") for source in sources)
    assert packed.fingerprint == plain.fingerprint
    for split, clips in plain.clips.items():
        for one, other in zip(clips, packed.clips[split], strict=True):
            np.testing.assert_array_equal(one.read(sources[0]).frames, other.read(sources[1]).frames)


SPOILED = {  # case -> changes of the features, the expected error
    "29 frames": (dict.fromkeys(["29/image_main/encoded"]), "has no feature '29/image_main/encoded'; needed: 30"),
    "no action": (dict.fromkeys(["3/action"]), "has no feature '3/action'"),
    "smaller": ({"7/image_main/encoded": bytes(100)}, r"7/image_main/encoded holds \[100\] bytes, not 12288"),
    "3 numbers": ({"0/action": np.float32([1, 2, 3])}, r"0/action holds \[1.0, 2.0, 3.0\], not 4 finite numbers"),
    "text": ({"5/endeffector_pos": b"1,2,3"}, r"5/endeffector_pos holds \[\], not 3 finite numbers"),
    "NaN": ({"5/endeffector_pos": np.float32([1, np.nan, 3])}, r"5/endeffector_pos holds \[1.0, nan, 3.0\], not 3"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_error_of_a_clip_names_its_record(tmp_path: Path, case: str) -> None:
    changes, needed = SPOILED[case]
    features = {name: value for name, value in (clip_features(3) | changes).items() if value is not None}
    write_records(tmp_path, FILES)
    name = "train/traj_9_to_10.tfrecords"
    (tmp_path / name).write_bytes(clip_record(0) + framed(example(features)))
    source = open_source(tmp_path)
    clips = list_records(source, "main").clips["train"]
    clips[0].read(source)
    place = f"{name}: record 1 at byte {len(clip_record(0))} "
    with pytest.raises(UserError, match=f"{place}.*{needed}") as caught:
        clips[1].read(source)
    assert "\n" not in str(caught.value)


def test_a_record_that_is_no_example_is_refused(tmp_path: Path) -> None:
    write_records(tmp_path, FILES)
    (tmp_path / "test/traj_0_to_0.tfrecords").write_bytes(framed(b"no Example at all"))
    source = open_source(tmp_path)
    with pytest.raises(UserError, match=r"traj_0_to_0\.tfrecords: record 0 at byte 0 is no clip of BAIR pushing"):
        list_records(source, "main").clips["test"][0].read(source)
