"""Reads the clips of the original files of BAIR robot pushing.

The layout: `train/` and `test/` with files `traj_A_to_B.tfrecords`; they may lie in folders of any depth. Each record
is a clip of 30 frames. For frame t, `t/image_main/encoded` and `t/image_aux1/encoded` hold the raw RGB pixels of a
64 x 64 picture, `t/action` four floats, and `t/endeffector_pos` three floats. There is no validation split, so the last
training clips are held out.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from src.base.console import UserError, track
from src.intake.facts import CLIP_LENGTH, CLIP_SIZE, NUM_ACTION, NUM_POSITION
from src.intake.layouts import RECORD_FILE
from src.intake.manifest import Camera
from src.intake.pushing import Clip, ClipContent, ClipListing, PushingContent, content_of, hold_out
from src.intake.sources import Source
from src.intake.tfrecords import TFRecord, byte_strings, floats, index_records, parse_example, read_record

IMAGE_BYTES = CLIP_SIZE[0] * CLIP_SIZE[1] * 3


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """A clip that is a record of a TFRecord file, with the camera to use."""

    file: str
    record: TFRecord
    camera: Camera

    def read(self, source: Source) -> ClipContent:
        """Returns the clip; UserError if the record is damaged or is no clip of BAIR pushing."""
        path, _ = source.place(self.file)
        data = read_record(path, self.record)
        place = f"{path}: record {self.record.number} at byte {self.record.offset}"
        try:
            features = parse_example(data)
            frames = [_pixels(features, f"{t}/image_{self.camera}/encoded") for t in range(CLIP_LENGTH)]
            conditions = [
                np.concatenate(
                    [
                        _numbers(features, f"{t}/action", NUM_ACTION),
                        _numbers(features, f"{t}/endeffector_pos", NUM_POSITION),
                    ]
                )
                for t in range(CLIP_LENGTH)
            ]
        except KeyError as error:
            raise UserError(f"{place} has no feature {error}; needed: {CLIP_LENGTH} frames of BAIR pushing") from error
        except ValueError as error:
            raise UserError(f"{place} is no clip of BAIR pushing: {error}; needed: the original files") from error
        return ClipContent(np.stack(frames).transpose(0, 3, 1, 2), np.stack(conditions).astype(np.float32), {})


def list_records(source: Source, camera: Camera) -> ClipListing:
    """Returns the clips in the order of the files and records; the last training clips are for validation.

    Raises UserError for a missing, unexpected or incomplete file. The clips themselves are not read. The fingerprint is
    a hash of the checksums in the files; a clip is compared with its checksum when it is read.
    """
    prefix, files, unused = _files(source)
    clips: dict[str, list[ClipRecord]] = {"train": [], "test": []}
    total = hashlib.sha256()
    for name in track(files, "listing records", len(files)):
        split = name.removeprefix(prefix).partition("/")[0]
        for record in index_records(*source.place(name), source.members[name].size):
            clips[split].append(ClipRecord(name, record, camera))
            total.update(f"{name.removeprefix(prefix)} {record.number} {record.length} {record.checksum}\n".encode())
    train = clips["train"]
    test = clips["test"]
    for split, least in (("train", 2), ("test", 1)):
        if (num_clips := len(clips[split])) < least:
            raise UserError(f"{source.path}/{prefix}{split} holds {num_clips} clips; needed: at least {least}")
    known, validate = hold_out(tuple(train))
    splits: dict[str, tuple[Clip, ...]] = {"train": known, "validate": validate, "test": tuple(test)}
    return ClipListing(splits, total.hexdigest(), unused, camera, held_out=True)


def _files(source: Source) -> tuple[str, list[str], tuple[str, ...]]:
    """Returns the common prefix of the names, the TFRecord files in order, and the unused files outside the splits."""
    matches = {name: match for name in source.members if (match := RECORD_FILE.fullmatch(name))}
    first, *others = sorted({match["top"] or "" for match in matches.values()})
    if others:
        found = f"{source.path} holds two data sets, in {first or '.'} and {others[0] or '.'}"
        raise UserError(f"{found}; needed: one; remove the other")
    prefix = f"{first}/" if first else ""
    unused = []
    for name in source.members.keys() - matches.keys():
        if name.startswith((f"{prefix}train/", f"{prefix}test/")):
            raise UserError(f"{name} is unexpected; needed: traj_A_to_B.tfrecords alone; remove or rename it")
        unused.append(name)
    for split in ("train", "test"):
        if not any(match["split"] == split for match in matches.values()):
            raise UserError(f"{source.path}: {prefix}{split} is missing or empty; needed: traj_A_to_B.tfrecords in it")
    files = sorted(matches, key=lambda name: (matches[name]["split"], int(matches[name]["first"]), name))
    return prefix, files, tuple(sorted(unused))


def _pixels(features: dict[str, memoryview], name: str) -> np.ndarray:
    """Returns the picture of a feature, (64, 64, 3) uint8; ValueError if its size is different."""
    images = byte_strings(features[name])
    sizes = [len(image) for image in images]
    if sizes != [IMAGE_BYTES]:
        raise ValueError(f"{name} holds {sizes} bytes, not {IMAGE_BYTES} of raw pixels")
    return np.frombuffer(images[0], dtype=np.uint8).reshape(*CLIP_SIZE, 3)


def _numbers(features: dict[str, memoryview], name: str, count: int) -> np.ndarray:
    """Returns the numbers of a feature, (count,); ValueError for another count, and for NaN or infinity."""
    numbers = floats(features[name])
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"{name} holds {numbers.tolist()}, not {count} finite numbers")
    return numbers


def read_records(source: Source, *, camera: Camera = "main") -> PushingContent:
    """Returns the clips of BAIR's original records as one camera saw them, listed but not decoded."""
    return content_of(source, list_records(source, camera), kind="records")
