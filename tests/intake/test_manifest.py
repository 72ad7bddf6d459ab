"""Manifests: a packed data set opens again. An incomplete or damaged one is refused with one clear line."""

import hashlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from src.base.console import UserError
from src.intake.arrays import array_hashes
from src.intake.manifest import (
    DanceManifest,
    Manifest,
    SourceRecord,
    content_fingerprint,
    dance_shapes,
    partial_folder,
)


def write_data_set(folder: Path) -> Manifest:
    """Writes a packed data set of black pictures."""
    folder.mkdir(parents=True)
    for name, shape in dance_shapes(3, 2, 1, 2, (32, 64)).items():
        np.save(folder / f"{name}.npy", np.zeros(shape, dtype=np.uint8))
    arrays = array_hashes(folder)
    train_takes = ((0, 1), (1, 3))
    val_takes = ((0, 2),)
    manifest = DanceManifest(
        source=SourceRecord(name="dance.zip", kind="zip", fingerprint="0" * 64),
        num_train=3,
        num_val=2,
        num_tests=1,
        test_length=2,
        image_size=(64, 128),
        cuts="declared",
        train_takes=train_takes,
        val_takes=val_takes,
        arrays=arrays,
        fingerprint=content_fingerprint(arrays, train_takes, val_takes, facts={}),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return manifest


def test_manifest_is_read_back_and_cannot_be_changed(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "dance")
    assert Manifest.load(tmp_path / "dance") == manifest
    assert manifest.shapes["test_poses"] == (1, 2, 3, 32, 64)
    with pytest.raises(ValidationError, match="frozen"):
        manifest.num_train = 4


@pytest.mark.parametrize("array", ["train_poses", "val_frames", "test_frames"])
def test_a_data_set_with_a_changed_array_is_not_loaded(tmp_path: Path, array: str) -> None:
    folder = tmp_path / "dance"
    write_data_set(folder)
    with (folder / f"{array}.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    with pytest.raises(UserError, match=rf"dance/{array}.npy is not what was packed"):
        Manifest.load(folder)


def test_fingerprint_tells_arrays_and_takes() -> None:
    fingerprint = partial(content_fingerprint, facts={})
    original = fingerprint({"a": "1"}, ((0, 3),), ((0, 2),))
    assert original == fingerprint({"a": "1"}, ((0, 3),), ((0, 2),))
    assert original != fingerprint({"a": "2"}, ((0, 3),), ((0, 2),))
    assert original != fingerprint({"a": "1"}, ((0, 1), (1, 3)), ((0, 2),))
    assert original != fingerprint({"a": "1"}, ((0, 3),), ((0, 1), (1, 2)))
    assert original != content_fingerprint({"a": "1"}, ((0, 3),), ((0, 2),), facts={"palette": "unknown"})


NEW_FACTS = {
    "dance": {"frame_size": [32, 64], "scored_frames": [1, 600], "filled": False, "palette": "competition"},
    "pushing": {"clip_length": 30, "frame_size": [64, 64], "num_action": 4, "num_position": 3},
}


def written_before(folder: Path, system: str) -> dict[str, object]:
    """Writes arrays and a hand-made manifest of an older version, without `NEW_FACTS`. Returns the manifest."""
    folder.mkdir()
    content: dict[str, object] = {"version": 1, "system": system}
    content["source"] = {"name": "a.zip", "kind": "zip", "fingerprint": "0" * 64}
    if system == "dance":
        shapes = {f"{part}_{kind}": (2, 3, 32, 64) for part in ("train", "val") for kind in ("frames", "poses")}
        shapes |= {"test_frames": (1, 3, 32, 64), "test_poses": (1, 2, 3, 32, 64)}
        content |= {"num_train": 2, "num_val": 2, "num_tests": 1, "test_length": 2, "image_size": [32, 64]}
        content |= {"cuts": "found", "train_takes": [[0, 2]], "val_takes": [[0, 2]]}
        takes = [content["train_takes"], content["val_takes"]]
    else:
        shapes = {f"{split}_frames": (1, 30, 3, 64, 64) for split in ("train", "validate", "test")}
        shapes |= {f"{split}_conditions": (1, 30, 7) for split in ("train", "validate", "test")}
        content |= {"num_train": 1, "num_validate": 1, "num_test": 1, "camera": None, "held_out": False}
        takes = []
    for name, shape in shapes.items():
        np.save(folder / f"{name}.npy", np.zeros(shape, np.float32 if name.endswith("conditions") else np.uint8))
    arrays = {name: hashlib.sha256((folder / f"{name}.npy").read_bytes()).hexdigest() for name in shapes}
    fingerprint = hashlib.sha256(json.dumps([arrays, *takes], sort_keys=True).encode()).hexdigest()
    content |= {"arrays": arrays, "fingerprint": fingerprint}
    (folder / "manifest.json").write_text(json.dumps(content))
    return content


@pytest.mark.parametrize("system", NEW_FACTS)
def test_a_data_set_packed_before_its_facts_were_written_down_still_opens(system: str, tmp_path: Path) -> None:
    before = written_before(tmp_path / "old", system)
    manifest = Manifest.load(tmp_path / "old")
    assert json.loads(manifest.model_dump_json()) == before | NEW_FACTS[system]
    assert manifest.unusual_facts == {}
    assert manifest.content == before["fingerprint"]  # the same data set packed today has this fingerprint


def test_an_unusual_fact_changes_the_fingerprint_and_comes_back(tmp_path: Path) -> None:
    before = written_before(tmp_path / "old", "dance")
    path = tmp_path / "old" / "manifest.json"
    path.write_text(json.dumps(before | {"palette": "unknown", "scored_frames": [1, 250]}))
    with pytest.raises(UserError, match=r"manifest\.json has been changed"):
        Manifest.load(tmp_path / "old")
    facts = [before["arrays"], [[0, 2]], [[0, 2]], {"scored_frames": [1, 250], "palette": "unknown"}]
    other = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(before | {"palette": "unknown", "scored_frames": [1, 250], "fingerprint": other}))
    manifest = Manifest.load(tmp_path / "old")
    assert (manifest.palette, manifest.scored_frames) == ("unknown", (1, 250))
    assert "left and right limbs" in (manifest.facts.cannot_mirror or "")


def test_missing_data_set_is_told_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dance does not exist; data sets there: none; .*make data .*DATASET=dance"):
        Manifest.load(tmp_path / "dance")
    write_data_set(tmp_path / "mini")
    write_data_set(tmp_path / "demo")
    write_data_set(tmp_path / ".hidden")
    with pytest.raises(UserError, match=r"data sets there: demo, mini;"):
        Manifest.load(tmp_path / "dance")
    partial_folder(tmp_path / "dance").mkdir()
    with pytest.raises(UserError, match="dance was interrupted while it was packed;"):
        Manifest.load(tmp_path / "dance")


def _edit(**changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def _write(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "manifest.json").write_bytes(content) and None


def _cut_off(folder: Path) -> None:
    path = folder / "val_poses.npy"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "holds no manifest.json"),
        (_write(b'{"version": 1, "sys'), "manifest.json is damaged"),
        (_write(b"\xff\xfe"), "manifest.json is damaged"),
        (_write(b"[]"), "manifest.json is damaged"),
        (_write(b"{}"), "manifest.json has format None; needed: format 1"),
        (_edit(version=2), "has format 2; needed: format 1"),
        (_edit(num_train="many"), "manifest.json cannot be read .num_train: "),
        (_edit(machine="here"), "manifest.json cannot be read .machine: "),
        (_edit(train_takes=[[0, 3]]), "manifest.json has been changed"),
        (lambda folder: (folder / "val_poses.npy").unlink(), "val_poses.npy does not exist"),
        (_cut_off, "val_poses.npy is (damaged|not the packed array)"),
        (
            lambda folder: np.save(folder / "val_poses.npy", np.zeros((2, 3, 64, 32), np.uint8)),
            r"is not the packed array uint8 \(2, 3, 32",
        ),
        (
            lambda folder: np.save(folder / "val_poses.npy", np.zeros((2, 3, 32, 64))),
            "val_poses.npy is (damaged|not the packed array)",
        ),
    ],
)
def test_spoiled_data_set_is_refused(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    write_data_set(tmp_path / "dance")
    spoil(tmp_path / "dance")
    with pytest.raises(UserError, match=f"dance.*{message}.*delete .*, then make data .*DATASET=dance"):
        Manifest.load(tmp_path / "dance")
