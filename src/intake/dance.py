"""Packs the dance data set: the user's request, the source's images in chunks, and the manifest of the result."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.base.console import UserError, say
from src.dance.skeleton import WHITE, palette_of
from src.intake.arrays import Shapes, array_hashes, open_array
from src.intake.chunks import Chunk, Piece, Plan
from src.intake.dance_listing import Listing, list_images
from src.intake.facts import FRAME_SIZE, SCORED_FRAMES, Size
from src.intake.manifest import (
    CutsOrigin,
    DanceManifest,
    Manifest,
    SourceRecord,
    dance_shapes,
)
from src.intake.pairing import EMPTY
from src.intake.pictures import OTHER_SIZE, count_kinds, decode, image_size, read_header
from src.intake.sources import Source
from src.intake.takes import Takes, find_cuts, list_cuts, takes_between

CHUNK = 512  # images
SAME_RATIO = 0.01  # aspect ratios that differ by less count as the same


def have_same_ratio(one: Size, other: Size) -> bool:
    """Returns whether two sizes have the same aspect ratio, or almost."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= SAME_RATIO


@dataclass(frozen=True)
class DanceRequest:
    """What the user asks to pack.

    cuts: training frames that begin a new take; () means one single take, None means that packing finds the cuts.
    scored_frames: the first and the last frame of a rollout that count for the score.
    filled: whether missing poses are empty ones.
    """

    source: SourceRecord
    cuts: tuple[int, ...] | None
    test_length: int
    frame_size: Size = FRAME_SIZE
    scored_frames: tuple[int, int] = SCORED_FRAMES
    filled: bool = False

    @property
    def cuts_origin(self) -> CutsOrigin:
        """Where the cuts come from: the user, the search for cuts, or the synthetic data."""
        if self.source.kind == "synthetic":
            return "synthetic"
        return "found" if self.cuts is None else "declared"

    @property
    def asked(self) -> str:
        """The request in words."""
        cuts = "to be found" if self.cuts is None else ",".join(map(str, self.cuts)) or "none"
        (height, width), (first, last) = self.frame_size, self.scored_frames
        size = f", frames of {height} x {width}" if self.frame_size != FRAME_SIZE else ""
        scored = f", frames {first} to {last} scored" if self.scored_frames != SCORED_FRAMES else ""
        filled = ", missing poses empty" if self.filled else ""
        return f"{self.source}, cuts {cuts}, {self.test_length} poses a test{size}{scored}{filled}"

    def is_met_by(self, manifest: Manifest) -> bool:
        """Returns whether packing this request would give the same data set."""
        if not isinstance(manifest, DanceManifest):
            return False
        same_takes = self.cuts is None or manifest.train_takes == takes_between(self.cuts, manifest.num_train)
        facts = (manifest.frame_size, manifest.scored_frames, manifest.filled)
        same_facts = facts == (self.frame_size, self.scored_frames, self.filled)
        packed = (manifest.source.fingerprint, manifest.test_length, manifest.cuts)
        same_content = packed == (self.source.fingerprint, self.test_length, self.cuts_origin)
        return same_takes and same_facts and same_content


@dataclass(frozen=True)
class ImageChunk:
    """Consecutive images of one array.

    start: number of the first image in its array; test poses are counted through all tests.
    first_size: the size of the source's first image, `first_name`. All images must have its aspect ratio.
    """

    array: str
    start: int
    names: tuple[str, ...]
    first_name: str
    first_size: Size
    frame_size: Size

    @property
    def num_bytes(self) -> int:
        """Bytes of the packed images."""
        return self._image_bytes * len(self.names)

    @property
    def _image_bytes(self) -> int:
        height, width = self.frame_size
        return 3 * height * width

    def pieces(self, source: Source) -> Iterator[Piece]:
        """Yields the decoded images; UserError for an image that cannot be used."""
        images = np.full((len(self.names), *self.frame_size, 3), WHITE, dtype=np.uint8)
        kinds: list[tuple[str, str | None]] = []
        for image, name in zip(images, self.names, strict=True):
            if name == EMPTY:
                continue
            data = source.read(name)
            header = read_header(data, name)
            if header.size != self.first_size:
                (height, width), (rows, columns) = header.size, self.first_size
                if not have_same_ratio(header.size, self.first_size):
                    found = f"{name} is {height} x {width} pixels (height x width), but {self.first_name} is"
                    needed = "needed: one aspect ratio for all frames and poses; crop or pad the different one"
                    raise UserError(f"{found} {rows} x {columns}; {needed}")
                kinds.append((name, f"{height} x {width}{OTHER_SIZE}"))
            image[:] = decode(data, name, self.frame_size)
            kinds.append((name, header.kind))
        pixels = images.transpose(0, 3, 1, 2)
        yield Piece(self.array, self.start * self._image_bytes, pixels, count_kinds(kinds))


