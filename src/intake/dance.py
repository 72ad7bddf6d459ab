"""The dance data set: what of a source is wanted, its images in chunks, and the manifest that sums it up."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.base.console import UserError, say
from src.intake.chunks import Chunk, Piece, Plan
from src.intake.dance_listing import Listing, list_images
from src.intake.manifest import (
    CutsOrigin,
    DanceManifest,
    Manifest,
    SourceRecord,
    array_hashes,
    content_fingerprint,
    dance_shapes,
)
from src.intake.sources import FRAME_SIZE, Source, decode, image_size
from src.intake.takes import Takes, find_cuts, list_cuts, takes_between

CHUNK = 512  # images
IMAGE_BYTES = 3 * FRAME_SIZE[0] * FRAME_SIZE[1]


@dataclass(frozen=True)
class DanceRequest:
    """What shall be packed; cuts: training frames that begin a take, () for one single take, None to find them."""

    source: SourceRecord
    cuts: tuple[int, ...] | None
    test_length: int

    @property
    def cuts_origin(self) -> CutsOrigin:
        """How the cuts come to be known."""
        if self.source.kind == "synthetic":
            return "synthetic"
        return "found" if self.cuts is None else "declared"

    @property
    def asked(self) -> str:
        """What is wanted, for people."""
        cuts = "to be found" if self.cuts is None else ",".join(map(str, self.cuts)) or "none"
        return f"{self.source}, cuts {cuts}, {self.test_length} poses a test"

    def is_met_by(self, manifest: Manifest) -> bool:
        """Whether packing would give that data set again."""
        if not isinstance(manifest, DanceManifest):
            return False
        same_takes = self.cuts is None or manifest.train_takes == takes_between(self.cuts, manifest.num_train)
        packed = (manifest.source.fingerprint, manifest.test_length, manifest.cuts)
        return same_takes and packed == (self.source.fingerprint, self.test_length, self.cuts_origin)


@dataclass(frozen=True)
class ImageChunk:
    """Consecutive images of one array, of the size of the first of all; `start` counts those of all tests."""

    array: str
    start: int
    names: tuple[str, ...]
    first_name: str
    first_size: tuple[int, int]

    @property
    def num_bytes(self) -> int:
        """What the images take on disk."""
        return IMAGE_BYTES * len(self.names)

    def pieces(self, source: Source) -> Iterator[Piece]:
        """Yields the decoded images; UserError for one that cannot be used."""
        images = np.empty((len(self.names), *FRAME_SIZE, 3), dtype=np.uint8)
        for image, name in zip(images, self.names, strict=True):
            data = source.read(name)
            size = image_size(data, name)
            if size != self.first_size:
                known = f"{self.first_name} {self.first_size[0]} x {self.first_size[1]}"
                found = f"{name} is {size[0]} x {size[1]} pixels (height x width), {known}"
                raise UserError(f"{found}; needed: one size for all frames and poses; resize the odd one")
            image[:] = decode(data, name)
        yield Piece(self.array, self.start * IMAGE_BYTES, images.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class DanceContent:
    """What a source holds of what is wanted, verified but not decoded."""

    request: DanceRequest
    source: Source
    listing: Listing

    @property
    def unused(self) -> tuple[str, ...]:
        """Files of the source that are no part of the data set."""
        return self.listing.unused

    def plan(self) -> Plan:
        """Returns what packing will write; UserError for cuts outside the footage."""
        num_train, num_val = self._num_frames
        if self.request.cuts is not None:
            takes_between(self.request.cuts, num_train)  # refuses before the work, not after
        shapes = dance_shapes(num_train, num_val, self.listing.num_tests, self.request.test_length)
        return Plan(self.request.source.fingerprint, shapes, CHUNK)

    def chunks(self) -> list[Chunk]:
        """Returns the images in chunks."""
        first, size = self.listing.images["train_frames"][0], self._image_size
        return [
            ImageChunk(array, start, names[start : start + CHUNK], first, size)
            for array, names in self.listing.images.items()
            for start in range(0, len(names), CHUNK)
        ]

    def manifest(self, folder: Path) -> DanceManifest:
        """Returns the manifest of the arrays in a folder."""
        num_train, num_val = self._num_frames
        train_takes, val_takes = self._takes(folder)
        arrays = array_hashes(folder)
        return DanceManifest(
            source=self.request.source,
            num_train=num_train,
            num_val=num_val,
            num_tests=self.listing.num_tests,
            test_length=self.request.test_length,
            image_size=self._image_size,
            cuts=self.request.cuts_origin,
            train_takes=train_takes,
            val_takes=val_takes,
            arrays=arrays,
            fingerprint=content_fingerprint(arrays, train_takes, val_takes),
        )

    @property
    def _num_frames(self) -> tuple[int, int]:
        return len(self.listing.images["train_frames"]), len(self.listing.images["val_frames"])

    @property
    def _image_size(self) -> tuple[int, int]:
        first = self.listing.images["train_frames"][0]
        return image_size(self.source.read(first), first)

    def _takes(self, folder: Path) -> tuple[Takes, Takes]:
        """Returns the takes of training and validation; given cuts are those of training, and validation is one."""
        num_train, num_val = self._num_frames
        if self.request.cuts is not None:
            return takes_between(self.request.cuts, num_train), takes_between((), num_val)
        train = takes_between(_found_cuts(folder, "train"), num_train)
        val = takes_between(_found_cuts(folder, "val"), num_val)
        say(f"cuts found: {list_cuts(train)} in training, {list_cuts(val)} in validation; CUTS=A,B declares others")
        return train, val


def read_dance(source: Source, *, cuts: tuple[int, ...] | None, test_length: int) -> DanceContent:
    """Returns the data set of a zip or folder; UserError for what `list_images` refuses. cuts: as in `DanceRequest`."""
    listing = list_images(source, test_length=test_length)
    fingerprint = source.fingerprint(listing.names, listing.prefix)
    record = SourceRecord(name=source.path.resolve().name, kind=source.kind, fingerprint=fingerprint)
    return DanceContent(DanceRequest(record, cuts, test_length), source, listing)


def _found_cuts(folder: Path, part: str) -> tuple[int, ...]:
    frames, poses = (np.load(folder / f"{part}_{kind}.npy", mmap_mode="r") for kind in ("frames", "poses"))
    return find_cuts(frames, poses)
