"""Packs the pushing data set: the user's request, the source's clips in chunks, and the manifest of the result."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from src.base.console import UserError, say
from src.intake.arrays import array_hashes
from src.intake.chunks import Chunk, Piece, Plan
from src.intake.manifest import (
    SPLITS,
    Camera,
    ClipShape,
    Manifest,
    PushingManifest,
    SourceKind,
    SourceRecord,
    pushing_shapes,
)
from src.intake.pictures import Conversions, add_conversions
from src.intake.sources import Source

CHUNK = 16  # clips
HELD_OUT = 0.05  # share of the training clips that is held out if there are none for validation


class ClipContent(NamedTuple):
    """A clip.

    frames: (T, 3, H, W) uint8.
    conditions: (T, N) float32; each row is the action followed by the position.
    conversions: counts of the pictures that were converted.
    """

    frames: np.ndarray
    conditions: np.ndarray
    conversions: Conversions


class Clip(Protocol):
    """The place of a clip in a source. It reads frames and conditions together, so that they always belong together."""

    def read(self, source: Source) -> ClipContent:
        """Returns the clip; UserError if it is damaged or incomplete."""


@dataclass(frozen=True)
class ClipListing:
    """The clips of a data set, in order.

    unused: files that do not belong to it. camera, held_out: as in the manifest.
    """

    clips: dict[str, tuple[Clip, ...]]  # split -> clips
    fingerprint: str
    unused: tuple[str, ...]
    camera: Camera | None = None
    held_out: bool = False
    shape: ClipShape = field(default_factory=ClipShape)  # the same for every clip


@dataclass(frozen=True)
class PushingRequest:
    """What the user asks to pack."""

    source: SourceRecord
    camera: Camera | None

    @property
    def asked(self) -> str:
        """The request in words."""
        return f"{self.source}, camera {self.camera}" if self.camera else str(self.source)

    def is_met_by(self, manifest: Manifest) -> bool:
        """Returns whether packing this request would give the same data set."""
        same = manifest.source.fingerprint == self.source.fingerprint
        return same and isinstance(manifest, PushingManifest) and manifest.camera == self.camera


@dataclass(frozen=True)
class ClipChunk:
    """Consecutive clips of one split. `start` is the number of the first one."""

    split: str
    start: int
    clips: tuple[Clip, ...]
    shape: ClipShape

    @property
    def num_bytes(self) -> int:
        """Bytes of the packed clips."""
        return (self.shape.num_pixels + 4 * self.shape.num_conditions) * len(self.clips)

    def pieces(self, source: Source) -> Iterator[Piece]:
        """Yields the frames, then the conditions; UserError for a clip that cannot be used."""
        contents = [clip.read(source) for clip in self.clips]
        frames = np.stack([content.frames for content in contents])
        conditions = np.stack([content.conditions for content in contents])
        converted = add_conversions(*(content.conversions for content in contents))
        yield Piece(f"{self.split}_frames", self.start * self.shape.num_pixels, frames, converted)
        yield Piece(f"{self.split}_conditions", self.start * self.shape.num_conditions, conditions, {})


@dataclass(frozen=True)
class PushingContent:
    """A pushing data set in a source: listed and checked, but not decoded yet."""

    request: PushingRequest
    source: Source
    listing: ClipListing

    @property
    def unused(self) -> tuple[str, ...]:
        """Files of the source that do not belong to the data set."""
        return self.listing.unused

    def plan(self) -> Plan:
        """Returns what packing will write."""
        # The source's fingerprint is the same for both cameras.
        fingerprint = f"{self.request.source.fingerprint} {self.request.camera}"
        return Plan(fingerprint, pushing_shapes(*self._num_clips, clip=self.listing.shape), CHUNK)

    def chunks(self) -> list[Chunk]:
        """Returns the clips in chunks."""
        return [
            ClipChunk(split, start, clips[start : start + CHUNK], self.listing.shape)
            for split, clips in self.listing.clips.items()
            for start in range(0, len(clips), CHUNK)
        ]

    def manifest(self, folder: Path) -> PushingManifest:
        """Returns the manifest of the arrays in a folder."""
        num_train, num_validate, num_test = self._num_clips
        shape = self.listing.shape
        manifest = PushingManifest(
            source=self.request.source,
            num_train=num_train,
            num_validate=num_validate,
            num_test=num_test,
            camera=self.request.camera,
            held_out=self.listing.held_out,
            clip_length=shape.length,
            frame_size=shape.frame_size,
            num_action=shape.num_action,
            num_position=shape.num_position,
            arrays=array_hashes(folder),
            fingerprint="",
        )
        return manifest.model_copy(update={"fingerprint": manifest.content})

    @property
    def _num_clips(self) -> list[int]:
        return [len(self.listing.clips[split]) for split in SPLITS]


AnyClip = TypeVar("AnyClip", bound=Clip)


def hold_out(train: tuple[AnyClip, ...]) -> tuple[tuple[AnyClip, ...], tuple[AnyClip, ...]]:
    """Returns the training clips without the last `HELD_OUT` of them, and those. UserError for a single clip."""
    if len(train) < 2:
        raise UserError(f"train holds {len(train)} clips; needed: at least 2, since there are none for validation")
    num_train = len(train) - ceil(HELD_OUT * len(train))
    held_out = f"the last {len(train) - num_train} of {len(train)} training clips"
    say(f"there are no validation clips: {held_out} are held out for validation ({HELD_OUT:.0%})")
    return train[:num_train], train[num_train:]


def content_of(source: Source, listing: ClipListing, *, kind: SourceKind) -> PushingContent:
    """Returns the clips of a listing, ready to be packed."""
    record = SourceRecord(name=source.name, kind=kind, fingerprint=listing.fingerprint)
    return PushingContent(PushingRequest(record, listing.camera), source, listing)


def request_of_synthetic(source: SourceRecord, numbers: dict[str, int]) -> PushingRequest:
    """Returns the request that packs synthetic clips; `numbers` are the settings that drew them."""
    return PushingRequest(source, None)
