"""Packs a source into arrays on disk, chunk by chunk, in parallel processes. An interrupted run can be resumed."""

import gc
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from src.base.console import UserError, say, track
from src.base.files import sync, write_atomically
from src.base.ownership import remove_leftovers
from src.base.processes import end_pool_process_with_parent
from src.base.reading import Unreadable, open_plain, parse_sealed, read_bytes, sealed_line
from src.base.settings import NotNegative, Sha256
from src.intake.arrays import Shapes, array_type, open_array
from src.intake.manifest import FORMAT
from src.intake.pictures import Conversions, add_conversions
from src.intake.sources import Source

MAX_PROCESSES = 16
PROGRESS = "progress.txt"  # first line: the plan; then a `Written` for each chunk that is on disk


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


class Part(BaseModel):
    """Bytes of an array's file, from `begin` on, with their hash."""

    array: str
    begin: NotNegative
    size: NotNegative
    sha256: Sha256

    def is_intact(self, folder: Path) -> bool:
        """Returns whether the bytes on disk are those that were written."""
        with open_plain(folder / f"{self.array}.npy") as file:
            file.seek(self.begin)
            return hashlib.sha256(file.read(self.size)).hexdigest() == self.sha256


class Written(BaseModel):
    """A chunk that is on disk: a line of progress.txt."""

    model_config = ConfigDict(extra="forbid")

    chunk: NotNegative
    parts: list[Part]


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
    first_line = _plan_line(plan)
    if folder.exists():
        remove_leftovers(folder)
        done = _chunks_done(folder, plan)
        if done is not None:
            lines = [sealed_line(done[number]) for number in sorted(done)]
            write_atomically(progress, b"".join([first_line, *lines]))
            if done:
                say(f"resuming: {len(done)} chunks of {plan.chunk} are on disk already")
            return set(done)
        say(f"{folder} was begun from another source or is damaged: starting afresh")
        shutil.rmtree(folder)
    folder.mkdir()
    for name, shape in plan.shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=array_type(name), shape=shape)
        sync(folder / f"{name}.npy")
    write_atomically(progress, first_line)
    return set()


def _chunks_done(folder: Path, plan: Plan) -> dict[int, Written] | None:
    """Returns the intact chunks in a folder by number; None if it belongs to another plan or is damaged."""
    try:
        first_line, *lines = read_bytes(folder / PROGRESS).splitlines(keepends=True)
        for name, shape in plan.shapes.items():
            open_array(folder, name, shape)
    except (Unreadable, ValueError):  # ValueError: the file is empty
        return None
    if first_line != _plan_line(plan):
        return None
    written: dict[int, Written] = {}
    for line in lines:
        with suppress(Unreadable):  # the last line may be incomplete; the chunk of a damaged line is packed again
            chunk = parse_sealed(line.rstrip(b"\n"), Written, PROGRESS)
            written[chunk.chunk] = chunk
    done = {number: chunk for number, chunk in written.items() if all(part.is_intact(folder) for part in chunk.parts)}
    if len(done) < len(written):
        say(f"{folder}: {len(written) - len(done)} chunks have changed since they were written; they are packed again")
    return done


def _plan_line(plan: Plan) -> bytes:
    return f"{json.dumps(asdict(plan))}\n".encode()


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
        packed = [pool.submit(_pack, number, chunk, folder, plan.shapes) for number, chunk in chunks.items()]
        with (folder / PROGRESS).open("ab") as progress:
            for future in track(as_completed(packed), f"packing ({plan.chunk} each)", len(packed)):
                written, conversions = future.result()
                converted = add_conversions(converted, conversions)
                progress.write(sealed_line(written))
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


def _pack(number: int, chunk: Chunk, folder: Path, shapes: Shapes) -> tuple[Written, Conversions]:
    """Writes one chunk, syncs it to disk, and returns where its bytes lie and what was converted."""
    written = Written(chunk=number, parts=[])
    converted: Conversions = {}
    for piece in chunk.pieces(_Inherited.source):
        path = folder / f"{piece.array}.npy"
        kind = array_type(piece.array)
        assert piece.numbers.dtype == kind, f"{piece.array} gets {piece.numbers.dtype}"
        header_bytes = open_array(folder, piece.array, shapes[piece.array]).offset
        begin, numbers = header_bytes + piece.start * kind.itemsize, np.ascontiguousarray(piece.numbers)
        with path.open("r+b") as file:  # a write through the memory map would end in SIGBUS on a full disk
            file.seek(begin)
            file.write(numbers.data)
            file.flush()
            os.fsync(file.fileno())
        sha256 = hashlib.sha256(numbers.data).hexdigest()
        written.parts.append(Part(array=piece.array, begin=begin, size=numbers.nbytes, sha256=sha256))
        converted = add_conversions(converted, piece.conversions)
    return written, converted
