"""Mutated files: every reader gives the right content, or one line; never another error, and within bounds."""

import contextlib
import io
import math
import os
import random
import re
import resource
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from src.base.console import UserError
from src.competition.ledger import Event, Ledger
from src.config import load_config
from src.experiments import load_grid
from src.intake import arrays
from src.intake.arrays import check_arrays, open_array
from src.intake.manifest import Manifest
from src.intake.pictures import decode, read_header
from src.intake.sources import Source
from src.intake.tables import parse_table
from src.intake.tfrecords import index_records, parse_example, read_record
from src.reporting.comparison import read_comparison
from src.reporting.kept import read_kept
from src.reporting.results import read_run
from src.submission import Provenance, check_submission
from src.training.checkpoint import load_checkpoint
from src.training.log import read_log
from src.training.saved_config import read_config
from tests.torture.cases import Case, Verdict
from tests.torture.workshop import Workshop

BATCH = 200  # mutations of one case
SECONDS = 20  # that one reading may take
EXTRA_BYTES = 4 * 2**30  # that one reading may allocate
TOKENS = (b"null", b"NaN", b"-1", b"1e999", b'"\\ud800"', b"[[[[", b"{", b"9" * 5000, b"\x00", b"true", b'""', b"\xff")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Reader:
    """A reader, the file that it reads, and whether every change of the file must be refused.

    read: gets the path of the mutated file; what it returns is compared with what it returns for the whole file.
    """

    file: str
    read: Callable[[Path], Any]
    share: int
    is_hashed: bool = False


def _read_array(path: Path) -> None:
    manifest = Manifest.load(path.parent.with_name("sound"))
    open_array(path.parent, path.stem, manifest.shapes[path.stem])
    arrays._check_states.cache_clear()
    check_arrays(path.parent, {path.stem: manifest.arrays[path.stem]})


def _read_csv(path: Path) -> Any:
    provenance = Provenance.load(path.with_suffix(".json"))
    checked = check_submission(path, sequence_length=12)
    if checked.sha256 != provenance.csv_sha256:
        raise UserError("the csv is not the file that its json describes")
    return checked


def _read_zip(path: Path) -> Any:
    source = Source(path)
    return {name: source.read(name) for name in source.members}


def _read_picture(path: Path) -> Any:
    data = path.read_bytes()
    return read_header(data, path.name), decode(data, path.name, (8, 16)).tobytes()


def _read_records(path: Path) -> Any:
    return [bytes(read_record(path, record)) for record in index_records(path)]


def _read_example(path: Path) -> Any:
    try:
        return {name: bytes(value) for name, value in parse_example(path.read_bytes()).items()}
    except ValueError as error:  # as its docstring says
        raise UserError(str(error)) from None


READERS = (
    Reader("runs/tiny/last.pt", lambda path: load_checkpoint(path, CPU), 8, is_hashed=True),
    Reader("runs/tiny/best.pt", lambda path: load_checkpoint(path, CPU), 8, is_hashed=True),
    Reader("data/tiny/val_poses.npy", _read_array, 10, is_hashed=True),
    Reader("submissions/tiny.csv", _read_csv, 1, is_hashed=True),
    Reader("runs/tiny/config.json", lambda path: read_config(path.parent), 10),
    Reader("runs/tiny/log.jsonl", lambda path: read_log(path.parent), 14),
    Reader("runs/tiny/scores.json", lambda path: read_run(path.parent), 6),
    Reader("data/tiny/manifest.json", lambda path: Manifest.load(path.parent), 6),
    Reader("submissions/tiny.json", Provenance.load, 10),
    Reader("submissions/ledger.jsonl", lambda path: Ledger(path).submissions(), 10),
    Reader("reports/grid.json", read_comparison, 10),
    Reader("reports/grid.jsonl", read_kept, 10),
    Reader("configs/tiny.toml", load_config, 10),
    Reader("configs/experiments/grid.toml", load_grid, 8),
    Reader("pictures.zip", _read_zip, 6),
    Reader("picture.png", _read_picture, 8),
    Reader("picture.jpg", _read_picture, 8),
    Reader("clips.tfrecords", _read_records, 8),
    Reader("example.bin", _read_example, 8),
    Reader("actions.csv", lambda path: parse_table(path.read_bytes(), "actions.csv", 4)[0].tobytes(), 10),
)


def cases(workshop: Workshop, chance: random.Random, wanted: int) -> Iterator[Case]:
    """Yields batches of mutations of each file."""
    sound = workshop.folder / "sound files"
    if not sound.exists():
        _write_files(workshop, sound)
    total = sum(reader.share for reader in READERS)
    for reader in READERS:
        count = math.ceil(wanted * reader.share / total)
        for first in range(0, count, BATCH):
            size = min(BATCH, count - first)
            name = f"{reader.file}, {size} from seed {(seed := chance.randrange(2**31))}"
            yield Case(name, partial(attack, sound, reader, seed, size))


