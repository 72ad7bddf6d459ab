"""A packed data set: the shapes of its arrays, and the manifest that says what they hold and where they come from."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from src.base.console import UserError
from src.base.reading import Unreadable, read_chosen
from src.dance.skeleton import Palette
from src.intake.arrays import Shapes, check_arrays, open_array
from src.intake.facts import (
    CLIP_LENGTH,
    CLIP_SIZE,
    FRAME_SIZE,
    NUM_ACTION,
    NUM_POSITION,
    SCORED_FRAMES,
    DataFacts,
    Size,
)
from src.intake.takes import Takes, list_cuts

FORMAT = 1  # version of arrays and manifest; data sets of another version are refused
SPLITS = ("train", "validate", "test")  # parts of a pushing data set
CutsOrigin = Literal["declared", "found", "synthetic"]
Camera = Literal["main", "aux1"]
SourceKind = Literal["zip", "tar", "folder", "records", "synthetic"]
OTHER_COLOURS = "the pose images have other colours than the competition's, so left and right limbs cannot be exchanged"
OF_ROBOTS = "the actions and positions of a robot would not fit"


@dataclass(frozen=True)
class ClipShape:
    """The shape of a clip of robot pushing: its frames, and the numbers that belong to each frame."""

    length: int = CLIP_LENGTH
    frame_size: Size = CLIP_SIZE
    num_action: int = NUM_ACTION
    num_position: int = NUM_POSITION

    @property
    def num_pixels(self) -> int:
        """Number of pixel values in a clip."""
        return 3 * self.length * self.frame_size[0] * self.frame_size[1]

    @property
    def num_conditions(self) -> int:
        """Number of condition values in a clip."""
        return self.length * (self.num_action + self.num_position)


class Record(BaseModel):
    """Part of a manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceRecord(Record):
    """The source that a data set was packed from. `fingerprint` is a hash of its content."""

    name: str
    kind: SourceKind
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, {self.fingerprint[:12]})"


