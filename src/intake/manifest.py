"""What a packed data set is: the shapes of its arrays, and the manifest that says what they hold and came from."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from src.base.console import UserError, say
from src.base.files import file_hash
from src.intake.sources import FRAME_SIZE
from src.intake.takes import Takes, list_cuts

FORMAT = 1  # of arrays and manifest together; data sets of another format are refused
CLIP_LENGTH = 30  # frames of a clip of robot pushing
CLIP_SIZE = (64, 64)  # height and width of its frames
NUM_ACTION, NUM_POSITION = 4, 3  # numbers per frame: the action, then the position of the end effector
SPLITS = ("train", "validate", "test")  # of robot pushing
SLOW_TO_HASH_BYTES = 2**30
CutsOrigin = Literal["declared", "found", "synthetic"]
Camera = Literal["main", "aux1"]
Shapes = dict[str, tuple[int, ...]]  # of the arrays, by name


class Record(BaseModel):
    """Part of a manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceRecord(Record):
    """What a data set was packed from; `fingerprint` tells its content."""

    name: str
    kind: Literal["zip", "folder", "records", "synthetic"]
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, {self.fingerprint[:12]})"


class Manifest(Record):
    """What a packed data set holds, whatever its system; nothing in it depends on the machine that packed it."""

    version: int = FORMAT
    system: str
    source: SourceRecord
    arrays: dict[str, str]  # name -> sha256 of its .npy file
    fingerprint: str  # of all that a model can see

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Returns the manifest of a packed data set; UserError where there is none, or half, damaged or old.

        Of a system's own class, also where the data set is of another system.
        """
        repack = f"make data SOURCE=... DATASET={folder.name}"
        if not folder.is_dir():
            present = ", ".join(sorted(path.parent.name for path in folder.parent.glob("[!.]*/manifest.json")))
            state = "was interrupted while it was packed" if partial_folder(folder).exists() else "does not exist"
            raise UserError(f"{folder} {state}; data sets there: {present or 'none'}; needed: one of them, or {repack}")
        mend = f"delete the folder, then {repack}"
        try:
            text = (folder / "manifest.json").read_text(encoding="utf-8")
            content = json.loads(text)
            if (version := content["version"]) != FORMAT:
                raise UserError(f"{folder} has format {version}; needed: format {FORMAT}; {mend}")
            manifest = SYSTEMS[content["system"]].model_validate_json(text)
        except FileNotFoundError as error:
            raise UserError(f"{folder} holds no manifest.json: half written, or no data set; {mend}") from error
        except (ValidationError, UnicodeDecodeError, json.JSONDecodeError, TypeError, KeyError) as error:
            raise UserError(f"{folder}/manifest.json is damaged; {mend}") from error
        if not isinstance(manifest, cls):
            needed = cls.model_fields["system"].default
            found = f"{folder} is a data set of the system {manifest.system}, needed: one of {needed}"
            raise UserError(f"{found}; name another data set, or choose a model of {manifest.system}")
        if manifest.fingerprint != manifest.content:
            raise UserError(f"{folder}/manifest.json has been changed since it was packed; {mend}")
        for name, shape in manifest.shapes.items():
            if not is_whole(folder / f"{name}.npy", shape):
                needed = f"{array_type(name)} {shape}"
                raise UserError(f"{folder}/{name}.npy is missing or damaged; needed: {needed}; {mend}")
        return manifest

    @property
    def content(self) -> str:
        """The fingerprint that belongs to what else the manifest says."""
        return content_fingerprint(self.arrays)

    @property
    def shapes(self) -> Shapes:
        """Shape of each array by name."""
        raise NotImplementedError

    @property
    def origin(self) -> str:
        """What it was packed from, for people."""
        return str(self.source)

    @property
    def summary(self) -> str:
        """How much of what it holds, for people."""
        raise NotImplementedError


class DanceManifest(Manifest):
    """What a packed data set of dancers holds."""

    system: Literal["dance"] = "dance"
    num_train: int
    num_val: int
    num_tests: int
    test_length: int
    image_size: tuple[int, int]  # height and width before resizing
    cuts: CutsOrigin
    train_takes: Takes
    val_takes: Takes

    @property
    def content(self) -> str:
        """The fingerprint that belongs to what else the manifest says."""
        return content_fingerprint(self.arrays, self.train_takes, self.val_takes)

    @property
    def shapes(self) -> Shapes:
        """Shape of each array by name."""
        return dance_shapes(self.num_train, self.num_val, self.num_tests, self.test_length)

    @property
    def origin(self) -> str:
        """What it was packed from, for people."""
        return f"{self.source}, cuts {self.cuts}: {list_cuts(self.train_takes)}"

    @property
    def summary(self) -> str:
        """How much of what it holds, for people."""
        height, width = self.image_size
        resized = f"; resized from {height} x {width}" if self.image_size != FRAME_SIZE else ""
        return (
            f"training {self.num_train} frames, takes {len(self.train_takes)}; validation {self.num_val} frames; "
            f"tests {self.num_tests} x {self.test_length} poses{resized}"
        )


class PushingManifest(Manifest):
    """What a packed data set of robot pushing holds."""

    system: Literal["pushing"] = "pushing"
    num_train: int
    num_validate: int
    num_test: int
    camera: Camera | None  # that of the original records; None where the source has one alone
    held_out: bool  # the validation clips are the last of the source's training clips

    @property
    def shapes(self) -> Shapes:
        """Shape of each array by name."""
        return pushing_shapes(self.num_train, self.num_validate, self.num_test)

    @property
    def origin(self) -> str:
        """What it was packed from, for people."""
        return f"{self.source}, camera {self.camera}" if self.camera else str(self.source)

    @property
    def summary(self) -> str:
        """How much of what it holds, for people."""
        counts = f"training {self.num_train}, validation {self.num_validate}, test {self.num_test}"
        return f"clips of {CLIP_LENGTH} frames: {counts}"


SYSTEMS: dict[str, type[Manifest]] = {"dance": DanceManifest, "pushing": PushingManifest}


def partial_folder(folder: Path) -> Path:
    """Returns where a data set is packed until it is whole."""
    return folder.with_name(f".{folder.name}.partial")


def dance_shapes(num_train: int, num_val: int, num_tests: int, test_length: int) -> Shapes:
    """Returns the shape of each array of a dance data set by name."""
    image = (3, *FRAME_SIZE)
    return {
        "train_frames": (num_train, *image),
        "train_poses": (num_train, *image),
        "val_frames": (num_val, *image),
        "val_poses": (num_val, *image),
        "test_frames": (num_tests, *image),
        "test_poses": (num_tests, test_length, *image),
    }


def pushing_shapes(*num_clips: int) -> Shapes:
    """Returns the shape of each array of a pushing data set by name, given the clips of each of `SPLITS`."""
    shapes: Shapes = {}
    for split, count in zip(SPLITS, num_clips, strict=True):
        shapes[f"{split}_frames"] = (count, CLIP_LENGTH, 3, *CLIP_SIZE)
        shapes[f"{split}_conditions"] = (count, CLIP_LENGTH, NUM_ACTION + NUM_POSITION)
    return shapes


def array_type(name: str) -> np.dtype:
    """Returns what the numbers of an array of that name are: float32 for conditions, uint8 for pictures."""
    return np.dtype(np.float32 if name.endswith("conditions") else np.uint8)


def array_hashes(folder: Path) -> dict[str, str]:
    """Returns the sha256 of each array's file by name."""
    files = sorted(folder.glob("*.npy"))
    total = sum(file.stat().st_size for file in files)
    if total >= SLOW_TO_HASH_BYTES:
        say(f"hashing {total / 2**30:.1f} GiB of arrays")
    with ThreadPoolExecutor() as threads:  # hashing lets other threads run
        return dict(zip((file.stem for file in files), threads.map(file_hash, files), strict=True))


def content_fingerprint(arrays: dict[str, str], *takes: Takes) -> str:
    """Returns the sha256 of all that a model can see of a data set: its arrays and, of dancers, its takes."""
    return hashlib.sha256(json.dumps([arrays, *takes], sort_keys=True).encode()).hexdigest()


def is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Returns whether the file is an array of that shape and of its name's type, not cut off, without reading it."""
    try:
        array = np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return False
    return array.shape == shape and array.dtype == array_type(path.stem)