def _write_files(workshop: Workshop, folder: Path) -> None:
    """Writes the files that are mutated: those of the workspace, and some that people bring."""
    shutil.copytree(workshop.folder / "after report", folder, symlinks=True)
    shutil.copytree(workshop.folder / "after grid" / "reports", folder / "reports", dirs_exist_ok=True)
    shutil.copytree(folder / "data" / "tiny", folder / "data" / "sound")
    intent = Event(event="intent", competition="slug", run="tiny", tag="0" * 12, message="first", local_score=20.5)
    for event in (intent, Event(event="accepted", competition="slug", run="tiny", tag="0" * 12, ref="17")):
        Ledger(folder / "submissions" / "ledger.jsonl").append(event)
    noise = np.random.default_rng(0).integers(0, 255, (12, 20, 3), dtype=np.uint8)
    for name in ("picture.png", "picture.jpg"):
        Image.fromarray(noise).save(folder / name)
    shutil.make_archive(str(folder / "pictures"), "zip", folder / "pictures" / "test")
    (folder / "actions.csv").write_text("0.5,-1,2e-3\n" * 4)
    example = b"\x0a\x12\x0a\x10\x0a\x06action\x12\x06\x12\x04\x0a\x02ab"
    (folder / "example.bin").write_bytes(example)
    _write_records(folder / "clips.tfrecords", [example * 3, b"x" * 40])


def _write_records(path: Path, records: list[bytes]) -> None:
    from src.intake.tfrecords import masked_crc32c  # noqa: PLC0415

    with path.open("wb") as file:
        for data in records:
            length = len(data).to_bytes(8, "little")
            file.write(length + masked_crc32c(length).to_bytes(4, "little"))
            file.write(data + masked_crc32c(data).to_bytes(4, "little"))


def mutated(content: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Returns other content, and what was done to it."""
    place = chance.randrange(len(content))
    before, byte, after = content[:place], content[place], content[place + 1 :]
    token = chance.choice(TOKENS)
    bit = chance.randrange(8)
    end = chance.randrange(place, len(content)) + 1
    values = list(re.finditer(rb'(?<=[:=,\[ ])("[^"\n]*"|-?[0-9][0-9.e+-]*|true|false|null)', content)) or [None]
    value = chance.choice(values)
    start, stop = value.span() if value else (place, place + 1)
    changes = {
        f"bit {bit} of byte {place}": before + bytes([byte ^ 1 << bit]) + after,
        f"zeros at {place}": content[:place] + bytes(min(512, len(content) - place)) + content[place + 512 :],
        f"cut at {place}": before,
        f"{place} to {end} twice": content[:end] + content[place:],
        f"bytes at {place}": before + chance.randbytes(chance.randrange(1, 40)) + content[place:],
        f"{token[:12]!r} at {start}": content[:start] + token + content[stop:],
        f"{token[:12]!r} at byte {place}": before + token + after,
    }
    what = chance.choices(list(changes), weights=(3, 1, 1, 1, 1, 2, 1)[: len(changes)])[0]
    return changes[what], what


def attack(sound: Path, reader: Reader, seed: int, count: int) -> Verdict:
    """Mutates a file again and again and reads it, with bounds on time and memory."""
    chance = random.Random(seed)
    content = (sound / reader.file).read_bytes()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_BYTES, resource.RLIM_INFINITY))
    with tempfile.TemporaryDirectory(dir=sound.parent) as scratch, contextlib.redirect_stdout(io.StringIO()):
        path = Path(scratch) / reader.file
        if "/" in reader.file:
            shutil.copytree(sound / Path(reader.file).parent, path.parent)
        else:
            shutil.copy(sound / reader.file, path)
        if "data/" in reader.file:
            shutil.copytree(sound / "data" / "sound", path.parent.with_name("sound"), dirs_exist_ok=True)
        reader.read(path)  # the whole file is right
        for _ in range(count):
            other, what = mutated(content, chance)
            if other == content:
                continue
            path.write_bytes(other)
            if bad := _read(reader, path):
                return Verdict(bad.outcome, f"{what}: {bad.reason}", count)
    return Verdict("survived", count=count)


def _read(reader: Reader, path: Path) -> Verdict | None:
    """Reads a mutated file; returns what is wrong with the outcome, None if nothing is."""

    def too_long(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        reader.read(path)
    except UserError as error:
        return None if "\n" not in str(error) else Verdict("traceback", f"more than one line: {error}")
    except BaseException as error:  # what a user would see as a traceback
        return Verdict("traceback", f"{type(error).__name__}: {error}")
    finally:
        signal.alarm(0)
    return Verdict("wrong", "the changed file was accepted") if reader.is_hashed else None
