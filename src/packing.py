"""A zip or folder of images -> data/<name>/: uint8 arrays to be memory-mapped, and a manifest. The `make data` command.

    python -m src.packing --source dance.zip --dataset dance
    python -m src.packing --source synthetic --dataset demo --seed 1

Work goes on in data/.<name>.partial/, which is renamed when it is whole; the same command resumes what was interrupted.
"""

import argparse
import fcntl
import hashlib
import inspect
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.console import UserError, run_main, say
from src.files import write_atomically
from src.intake.chunks import PROGRESS, Plan, pack_arrays
from src.intake.listing import Listing, list_images
from src.intake.manifest import (
    CutsOrigin,
    Manifest,
    SourceRecord,
    array_hashes,
    array_shapes,
    content_fingerprint,
    partial_folder,
)
from src.intake.sources import FRAME_SIZE, Source, open_source
from src.intake.takes import Takes, find_cuts, parse_cuts, takes_between
from src.synthetic import write_dance

TEST_LENGTH = 630  # poses of a test sequence of the competition


@dataclass(frozen=True)
class Request:
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

    def is_met_by(self, manifest: Manifest) -> bool:
        """Whether packing would give that data set again."""
        same_takes = self.cuts is None or manifest.train_takes == takes_between(self.cuts, manifest.num_train)
        packed = (manifest.source.fingerprint, manifest.test_length, manifest.cuts)
        return same_takes and packed == (self.source.fingerprint, self.test_length, self.cuts_origin)


def pack_images(
    path: Path,
    name: str,
    *,
    data_folder: Path = Path("data"),
    cuts: tuple[int, ...] | None = None,
    test_length: int = TEST_LENGTH,
) -> Manifest:
    """Packs a zip or folder into data_folder/name, resuming what was interrupted, and returns its manifest.

    cuts: as in `Request`. UserError for a source that `sources.py` refuses, and where another data set has the name.
    """
    destination = _destination(name, data_folder)
    with _lock(destination):
        source = open_source(path)
        listing = list_images(source, test_length=test_length)
        fingerprint = source.fingerprint(listing.names, listing.prefix)
        record = SourceRecord(name=path.resolve().name, kind=source.kind, fingerprint=fingerprint)
        request = Request(record, cuts, test_length)
        return _existing(destination, request) or _pack(source, listing, destination, request)


def pack_synthetic(name: str, *, data_folder: Path = Path("data"), **options: int) -> Manifest:
    """Packs synthetic dancers into data_folder/name; options: what `write_dance` takes in numbers."""
    destination = _destination(name, data_folder)
    pictures = destination.with_name(f".{name}.pictures")
    call = inspect.signature(write_dance).bind(pictures, **options)
    call.apply_defaults()
    drawn = {key: value for key, value in call.arguments.items() if isinstance(value, int)}
    take, test_length = drawn["take_length"], drawn["test_length"]
    fingerprint = hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()
    record = SourceRecord(name="synthetic", kind="synthetic", fingerprint=fingerprint)
    request = Request(record, tuple(range(take, take * drawn["num_takes"], take)), test_length)
    with _lock(destination):
        if manifest := _existing(destination, request):
            return manifest
        if pictures.exists():  # left by a run that was killed
            shutil.rmtree(pictures)
        try:
            write_dance(*call.args, **call.kwargs)
            source = open_source(pictures)
            return _pack(source, list_images(source, test_length=test_length), destination, request)
        finally:
            shutil.rmtree(pictures, ignore_errors=True)


def _destination(name: str, data_folder: Path) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UserError(f"data set name {name!r}; needed: letters, digits, '.', '_' and '-', first a letter or digit")
    if data_folder.exists() and not data_folder.is_dir():
        raise UserError(f"{data_folder} is a file; needed: a folder for data sets; name another with --data-folder")
    return data_folder / name


@contextmanager
def _lock(destination: Path) -> Iterator[None]:
    destination.parent.mkdir(parents=True, exist_ok=True)
    with destination.with_name(f".{destination.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{destination} is being packed by another process; needed: one at a time; wait for it"
            ) from error
        yield


def _existing(destination: Path, request: Request) -> Manifest | None:
    """Returns the manifest of what is packed as requested, None without one; UserError where it is other or damaged."""
    if not destination.exists():
        return None
    manifest = Manifest.load(destination)
    if not request.is_met_by(manifest):
        old, new = manifest.source, request.source
        found = (
            f"{old.name} ({old.kind}, {old.fingerprint[:12]}, cuts {manifest.cuts}: {_list_cuts(manifest.train_takes)})"
        )
        cuts = "to be found" if request.cuts is None else ",".join(map(str, request.cuts)) or "none"
        asked = f"{new.name} ({new.kind}, {new.fingerprint[:12]}, cuts {cuts}, {request.test_length} poses a test)"
        mend = f"give another DATASET, or delete {destination} first"
        raise UserError(f"{destination} was packed from {found}, asked for is {asked}; {mend}")
    for name, content in array_hashes(destination).items():
        if content != manifest.arrays.get(name):
            raise UserError(
                f"{destination}/{name}.npy is not what was packed; delete {destination} and run the same command again"
            )
    say(f"{destination} is already packed")
    return manifest


