"""Packs a source into arrays on disk, chunk by chunk, in parallel processes. An interrupted run can be resumed."""

import gc
import json
import multiprocessing
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from src.base.console import UserError, say, track
from src.base.files import sync, write_atomically
from src.base.ownership import remove_leftovers
from src.base.processes import end_pool_process_with_parent
from src.base.reading import Unreadable, read_text
from src.intake.arrays import Shapes, array_type, open_array
from src.intake.manifest import FORMAT
from src.intake.pictures import Conversions, add_conversions
from src.intake.sources import Source

MAX_PROCESSES = 16
CHUNK_NUMBER = re.compile(r"[0-9]{1,9}")
PROGRESS = "progress.txt"  # first line: the plan; then the number of each chunk that is on disk


@dataclass(frozen=True)
class Plan:
    """The key of a packing run. An interrupted run is resumed only if its plan is the same."""

    source: str  # fingerprint
    shapes: Shapes
    chunk: int  # images or clips per chunk
    format: int = FORMAT


class Piece(NamedTuple):
    """Values to write into an array, in C order, from flat index `start`.

    conversions: the pictures among them that had to be converted.
    """

    array: str
    start: int
    numbers: np.ndarray
    conversions: Conversions


class Chunk(Protocol):
    """A part of the data that is read, decoded, written and recorded as one unit."""

    @property
    def num_bytes(self) -> int:
        """The size of the chunk on disk."""

    def pieces(self, source: Source) -> Iterator[Piece]:
        """Yields the values of the chunk; UserError for a file that cannot be used."""


def pack_arrays(source: Source, chunks: Sequence[Chunk], folder: Path, plan: Plan) -> Conversions:
    """Writes the chunks of a source into the arrays of a folder; chunks that are already on disk are skipped.

    Returns the pictures that had to be converted, among those that were packed now. Raises UserError for a file that
    cannot be used, and for a disk with too little space.
    """
    done = _begin(folder, plan)
    missing = {number: chunk for number, chunk in enumerate(chunks) if number not in done}
    needed = sum(chunk.num_bytes for chunk in missing.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free >> 20} MiB free; needed: {needed >> 20} MiB; free some space, then run this command again"
        )
    return _pack_in_parallel(source, missing, folder, plan) if missing else {}


def _begin(folder: Path, plan: Plan) -> set[int]:
    """Returns the numbers of the chunks that an interrupted run has written; without such a run, creates the arrays."""
    progress = folder / PROGRESS
    first_line = json.dumps(asdict(plan))
    if folder.exists():
        remove_leftovers(folder)
        done = _chunks_done(folder, plan)
        if done is not None:
            write_atomically(progress, "\n".join([first_line, *map(str, sorted(done)), ""]).encode())
            if done:
                say(f"resuming: {len(done)} chunks of {plan.chunk} are on disk already")
            return done
        say(f"{folder} was begun from another source or is damaged: starting afresh")
        shutil.rmtree(folder)
    folder.mkdir()
    for name, shape in plan.shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=array_type(name), shape=shape)
        sync(folder / f"{name}.npy")
    write_atomically(progress, f"{first_line}\n".encode())
    return set()


def _chunks_done(folder: Path, plan: Plan) -> set[int] | None:
    """Returns the numbers of the chunks in a folder; None if it belongs to another plan or is damaged."""
    try:
        first_line, *lines = read_text(folder / PROGRESS).split("\n")
        for name, shape in plan.shapes.items():
            open_array(folder, name, shape)
    except (Unreadable, FileNotFoundError):
        return None
    if first_line != json.dumps(asdict(plan)):
        return None
    return {int(line) for line in lines[:-1] if CHUNK_NUMBER.fullmatch(line)}  # the last line may be incomplete


def _pack_in_parallel(source: Source, chunks: dict[int, Chunk], folder: Path, plan: Plan) -> Conversions:
    """Packs the chunks in parallel processes, records each once it is on disk, and returns what was converted."""
    converted: Conversions = {}
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # The processes are forked. Starting a new interpreter would take as long as packing 5,000 images, and forked
    # processes share the list of a million file names. All start before `track` starts its thread: forking a process
    # that has threads is unsafe.
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(min(num_cores, len(chunks), MAX_PROCESSES), context, _start_process, (source,))
    try:
        numbers = {pool.submit(_pack, chunk, folder): number for number, chunk in chunks.items()}
        with (folder / PROGRESS).open("a") as progress:
            for future in track(as_completed(numbers), f"packing ({plan.chunk} each)", len(numbers)):
                converted = add_conversions(converted, future.result())
                progress.write(f"{numbers[future]}\n")
                progress.flush()
                os.fsync(progress.fileno())
    except BrokenProcessPool as error:
        raise UserError(
            "a packing process was killed, perhaps because memory ran out; run the same command again"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return converted


class _Inherited:
    """The data that a packing process gets from its parent."""

    source: Source


def _start_process(source: Source) -> None:
    """Prepares a packing process. It ends with its parent, so no other process can hold the parent's lock."""
    gc.freeze()  # garbage collection would write to, and so copy, the memory shared with the parent
    source.reopen()
    _Inherited.source = source
    end_pool_process_with_parent()


def _pack(chunk: Chunk, folder: Path) -> Conversions:
    """Writes one chunk, syncs it to disk, and returns what was converted."""
    converted: Conversions = {}
    for piece in chunk.pieces(_Inherited.source):
        path = folder / f"{piece.array}.npy"
        kind = array_type(piece.array)
        assert piece.numbers.dtype == kind, f"{piece.array} gets {piece.numbers.dtype}"
        begin = path.stat().st_size - np.load(path, mmap_mode="r").nbytes
        with path.open("r+b") as file:  # a write through the memory map would end in SIGBUS on a full disk
            file.seek(begin + piece.start * kind.itemsize)
            file.write(np.ascontiguousarray(piece.numbers).data)
            file.flush()
            os.fsync(file.fileno())
        converted = add_conversions(converted, piece.conversions)
    return converted
