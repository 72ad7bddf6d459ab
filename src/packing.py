"""A zip or folder of images -> data/<name>/: arrays to be memory-mapped, and a manifest. The `make data` command.

    python -m src.packing --source dance.zip --dataset dance
    python -m src.packing --source softmotion30_44k --camera aux1 --dataset pushing
    python -m src.packing --source synthetic-pushing --dataset blocks --seed 1

Work goes on in data/.<name>.partial/, which is renamed when it is whole; the same command resumes what was interrupted.
"""

import argparse
import hashlib
import inspect
import json
import pkgutil
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from src.base.command_line import Parser, given_path, path_option, whole
from src.base.console import UserError, run_program, say
from src.base.files import move, write_atomically
from src.base.names import checked_name
from src.base.ownership import owned, partial_name
from src.base.reading import sealed_json
from src.intake.arrays import check_contents, settled_time_ns, stamp_arrays
from src.intake.chunks import PROGRESS, pack_arrays
from src.intake.doubts import doubts_of
from src.intake.facts import LARGEST_SIDE, SMALLEST_SIDE, Size
from src.intake.layouts import Content, Request, read_content
from src.intake.manifest import Camera, Manifest, SourceRecord, partial_folder
from src.intake.pictures import say_conversions
from src.intake.sources import WORDS, open_source
from src.intake.takes import parse_cuts

SYNTHETIC = {  # SOURCE -> who draws it, and what is then packed; imported when it is asked for
    "synthetic": ("src.synthetic.dancers:write_dance", "src.intake.dance:request_of_synthetic"),
    "synthetic-pushing": ("src.synthetic.tabletop:write_pushing", "src.intake.pushing:request_of_synthetic"),
}
OPTIONS = {  # what each source takes besides --dataset and --data-folder
    "synthetic": ("seed", "num_takes", "take_length", "val_length", "num_tests", "test_length"),
    "synthetic-pushing": ("seed", "num_train", "num_validate", "num_test"),
    "FILE.zip": ("cuts", "test_length", "size", "scored", "missing", "camera"),
    "FOLDER": ("cuts", "test_length", "size", "scored", "missing", "camera"),
}
MAKE_VARIABLES = ("cuts", "camera", "size", "scored", "missing")  # by which Make passes an option on
MOST = 1_000_000  # of frames, takes and clips


def pack_images(
    path: Path,
    name: str,
    *,
    data_folder: Path = Path("data"),
    cuts: tuple[int, ...] | None = None,
    test_length: int | None = None,
    frame_size: Size | None = None,
    scored_frames: tuple[int, int] | None = None,
    fill: bool | None = None,
    camera: Camera | None = None,
) -> Manifest:
    """Packs a zip or folder into data_folder/name, resuming what was interrupted, and returns its manifest.

    cuts, test_length, frame_size, scored_frames, fill, camera: as in `read_content`. UserError for a source that
    src/intake refuses, for an option that has no effect on it, and where another data set has the name.
    """
    destination = _destination(name, data_folder)
    with owned(destination):
        content = read_content(
            open_source(path),
            cuts=cuts,
            test_length=test_length,
            frame_size=frame_size,
            scored_frames=scored_frames,
            fill=fill,
            camera=camera,
        )
        return _existing(destination, content.request) or _pack(content, destination)


def pack_synthetic(kind: str, name: str, *, data_folder: Path = Path("data"), **options: Any) -> Manifest:
    """Draws synthetic data of a kind of `SYNTHETIC`, packs them into data_folder/name, and returns the manifest.

    options: the numbers that the writer of that kind takes.
    """
    writer, request_of = (pkgutil.resolve_name(path) for path in SYNTHETIC[kind])
    destination = _destination(name, data_folder)
    numbers = _drawn_from(writer, options)
    request = request_of(_drawn_source(kind, numbers), numbers)

    def read(pictures: Path) -> Any:
        content: Any = read_content(open_source(pictures))
        return replace(content, request=request)

    return _pack_drawn(destination, request, partial(writer, **options), read)


def _drawn_from(write: Callable[..., None], options: dict[str, Any]) -> dict[str, int]:
    """Returns all numbers from which synthetic data are drawn, those left out with their default."""
    call = inspect.signature(write).bind(Path(), **options)
    call.apply_defaults()
    return {key: value for key, value in call.arguments.items() if isinstance(value, int)}


def _drawn_source(name: str, drawn: dict[str, int]) -> SourceRecord:
    fingerprint = hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()
    return SourceRecord(name=name, kind="synthetic", fingerprint=fingerprint)


def _pack_drawn(
    destination: Path, request: Request, write: Callable[[Path], None], read: Callable[[Path], Content]
) -> Manifest:
    """Packs what `write` draws and `read` then reads, unless it is packed already."""
    pictures = destination.with_name(partial_name(f"{destination.name}.pictures"))
    with owned(destination):
        if manifest := _existing(destination, request):
            return manifest
        try:
            write(pictures)
            return _pack(read(pictures), destination)
        finally:
            shutil.rmtree(pictures, ignore_errors=True)


def _destination(name: str, data_folder: Path) -> Path:
    if not name:
        raise UserError("no data set name is given; needed: DATASET=name, the folder to make below data/")
    name = checked_name(name, "DATASET")
    if data_folder.exists() and not data_folder.is_dir():
        raise UserError(f"{data_folder} is a file; needed: a folder for data sets; name another with --data-folder")
    return data_folder / name


