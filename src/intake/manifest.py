"""What a packed data set is: the shapes of its arrays, and the manifest that says what they hold and came from."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from src.console import UserError
from src.files import file_hash
from src.intake.sources import FRAME_SIZE
from src.intake.takes import Takes

FORMAT = 1  # of arrays and manifest together; data sets of another format are refused
CutsOrigin = Literal["declared", "found", "synthetic"]


class Record(BaseModel):
    """Part of a manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceRecord(Record):
    """What a data set was packed from; `fingerprint` tells its content."""

    name: str
    kind: Literal["zip", "folder", "synthetic"]
    fingerprint: str


class Manifest(Record):
    """What a packed data set holds; nothing in it depends on the machine that packed it."""

    version: int = FORMAT
    system: Literal["dance"] = "dance"
    source: SourceRecord
    num_train: int
    num_val: int
    num_tests: int
    test_length: int
    image_size: tuple[int, int]  # height and width before resizing
    cuts: CutsOrigin
    train_takes: Takes
    val_takes: Takes
    arrays: dict[str, str]  # name -> sha256 of its .npy file
    fingerprint: str  # of all that a model can see: the arrays and the takes

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Returns the manifest of a packed data set; UserError where there is none, or half, damaged or old."""
        repack = f"make data SOURCE=... DATASET={folder.name}"
        if not folder.is_dir():
            present = ", ".join(sorted(path.parent.name for path in folder.parent.glob("[!.]*/manifest.json")))
            state = "was interrupted while it was packed" if partial_folder(folder).exists() else "does not exist"
            raise UserError(f"{folder} {state}; data sets there: {present or 'none'}; needed: one of them, or {repack}")
        mend = f"delete the folder, then {repack}"
        try:
            text = (folder / "manifest.json").read_text(encoding="utf-8")
            if (version := json.loads(text)["version"]) != FORMAT:
                raise UserError(f"{folder} has format {version}; needed: format {FORMAT}; {mend}")
            manifest = cls.model_validate_json(text)
        except FileNotFoundError as error:
            raise UserError(f"{folder} holds no manifest.json: half written, or no data set; {mend}") from error
        except (ValidationError, UnicodeDecodeError, json.JSONDecodeError, TypeError, KeyError) as error:
            raise UserError(f"{folder}/manifest.json is damaged; {mend}") from error
        if manifest.fingerprint != content_fingerprint(manifest.arrays, manifest.train_takes, manifest.val_takes):
            raise UserError(f"{folder}/manifest.json has been changed since it was packed; {mend}")
        for name, shape in manifest.shapes.items():
            if not is_whole(folder / f"{name}.npy", shape):
                raise UserError(f"{folder}/{name}.npy is missing or damaged; needed: uint8 {shape}; {mend}")
        return manifest

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array by name."""
        return array_shapes(self.num_train, self.num_val, self.num_tests, self.test_length)


def partial_folder(folder: Path) -> Path:
    """Returns where a data set is packed until it is whole."""
    return folder.with_name(f".{folder.name}.partial")


def array_shapes(num_train: int, num_val: int, num_tests: int, test_length: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array by name."""
    image = (3, *FRAME_SIZE)
    return {
        "train_frames": (num_train, *image),
        "train_poses": (num_train, *image),
        "val_frames": (num_val, *image),
        "val_poses": (num_val, *image),
        "test_frames": (num_tests, *image),
        "test_poses": (num_tests, test_length, *image),
    }


def array_hashes(folder: Path) -> dict[str, str]:
    """Returns the sha256 of each array's file by name."""
    files = sorted(folder.glob("*.npy"))
    with ThreadPoolExecutor() as threads:  # hashing lets other threads run
        return dict(zip((file.stem for file in files), threads.map(file_hash, files), strict=True))


def content_fingerprint(arrays: dict[str, str], train_takes: Takes, val_takes: Takes) -> str:
    """Returns the sha256 of all that a model can see of a data set."""
    return hashlib.sha256(json.dumps([arrays, train_takes, val_takes], sort_keys=True).encode()).hexdigest()


def is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Returns whether the file is a uint8 array of that shape, not cut off; its content is not read."""
    try:
        array = np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return False
    return array.shape == shape and array.dtype == np.uint8
