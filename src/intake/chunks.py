"""Chunks of a source -> arrays on disk, in parallel processes; each chunk is recorded once it is durable."""

import gc
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from src.base.console import UserError, say, track
from src.base.files import write_atomically
from src.intake.manifest import FORMAT, Shapes, array_type, is_whole
from src.intake.pictures import Conversions, add_conversions
from src.intake.sources import Source

MAX_PROCESSES = 16
PROGRESS = "progress.txt"  # the plan in the first line, then the number of each chunk that is on disk


@dataclass(frozen=True)
class Plan:
    """What an interrupted run must have had in common with this one to be resumed."""

    source: str  # fingerprint
    shapes: Shapes
    chunk: int  # images or clips in one
    format: int = FORMAT


class Piece(NamedTuple):
    """Numbers for an array: it gets them all, one after the other, from its number `start` on.

    conversions: the pictures among them that had to be converted.
    """

    array: str
    start: int
    numbers: np.ndarray
    conversions: Conversions


class Chunk(Protocol):
    """What is read, decoded, written and recorded together."""

    @property
    def num_bytes(self) -> int:
        """What it takes on disk."""

    def pieces(self, source: Source) -> Iterator[Piece]:
        """Yields what it holds; UserError for what cannot be used."""


def pack_arrays(source: Source, chunks: Sequence[Chunk], folder: Path, plan: Plan) -> Conversions:
    """Fills the arrays of a folder from a source, but for what an interrupted run has written.

    Returns the pictures that had to be converted, of those that were packed now.

    UserError for what a chunk refuses, and for a disk with too little room.
    """
    done = _begin(folder, plan)
    missing = {number: chunk for number, chunk in enumerate(chunks) if number not in done}
    needed, free = sum(chunk.num_bytes for chunk in missing.values()), shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder}: {free >> 20} MiB free; needed: {needed >> 20} MiB; free some, then run this again")
    return _pack_in_parallel(source, missing, folder, plan) if missing else {}


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
                say(f"resuming: {len(done)} chunks of {plan.chunk} are on disk already")
            return done
        say(f"{folder} was begun from another source or is damaged: starting afresh")
        shutil.rmtree(folder)
    folder.mkdir()
    for name, shape in plan.shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=array_type(name), shape=shape).flush()
    write_atomically(progress, f"{first_line}\n".encode())
    return set()


def _pack_in_parallel(source: Source, chunks: dict[int, Chunk], folder: Path, plan: Plan) -> Conversions:
    """Packs the chunks in parallel processes, records each once it is on disk, and returns what was converted."""
    converted: Conversions = {}
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Forked, as starting an interpreter takes as long as 5,000 images; all at once, before `track` starts its thread.
    # So the names of a million files are listed once and shared.
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
            "a packing process was killed, perhaps for want of memory; run the same command again"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return converted


class _Inherited:
    """What a packing process has from its parent."""

    source: Source


def _start_process(source: Source) -> None:
    """Takes the source, leaves Ctrl-C to the parent, and ends when it is killed, so that nothing holds its lock."""
    gc.freeze()  # a collection would touch, and so copy, all that is shared with the parent
    source.reopen()
    _Inherited.source = source
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in a child process"

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _pack(chunk: Chunk, folder: Path) -> Conversions:
    """Writes one chunk durably and returns what was converted."""
    converted: Conversions = {}
    for piece in chunk.pieces(_Inherited.source):
        path, kind = folder / f"{piece.array}.npy", array_type(piece.array)
        assert piece.numbers.dtype == kind, f"{piece.array} gets {piece.numbers.dtype}"
        begin = path.stat().st_size - np.load(path, mmap_mode="r").nbytes
        with path.open("r+b") as file:  # writing through the map would end in SIGBUS on a full disk
            file.seek(begin + piece.start * kind.itemsize)
            file.write(np.ascontiguousarray(piece.numbers).data)
            file.flush()
            os.fsync(file.fileno())
        converted = add_conversions(converted, piece.conversions)
    return converted