@dataclass(frozen=True)
class DanceContent:
    """A dance data set in a source: listed and checked, but not decoded yet."""

    request: DanceRequest
    source: Source
    listing: Listing

    @property
    def unused(self) -> tuple[str, ...]:
        """Files of the source that do not belong to the data set."""
        return self.listing.unused

    def plan(self) -> Plan:
        """Returns what packing will write. Prints a line on what is left out and if the aspect ratio changes.

        UserError for a scored frame that the data set does not have.
        """
        request, (_, num_val) = self.request, self._num_frames
        for note in self.listing.notes:
            say(note)
        first = request.scored_frames[0]
        shortest = min(num_val, request.test_length) if self.listing.num_tests else num_val
        if first >= shortest:
            raise UserError(
                f"SCORED begins with frame {first}; needed: below {shortest}, the number of frames of a rollout"
            )
        (height, width), (rows, columns) = self._image_size, request.frame_size
        if not have_same_ratio((height, width), (rows, columns)):
            changed = f"pictures of {height} x {width} become frames of {rows} x {columns} (height x width)"
            say(f"{changed}: the aspect ratio changes; SIZE=HxW packs frames of another size")
        return Plan(request.source.fingerprint, self._shapes, CHUNK)

    def chunks(self) -> list[Chunk]:
        """Returns the images in chunks."""
        first = self.listing.images["train_frames"][0]
        size = self._image_size
        return [
            ImageChunk(array, start, names[start : start + CHUNK], first, size, self.request.frame_size)
            for array, names in self.listing.images.items()
            for start in range(0, len(names), CHUNK)
        ]

    def manifest(self, folder: Path) -> DanceManifest:
        """Returns the manifest of the arrays in a folder."""
        num_train, num_val = self._num_frames
        train_takes, val_takes = self._takes(folder)
        manifest = DanceManifest(
            source=self.request.source,
            num_train=num_train,
            num_val=num_val,
            num_tests=self.listing.num_tests,
            test_length=self.request.test_length,
            image_size=self._image_size,
            cuts=self.request.cuts_origin,
            train_takes=train_takes,
            val_takes=val_takes,
            frame_size=self.request.frame_size,
            scored_frames=self.request.scored_frames,
            filled=self.request.filled,
            palette=palette_of(open_array(folder, "train_poses", self._shapes["train_poses"])),
            arrays=array_hashes(folder),
            fingerprint="",
        )
        return manifest.model_copy(update={"fingerprint": manifest.content})

    @property
    def _num_frames(self) -> tuple[int, int]:
        return len(self.listing.images["train_frames"]), len(self.listing.images["val_frames"])

    @property
    def _shapes(self) -> Shapes:
        num_tests, request = self.listing.num_tests, self.request
        return dance_shapes(*self._num_frames, num_tests, request.test_length, request.frame_size)

    @property
    def _image_size(self) -> tuple[int, int]:
        first = self.listing.images["train_frames"][0]
        return image_size(self.source.read(first), first)

    def _takes(self, folder: Path) -> tuple[Takes, Takes]:
        """Returns the takes of training and of validation.

        Given cuts are cuts of the training frames. The validation frames are then one take, unless they lie in several
        folders or a number is missing.
        """
        num_train, num_val = self._num_frames
        known = self.listing.cuts
        if self.request.cuts is not None:
            return takes_between(self.request.cuts, num_train), takes_between(known["val"], num_val)
        train = takes_between(_with(self._found_cuts(folder, "train"), known["train"]), num_train)
        val = takes_between(_with(self._found_cuts(folder, "val"), known["val"]), num_val)
        say(f"cuts found: {list_cuts(train)} in training, {list_cuts(val)} in validation; CUTS=A,B declares others")
        return train, val

    def _found_cuts(self, folder: Path, part: str) -> tuple[int, ...]:
        names = (f"{part}_frames", f"{part}_poses")
        frames, poses = (open_array(folder, name, self._shapes[name]) for name in names)
        return find_cuts(frames, poses)


def read_dance(
    source: Source,
    *,
    cuts: tuple[int, ...] | None = None,
    test_length: int | None = None,
    frame_size: Size = FRAME_SIZE,
    scored_frames: tuple[int, int] = SCORED_FRAMES,
    fill: bool = False,
) -> DanceContent:
    """Returns the dance data set of a zip or folder; UserError as in `list_images`.

    test_length: poses of each test sequence; None means that packing finds it. fill: whether missing poses are
    empty ones. For the others see `DanceRequest`.
    """
    listing = list_images(source, test_length=test_length, fill=fill)
    fingerprint = source.fingerprint(listing.names, listing.prefix)
    record = SourceRecord(name=source.name, kind=source.kind, fingerprint=fingerprint)
    if cuts is not None:
        takes_between(cuts, len(listing.images["train_frames"]))  # raises the error for what the user has written
        cuts = _with(cuts, listing.cuts["train"])
    request = DanceRequest(record, cuts, listing.test_length, frame_size, scored_frames, fill)
    return DanceContent(request, source, listing)


def _with(cuts: tuple[int, ...], others: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted({*cuts, *others}))


def request_of_synthetic(source: SourceRecord, numbers: dict[str, int]) -> DanceRequest:
    """Returns the request that packs synthetic dancers; `numbers` are the settings that drew them."""
    take = numbers["take_length"]
    cuts = tuple(range(take, take * numbers["num_takes"], take))
    return DanceRequest(source, cuts, numbers["test_length"])