def _existing(destination: Path, request: Request) -> Manifest | None:
    """Returns the manifest of what is packed as requested, None without one; UserError where it is other or damaged."""
    if not destination.exists():
        return None
    manifest = Manifest.load(destination)
    if not request.is_met_by(manifest):
        packed, asked = manifest.source, request.source
        found = manifest.origin.replace(str(packed), packed.name)  # people know it by its name, not by its hash
        needed = request.asked.replace(str(asked), asked.name)
        if packed.name == asked.name and packed.fingerprint != asked.fingerprint:
            needed += ", whose content is another"
        mend = f"give another DATASET, or delete {destination} first"
        raise UserError(f"{destination} was packed from {found}, asked for is {needed}; {mend}")
    check_contents(destination, manifest.arrays)
    say(f"{destination} is already packed")
    return manifest


def _pack(content: Content, destination: Path) -> Manifest:
    plan, folder = content.plan(), partial_folder(destination)
    source = content.source
    for words, names in (
        ("not used: {} files that do not belong to the data set", content.unused),
        ("left out: {} files or folders of other programs", source.litter),
        ("followed: {} links", source.links),
        ("read: {} archives in it", source.archives),
    ):
        if names:
            say(f"{words.format(len(names))}, such as {names[0]}")
    say_conversions(pack_arrays(source, content.chunks(), folder, plan), say)
    began_ns = settled_time_ns()
    manifest = content.manifest(folder)  # it hashes the arrays
    stamp_arrays(folder, manifest.arrays, began_ns)
    for doubt in doubts_of(folder, manifest):
        say(f"warning: {doubt}")
    write_atomically(folder / "manifest.json", sealed_json(manifest))
    (folder / PROGRESS).unlink()
    move(folder, destination)
    say(f"packed {destination}: {manifest.summary}")
    return manifest


def main() -> None:
    """The command `python -m src.packing`."""
    parser = Parser(
        description="Packs a data set for training.", allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--source", required=True, help="synthetic, synthetic-pushing, a .zip file or a folder")
    parser.add_argument("--dataset", required=True, help="name of the folder to make below the data folder")
    parser.add_argument("--data-folder", type=path_option, default=Path("data"), help="(default: data)")
    parser.add_argument("--cuts", help="training frames that begin a new take, 630,1260 say, or none (default: found)")
    parser.add_argument("--test-length", type=whole(2, MOST), help="poses of a test sequence (default: all)")
    parser.add_argument("--size", metavar="HxW", help="height and width of the packed frames (default: 32x64)")
    parser.add_argument(
        "--scored", metavar="A-B", help="first and last frame that count for the score (default: 1-600)"
    )
    parser.add_argument("--missing", metavar="empty", help="a missing pose is an empty one (default: it is left out)")
    parser.add_argument("--camera", help="of BAIR's original records (default: main)")
    drawing = parser.add_argument_group("of synthetic data only")
    drawing.add_argument("--seed", type=whole(0, 2**63 - 1))
    for option in ("num-takes", "take-length", "val-length", "num-tests"):
        drawing.add_argument(f"--{option}", type=whole(1, MOST))
    for option in ("num-train", "num-validate", "num-test"):
        drawing.add_argument(f"--{option}", type=whole(1, MOST), help="clips of synthetic-pushing")
    options = vars(parser.parse_args())
    source, dataset, data_folder = (options.pop(key) for key in ("source", "dataset", "data_folder"))
    if not source:
        raise UserError(f"no source is given; needed: SOURCE={', '.join(WORDS)}, FILE.zip or FOLDER")
    _refuse_without_effect(source, options)
    if options.get("camera") not in (None, *get_args(Camera)):
        raise UserError(f"CAMERA={options['camera']}; needed: one of {', '.join(get_args(Camera))}")
    if source in SYNTHETIC:
        pack_synthetic(source, dataset, data_folder=data_folder, **options)
    else:
        if "cuts" in options:
            options["cuts"] = parse_cuts(options["cuts"])
        if "size" in options:
            options["frame_size"] = parse_size(options.pop("size"))
        if "missing" in options:
            options["fill"] = parse_missing(options.pop("missing"))
        if "scored" in options:
            options["scored_frames"] = parse_scored(options.pop("scored"))
        pack_images(given_path(source), dataset, data_folder=data_folder, **options)


def parse_size(text: str) -> Size:
    """Returns height and width of a text such as "64x128"; UserError for anything else."""
    match = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(size) < SMALLEST_SIDE or max(size) > LARGEST_SIDE:
        needed = f"height x width in pixels, each from {SMALLEST_SIDE} to {LARGEST_SIDE}, such as SIZE=64x128"
        raise UserError(f"SIZE={text}; needed: {needed}")
    return size


def parse_scored(text: str) -> tuple[int, int]:
    """Returns the first and the last frame of a text such as "1-600"; UserError for anything else."""
    match = re.fullmatch(r"([0-9]{1,6})-([0-9]{1,6})", text)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= last:
        needed = "the first and the last frame that count, such as SCORED=1-600; frame 0 is given and never counts"
        raise UserError(f"SCORED={text}; needed: {needed}")
    return first, last


def parse_missing(text: str) -> bool:
    """Returns True for the text "empty"; UserError for anything else."""
    if text != "empty":
        raise UserError(
            f"MISSING={text}; needed: MISSING=empty, or leave it out: then frames without a pose are left out"
        )
    return True


def _refuse_without_effect(source: str, options: dict[str, object]) -> None:
    for key in options:
        takers = [taker for taker, keys in OPTIONS.items() if key in keys]
        if source not in takers and (source in OPTIONS or "FOLDER" not in takers):
            option = key.upper() if key in MAKE_VARIABLES else f"--{key.replace('_', '-')}"
            raise UserError(f"{option} with SOURCE={source}; needed: SOURCE={' or '.join(takers)}, or leave it out")


if __name__ == "__main__":
    run_program(main)
