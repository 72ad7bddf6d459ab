"""Images -> arrays on disk, chunk by chunk in parallel processes; each chunk is recorded once it is durable."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from src.console import UserError, say, track
from src.files import write_atomically
from src.intake.manifest import FORMAT, is_whole
from src.intake.sources import FRAME_SIZE, Source, decode, image_size, open_source

CHUNK = 512  # images decoded, written and recorded together
IMAGE_BYTES = 3 * FRAME_SIZE[0] * FRAME_SIZE[1]
MAX_PROCESSES = 16
PROGRESS = "progress.txt"  # the plan in the first line, then the number of each chunk that is on disk


@dataclass(frozen=True)
class Plan:
    """What an interrupted run must have had in common with this one to be resumed."""

    source: str  # fingerprint
    shapes: dict[str, tuple[int, ...]]
    format: int = FORMAT
    chunk: int = CHUNK


@dataclass(frozen=True)
class Chunk:
    """Consecutive images of one array; `start` counts images (those of test poses over all tests)."""

    array: str
    start: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Packer:
    """Packs chunks of a source into the arrays of a folder; all images must have the height and width of the first."""

    source: Path
    folder: Path
    first_name: str
    first_size: tuple[int, int]

    def pack(self, chunk: Chunk) -> None:
        """Decodes one chunk and writes it durably."""
        source = _opened(self.source)
        images = np.empty((len(chunk.names), *FRAME_SIZE, 3), dtype=np.uint8)
        for image, name in zip(images, chunk.names, strict=True):
            data = source.read(name)
            size = image_size(data, name)
            if size != self.first_size:
                known = f"{self.first_name} {self.first_size[0]} x {self.first_size[1]}"
                found = f"{name} is {size[0]} x {size[1]} pixels (height x width), {known}"
                raise UserError(f"{found}; needed: one size for all frames and poses; resize the odd one")
            image[:] = decode(data, name)
        path = self.folder / f"{chunk.array}.npy"
        begin = path.stat().st_size - np.load(path, mmap_mode="r").nbytes
        with path.open("r+b") as file:  # writing through the map would end in SIGBUS on a full disk
            file.seek(begin + chunk.start * IMAGE_BYTES)
            file.write(np.ascontiguousarray(images.transpose(0, 3, 1, 2)).data)
            file.flush()
            os.fsync(file.fileno())


def pack_arrays(source: Source, images: dict[str, tuple[str, ...]], folder: Path, plan: Plan) -> tuple[int, int]:
    """Fills the arrays of a folder, but for what an interrupted run has written; returns the images' size in pixels.

    images: array name -> member names. UserError for an image that cannot be used, and for a disk with too little room.
    """
    first = images["train_frames"][0]
    packer = Packer(source.path, folder, first, image_size(source.read(first), first))
    done = _begin(folder, plan)
    chunks = [
        Chunk(array, start, names[start : start + CHUNK])
        for array, names in images.items()
        for start in range(0, len(names), CHUNK)
    ]
    missing = {number: chunk for number, chunk in enumerate(chunks) if number not in done}
    needed = IMAGE_BYTES * sum(len(chunk.names) for chunk in missing.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder}: {free >> 20} MiB free; needed: {needed >> 20} MiB; free some, then run this again")
    if missing:
        _pack_in_parallel(packer, missing)
    return packer.first_size


def _begin(folder: Path, plan: Plan) -> set[int]:
    """Returns the chunks that an interrupted run has written; without one, makes the arrays and returns none."""
    progress, first_line = folder / PROGRESS, json.dumps(asdict(plan))
    if folder.exists():
        lines = progress.read_text().split("\n") if progress.exists() else [""]
        whole = all(is_whole(folder / f"{name}.npy", shape) for name, shape in plan.shapes.items())
        if lines[0] == first_line and whole:
            done = {int(line) for line in lines[1:-1] if line.isdigit()}  # the last may have been cut off
            write_atomically(progress, "\n".join([first_line, *map(str, sorted(done)), ""]).encode())
            if done:
                say(f"resuming: {len(done)} chunks of {CHUNK} images are on disk already")
            return done
        say(f"{folder} was begun from another source or is damaged: starting afresh")
        shutil.rmtree(folder)
    folder.mkdir()
    for name, shape in plan.shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape).flush()
    write_atomically(progress, f"{first_line}\n".encode())
    return set()


def _pack_in_parallel(packer: Packer, chunks: dict[int, Chunk]) -> None:
    """Packs the chunks in parallel processes and records each once it is on disk."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Forked, as starting an interpreter takes as long as 5,000 images; all at once, before `track` starts its thread.
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(min(num_cores, len(chunks), MAX_PROCESSES), context, _live_with_parent)
    try:
        numbers = {pool.submit(packer.pack, chunk): number for number, chunk in chunks.items()}
        with (packer.folder / PROGRESS).open("a") as progress:
            for future in track(as_completed(numbers), f"packing ({CHUNK} images each)", len(numbers)):
                future.result()
                progress.write(f"{numbers[future]}\n")
                progress.flush()
                os.fsync(progress.fileno())
    except BrokenProcessPool as error:
        raise UserError(
            "a packing process was killed, perhaps for want of memory; run the same command again"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@cache
def _opened(path: Path) -> Source:
    """Returns the source, opened once in each packing process: processes cannot share a file's position."""
    return open_source(path)


def _live_with_parent() -> None:
    """Leaves Ctrl-C to the parent, and ends this process when the parent is killed, so that nothing holds its lock."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in a child process"

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
