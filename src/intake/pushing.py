"""The pushing data set: what of a source is wanted, its clips in chunks, and the manifest that sums it up."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from src.intake.chunks import Chunk, Piece, Plan
from src.intake.manifest import (
    CLIP_LENGTH,
    CLIP_SIZE,
    NUM_ACTION,
    NUM_POSITION,
    SPLITS,
    Camera,
    Manifest,
    PushingManifest,
    SourceRecord,
    array_hashes,
    content_fingerprint,
    pushing_shapes,
)
from src.intake.sources import Source

CHUNK = 16  # clips
FRAMES = 3 * CLIP_LENGTH * CLIP_SIZE[0] * CLIP_SIZE[1]  # numbers of a clip
CONDITIONS = CLIP_LENGTH * (NUM_ACTION + NUM_POSITION)


class ClipContent(NamedTuple):
    """A clip: frames (30, 3, 64, 64) uint8 and conditions (30, 7) float32, the action and then the position."""

    frames: np.ndarray
    conditions: np.ndarray


class Clip(Protocol):
    """Where a clip is found; its frames and its conditions are always read from the same place."""

    def read(self, source: Source) -> ClipContent:
        """Returns the clip; UserError where it is damaged or not whole."""


@dataclass(frozen=True)
class ClipListing:
    """The clips of a data set, in order. unused: files that are no part of it. camera, held_out: as in the manifest."""

    clips: dict[str, tuple[Clip, ...]]  # by split
    fingerprint: str
    unused: tuple[str, ...]
    camera: Camera | None = None
    held_out: bool = False


@dataclass(frozen=True)
class PushingRequest:
    """What shall be packed."""

    source: SourceRecord
    camera: Camera | None

    @property
    def asked(self) -> str:
        """What is wanted, for people."""
        return f"{self.source}, camera {self.camera}" if self.camera else str(self.source)

    def is_met_by(self, manifest: Manifest) -> bool:
        """Whether packing would give that data set again."""
        same = manifest.source.fingerprint == self.source.fingerprint
        return same and isinstance(manifest, PushingManifest) and manifest.camera == self.camera


@dataclass(frozen=True)
class ClipChunk:
    """Consecutive clips of one split; `start` is the first one's number."""

    split: str
    start: int
    clips: tuple[Clip, ...]

    @property
    def num_bytes(self) -> int:
        """What the clips take on disk."""
        return (FRAMES + 4 * CONDITIONS) * len(self.clips)

    def pieces(self, source: Source) -> Iterator[Piece]:
        """Yields the frames and the conditions; UserError for a clip that cannot be used."""
        contents = [clip.read(source) for clip in self.clips]
        frames, conditions = (np.stack(part) for part in zip(*contents, strict=True))
        yield Piece(f"{self.split}_frames", self.start * FRAMES, frames)
        yield Piece(f"{self.split}_conditions", self.start * CONDITIONS, conditions)


@dataclass(frozen=True)
class PushingContent:
    """What a source holds of what is wanted, verified but not decoded."""

    request: PushingRequest
    source: Source
    listing: ClipListing

    @property
    def unused(self) -> tuple[str, ...]:
        """Files of the source that are no part of the data set."""
        return self.listing.unused

    def plan(self) -> Plan:
        """Returns what packing will write."""
        # The source's fingerprint does not tell its cameras apart.
        fingerprint = f"{self.request.source.fingerprint} {self.request.camera}"
        return Plan(fingerprint, pushing_shapes(*self._num_clips), CHUNK)

    def chunks(self) -> list[Chunk]:
        """Returns the clips in chunks."""
        return [
            ClipChunk(split, start, clips[start : start + CHUNK])
            for split, clips in self.listing.clips.items()
            for start in range(0, len(clips), CHUNK)
        ]

    def manifest(self, folder: Path) -> PushingManifest:
        """Returns the manifest of the arrays in a folder."""
        num_train, num_validate, num_test = self._num_clips
        arrays = array_hashes(folder)
        return PushingManifest(
            source=self.request.source,
            num_train=num_train,
            num_validate=num_validate,
            num_test=num_test,
            camera=self.request.camera,
            held_out=self.listing.held_out,
            arrays=arrays,
            fingerprint=content_fingerprint(arrays),
        )

    @property
    def _num_clips(self) -> list[int]:
        return [len(self.listing.clips[split]) for split in SPLITS]