def _pack(source: Source, listing: Listing, destination: Path, request: Request) -> Manifest:
    num_train, num_val = len(listing.images["train_frames"]), len(listing.images["val_frames"])
    if request.cuts is not None:
        takes_between(request.cuts, num_train)  # refuses before the work, not after
    if listing.unused:
        say(f"not used: {len(listing.unused)} files outside the six folders, such as {listing.unused[0]}")
    folder = partial_folder(destination)
    plan = Plan(request.source.fingerprint, array_shapes(num_train, num_val, listing.num_tests, request.test_length))
    size = pack_arrays(source, listing.images, folder, plan)
    train_takes, val_takes = _takes(folder, request, num_train, num_val)
    arrays = array_hashes(folder)
    manifest = Manifest(
        source=request.source,
        num_train=num_train,
        num_val=num_val,
        num_tests=listing.num_tests,
        test_length=request.test_length,
        image_size=size,
        cuts=request.cuts_origin,
        train_takes=train_takes,
        val_takes=val_takes,
        arrays=arrays,
        fingerprint=content_fingerprint(arrays, train_takes, val_takes),
    )
    _finish(folder, destination, manifest)
    return manifest


def _takes(folder: Path, request: Request, num_train: int, num_val: int) -> tuple[Takes, Takes]:
    """Returns the takes of training and validation; given cuts are those of training, and validation is one."""
    if request.cuts is not None:
        return takes_between(request.cuts, num_train), takes_between((), num_val)
    train, val = (
        takes_between(_found_cuts(folder, part), num) for part, num in (("train", num_train), ("val", num_val))
    )
    say(f"cuts found: {_list_cuts(train)} in training, {_list_cuts(val)} in validation; CUTS=A,B declares others")
    return train, val


def _found_cuts(folder: Path, part: str) -> tuple[int, ...]:
    frames, poses = (np.load(folder / f"{part}_{kind}.npy", mmap_mode="r") for kind in ("frames", "poses"))
    return find_cuts(frames, poses)


def _list_cuts(takes: Takes) -> str:
    return ",".join(str(start) for start, _ in takes[1:]) or "none"


def _finish(folder: Path, destination: Path, manifest: Manifest) -> None:
    write_atomically(folder / "manifest.json", f"{manifest.model_dump_json(indent=1)}\n".encode())
    (folder / PROGRESS).unlink()
    folder.rename(destination)
    descriptor = os.open(destination.parent, os.O_RDONLY)  # the rename is durable once its folder is
    os.fsync(descriptor)
    os.close(descriptor)
    height, width = manifest.image_size
    resized = f"; resized from {height} x {width}" if manifest.image_size != FRAME_SIZE else ""
    say(
        f"packed {destination}: training {manifest.num_train} frames, takes {len(manifest.train_takes)}; "
        f"validation {manifest.num_val} frames; tests {manifest.num_tests} x {manifest.test_length} poses{resized}"
    )


def main() -> None:
    """The command `python -m src.packing`."""
    parser = argparse.ArgumentParser(description="Packs a data set for training.", allow_abbrev=False)
    parser.add_argument("--source", required=True, help="synthetic, a .zip file or a folder")
    parser.add_argument("--dataset", required=True, help="name of the folder to make below the data folder")
    parser.add_argument("--data-folder", type=Path, default=Path("data"), help="(default: data)")
    parser.add_argument("--cuts", help="training frames that begin a new take, 630,1260 say, or none (default: found)")
    parser.add_argument(
        "--test-length", type=int, default=TEST_LENGTH, help=f"poses of a test sequence (default: {TEST_LENGTH})"
    )
    drawing = parser.add_argument_group("of synthetic data only")
    for option in ("seed", "num-takes", "take-length", "val-length", "num-tests"):
        drawing.add_argument(f"--{option}", type=int, default=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    source, dataset, data_folder, cuts = (options.pop(key) for key in ("source", "dataset", "data_folder", "cuts"))
    if not source:
        raise UserError("no source is given; needed: SOURCE=synthetic, SOURCE=FILE.zip or SOURCE=FOLDER")
    if options["test_length"] < 2:
        raise UserError(f"--test-length {options['test_length']}; needed: at least 2")
    if source == "synthetic":
        if cuts is not None:
            raise UserError("--cuts is for footage; synthetic takes are cut where they end; leave it out")
        pack_synthetic(dataset, data_folder=data_folder, **options)
        return
    test_length = options.pop("test_length")
    if options:
        names = ", ".join(f"--{key.replace('_', '-')}" for key in options)
        raise UserError(f"{names} with --source {source}; needed: --source synthetic, or leave that out")
    declared = None if cuts is None else parse_cuts(cuts)
    pack_images(Path(source), dataset, data_folder=data_folder, cuts=declared, test_length=test_length)


if __name__ == "__main__":
    run_main(main)