class Manifest(Record):
    """What a packed data set of any system holds. It does not depend on the machine that packs the data set."""

    stated: ClassVar[tuple[str, ...]] = ()  # optional facts; manifests of older versions lack them and mean the default

    version: int = FORMAT
    system: str
    source: SourceRecord
    arrays: dict[str, str]  # name -> sha256 of its .npy file
    fingerprint: str  # hash of all data that a model can see

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Returns the manifest of a packed data set; UserError if it is missing, incomplete, damaged or old.

        Called on a system's class, it also raises UserError for a data set of another system.
        """
        repack = f"make data SOURCE=... DATASET={folder.name}"
        if not folder.is_dir():
            present = ", ".join(sorted(path.parent.name for path in folder.parent.glob("[!.]*/manifest.json")))
            state = "was interrupted while it was packed" if partial_folder(folder).exists() else "does not exist"
            raise UserError(f"{folder} {state}; data sets there: {present or 'none'}; needed: one of them, or {repack}")
        mend = f"delete the folder, then {repack}"
        if not (folder / "manifest.json").exists():
            raise UserError(f"{folder} holds no manifest.json: incomplete, or not a data set; {mend}")
        try:
            manifest = _read(folder / "manifest.json")
        except Unreadable as error:
            raise UserError(f"{error}; {mend}") from None
        if not isinstance(manifest, cls):
            needed = cls.model_fields["system"].default
            found = f"{folder} is a data set of the system {manifest.system}, needed: one of {needed}"
            raise UserError(f"{found}; name another data set, or choose a model of {manifest.system}")
        if manifest.fingerprint != manifest.content:
            raise UserError(f"{folder}/manifest.json has been changed since it was packed; {mend}")
        manifest.open_arrays(folder)
        check_arrays(folder, manifest.arrays)
        return manifest

    def open_arrays(self, folder: Path) -> dict[str, np.memmap]:
        """Returns the arrays of the data set in a folder, memory-mapped; UserError if one is missing or damaged."""
        try:
            return {name: open_array(folder, name, shape) for name, shape in self.shapes.items()}
        except Unreadable as error:
            mend = f"delete {folder}, then make data SOURCE=... DATASET={folder.name}"
            raise UserError(f"{error}; {mend}") from None

    @property
    def content(self) -> str:
        """The fingerprint, computed from the other fields. In an unchanged manifest it equals `fingerprint`."""
        return content_fingerprint(self.arrays, facts=self.unusual_facts)

    @property
    def unusual_facts(self) -> dict[str, Any]:
        """The optional facts that differ from their defaults.

        The fingerprint includes no others, so the fingerprints of data sets of older versions stay the same.
        """
        values = {name: getattr(self, name) for name in type(self).stated}
        return {name: value for name, value in values.items() if value != type(self).model_fields[name].default}

    @property
    def facts(self) -> DataFacts:
        """The facts that networks and configurations need."""
        raise NotImplementedError

    @property
    def shapes(self) -> Shapes:
        """The shape of each array, by name."""
        raise NotImplementedError

    @property
    def origin(self) -> str:
        """What it was packed from, in words."""
        return str(self.source)

    @property
    def summary(self) -> str:
        """What it holds and how much, in words."""
        raise NotImplementedError


class DanceManifest(Manifest):
    """What a packed data set of dancers holds."""

    stated: ClassVar[tuple[str, ...]] = ("frame_size", "scored_frames", "palette", "filled")

    system: Literal["dance"] = "dance"
    num_train: int
    num_val: int
    num_tests: int
    test_length: int
    image_size: tuple[int, int]  # height and width before resizing
    cuts: CutsOrigin
    train_takes: Takes
    val_takes: Takes
    frame_size: Size = FRAME_SIZE  # height and width of the packed frames and poses
    scored_frames: tuple[int, int] = SCORED_FRAMES  # first and last scored frame of a rollout
    filled: bool = False  # missing poses are empty ones
    palette: Palette = "competition"  # the colours of the limbs in the pose images

    @property
    def content(self) -> str:
        """The fingerprint, computed from the other fields. In an unchanged manifest it equals `fingerprint`."""
        return content_fingerprint(self.arrays, self.train_takes, self.val_takes, facts=self.unusual_facts)

    @property
    def facts(self) -> DataFacts:
        """The facts that networks and configurations need."""
        height, width = self.frame_size
        unknown = None if self.palette == "competition" else OTHER_COLOURS
        return DataFacts({"height": height, "width": width}, unknown, is_notable=unknown is not None)

    @property
    def shapes(self) -> Shapes:
        """The shape of each array, by name."""
        return dance_shapes(self.num_train, self.num_val, self.num_tests, self.test_length, self.frame_size)

    @property
    def origin(self) -> str:
        """What it was packed from, in words."""
        return f"{self.source}, cuts {self.cuts}: {list_cuts(self.train_takes)}"

    @property
    def summary(self) -> str:
        """What it holds and how much, in words."""
        (height, width), (rows, columns) = self.image_size, self.frame_size
        resized = f"; resized from {height} x {width}" if self.image_size != self.frame_size else ""
        size = f"; frames of {rows} x {columns}" if self.frame_size != FRAME_SIZE else ""
        colours = "; poses in other colours than the competition's" if self.palette == "unknown" else ""
        tests = f"tests {self.num_tests} x {self.test_length} poses" if self.num_tests else "no tests"
        return (
            f"training {self.num_train} frames, takes {len(self.train_takes)}; validation {self.num_val} frames; "
            f"{tests}{size}{resized}{colours}"
        )


class PushingManifest(Manifest):
    """What a packed data set of robot pushing holds."""

    stated: ClassVar[tuple[str, ...]] = ("clip_length", "frame_size", "num_action", "num_position")

    system: Literal["pushing"] = "pushing"
    num_train: int
    num_validate: int
    num_test: int
    camera: Camera | None  # one of the original records' two; None if the source has only one
    held_out: bool  # the validation clips are the last of the source's training clips
    clip_length: int = CLIP_LENGTH  # frames
    frame_size: Size = CLIP_SIZE  # height and width of the frames
    num_action: int = NUM_ACTION  # numbers per frame in an action
    num_position: int = NUM_POSITION  # numbers per frame in an effector's position

    @property
    def facts(self) -> DataFacts:
        """The facts that networks and configurations need."""
        height, width = self.frame_size
        network = {"height": height, "width": width, "num_action": self.num_action, "num_position": self.num_position}
        return DataFacts(network, OF_ROBOTS)

    @property
    def clip(self) -> ClipShape:
        """The shape of a clip."""
        return ClipShape(self.clip_length, self.frame_size, self.num_action, self.num_position)

    @property
    def shapes(self) -> Shapes:
        """The shape of each array, by name."""
        return pushing_shapes(self.num_train, self.num_validate, self.num_test, clip=self.clip)

    @property
    def origin(self) -> str:
        """What it was packed from, in words."""
        return f"{self.source}, camera {self.camera}" if self.camera else str(self.source)

    @property
    def summary(self) -> str:
        """What it holds and how much, in words."""
        counts = f"training {self.num_train}, validation {self.num_validate}, test {self.num_test}"
        return f"clips of {self.clip_length} frames: {counts}"


MANIFESTS: dict[str, type[Manifest]] = {"dance": DanceManifest, "pushing": PushingManifest}


def _read(path: Path) -> Manifest:
    """Returns the manifest in a file; Unreadable if it is damaged or of another version."""

    def schema_of(table: dict[str, Any]) -> type[Manifest]:
        if (version := table.get("version")) != FORMAT:
            raise Unreadable(f"{path} has format {str(version)[:20]}; needed: format {FORMAT}")
        if (schema := MANIFESTS.get(str(table.get("system")))) is None:
            raise Unreadable(f"{path} is damaged: it names no system")
        return schema

    manifest = read_chosen(path, schema_of)
    if manifest.arrays.keys() != manifest.shapes.keys():
        raise Unreadable(f"{path} is damaged: it does not name the arrays of its system")
    return manifest


def partial_folder(folder: Path) -> Path:
    """Returns the folder in which a data set is packed until it is complete."""
    return folder.with_name(f".{folder.name}.partial")


def dance_shapes(num_train: int, num_val: int, num_tests: int, test_length: int, frame_size: Size) -> Shapes:
    """Returns the shape of each array of a dance data set by name."""
    image = (3, *frame_size)
    return {
        "train_frames": (num_train, *image),
        "train_poses": (num_train, *image),
        "val_frames": (num_val, *image),
        "val_poses": (num_val, *image),
        "test_frames": (num_tests, *image),
        "test_poses": (num_tests, test_length, *image),
    }


def pushing_shapes(*num_clips: int, clip: ClipShape) -> Shapes:
    """Returns the shape of each array of a pushing data set by name. num_clips: one number for each of `SPLITS`."""
    shapes: Shapes = {}
    for split, count in zip(SPLITS, num_clips, strict=True):
        shapes[f"{split}_frames"] = (count, clip.length, 3, *clip.frame_size)
        shapes[f"{split}_conditions"] = (count, clip.length, clip.num_action + clip.num_position)
    return shapes


def content_fingerprint(arrays: dict[str, str], *takes: Takes, facts: dict[str, Any]) -> str:
    """Returns the sha256 of all data that a model can see: the arrays, the takes of dancers and the unusual facts."""
    content = [arrays, *takes, *([facts] if facts else [])]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
