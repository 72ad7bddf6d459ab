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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
from pydantic import BaseModel, Field

from src.base.console import UserError, say, track
from src.base.files import sync, write_atomically
from src.base.ownership import remove_leftovers
from src.base.processes import end_pool_process_with_parent
from src.base.reading import Unreadable, open_plain, parse_json, read_text
from src.intake.arrays import Shapes, array_type, open_array
from src.intake.manifest import FORMAT
from src.intake.pictures import Conversions, add_conversions
from src.intake.sources import Source

MAX_PROCESSES = 16
PROGRESS = "progress.txt"  # first line: the plan; then a `Written` for each chunk that is on disk
SIZE = Field(ge=0, lt=2**50)


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
    """Bytes of an array's file, from `begin` on, with their sha256."""

    array: str
    begin: int = SIZE
    size: int = SIZE
    sha256: str


class Written(BaseModel):
    """A chunk that is on disk, as a line of progress.txt. The line begins with its own checksum."""

    chunk: int = SIZE
    parts: list[Part]

    def line(self) -> str:
        """Returns the line."""
        text = self.model_dump_json()
        return f"{_checksum(text)} {text}"

    @classmethod
    def of_line(cls, line: str) -> Self | None:
        """Returns what a line says; None if it is damaged or cut off."""
        checksum, _, text = line.partition(" ")
        return parse_json(text, cls, PROGRESS) if checksum == _checksum(text) else None

    def is_intact(self, folder: Path, shapes: Shapes) -> bool:
        """Returns whether its bytes are still on disk as they were written."""
        for part in self.parts:
            if part.array not in shapes:
                return False
            with open_plain(folder / f"{part.array}.npy") as file:
                file.seek(part.begin)
                if hashlib.sha256(file.read(part.size)).hexdigest() != part.sha256:
                    return False
        return True


@dataclass
class Packed:
    """What a packing process has done with a chunk: where its bytes lie, and which pictures were converted."""

    parts: list[Part] = field(default_factory=list)
    conversions: Conversions = field(default_factory=dict)


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
            lines = [done[number].line() for number in sorted(done)]
            write_atomically(progress, "\n".join([first_line, *lines, ""]).encode())
            if done:
                say(f"resuming: {len(done)} chunks of {plan.chunk} are on disk already")
            return set(done)
        say(f"{folder} was begun from another source or is damaged: starting afresh")
        shutil.rmtree(folder)
    folder.mkdir()
    for name, shape in plan.shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=array_type(name), shape=shape)
        sync(folder / f"{name}.npy")
    write_atomically(progress, f"{first_line}\n".encode())
    return set()


def _chunks_done(folder: Path, plan: Plan) -> dict[int, Written] | None:
    """Returns the intact chunks in a folder by number; None if it belongs to another plan or is damaged."""
    try:
        first_line, *lines = read_text(folder / PROGRESS).split("\n")
        for name, shape in plan.shapes.items():
            open_array(folder, name, shape)
        if first_line != json.dumps(asdict(plan)):
            return None
        written = [found for line in lines if (found := Written.of_line(line))]  # the last line may be incomplete
    except (Unreadable, FileNotFoundError):
        return None
    done = {each.chunk: each for each in written if each.is_intact(folder, plan.shapes)}
    if len(done) < len(written):
        say(f"{folder}: {len(written) - len(done)} chunks have changed since they were written; they are packed again")
    return done


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
                packed = future.result()
                converted = add_conversions(converted, packed.conversions)
                progress.write(f"{Written(chunk=numbers[future], parts=packed.parts).line()}\n")
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


def _pack(chunk: Chunk, folder: Path) -> Packed:
    """Writes one chunk and syncs it to disk."""
    packed = Packed()
    for piece in chunk.pieces(_Inherited.source):
        path = folder / f"{piece.array}.npy"
        kind = array_type(piece.array)
        assert piece.numbers.dtype == kind, f"{piece.array} gets {piece.numbers.dtype}"
        header = path.stat().st_size - np.load(path, mmap_mode="r").nbytes
        begin, numbers = header + piece.start * kind.itemsize, np.ascontiguousarray(piece.numbers)
        with path.open("r+b") as file:  # a write through the memory map would end in SIGBUS on a full disk
            file.seek(begin)
            file.write(numbers.data)
            file.flush()
            os.fsync(file.fileno())
        sha256 = hashlib.sha256(numbers.data).hexdigest()
        packed.parts.append(Part(array=piece.array, begin=begin, size=numbers.nbytes, sha256=sha256))
        packed.conversions = add_conversions(packed.conversions, piece.conversions)
    return packed
