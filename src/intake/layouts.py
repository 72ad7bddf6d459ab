"""Which layout a zip or a folder has, told by its names alone, and reading it with the module of that layout.

The module is imported when its layout is found. So reading dancers imports no code for robots.
"""

import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from src.base.console import UserError
from src.intake.chunks import Chunk, Plan
from src.intake.dance_listing import FOLDERS, holds_dance
from src.intake.manifest import SPLITS, Manifest, SourceRecord
from src.intake.sources import Source

DEEPEST = 3  # archives inside archives
CLIP_FILE = re.compile(rf"(?:(.*)/)?(?:{'|'.join(SPLITS)})/traj_[0-9]+_to_[0-9]+/.*")
RECORD_FILE = re.compile(
    r"(?:(?P<top>.*)/)?(?P<split>train|test)/traj_(?P<first>[0-9]{1,9})_to_(?P<last>[0-9]{1,9})\.tfrecords"
)
VARIABLES = {  # options of `read_content`, as people give them
    "cuts": "CUTS",
    "test_length": "--test-length",
    "frame_size": "SIZE",
    "scored_frames": "SCORED",
    "fill": "MISSING",
    "camera": "CAMERA",
}


class Request(Protocol):
    """What shall be packed."""

    @property
    def source(self) -> SourceRecord:
        """Where it comes from."""
        ...

    @property
    def asked(self) -> str:
        """What is wanted, for people."""
        ...

    def is_met_by(self, manifest: Manifest) -> bool:
        """Returns whether packing would give that data set again."""
        ...


class Content(Protocol):
    """What a source holds, verified but not decoded."""

    @property
    def request(self) -> Any:
        """What shall be packed of it."""
        ...

    @property
    def source(self) -> Source:
        """The zip or folder."""
        ...

    @property
    def unused(self) -> Sequence[str]:
        """The names of files outside the data set."""
        ...

    def plan(self) -> Plan:
        """Returns the arrays to make."""
        ...

    def chunks(self) -> Sequence[Chunk]:
        """Returns the work, in pieces."""
        ...

    def manifest(self, folder: Path) -> Manifest:
        """Returns the manifest of the arrays packed into a folder."""
        ...


@dataclass(frozen=True)
class SourceLayout:
    """How people arrange a data set."""

    words: str
    is_held_by: Callable[[Source], bool]
    reader: str  # module:function
    options: tuple[str, ...] = ()


LAYOUTS = {
    "dance": SourceLayout(
        f"{', '.join(FOLDERS)} (dance)",
        holds_dance,
        "src.intake.dance:read_dance",
        ("cuts", "test_length", "frame_size", "scored_frames", "fill"),
    ),
    "pushing": SourceLayout(
        "train, validate, test with traj_A_to_B/N/0.png (pushing)",
        lambda source: any(CLIP_FILE.fullmatch(name) for name in source.members),
        "src.intake.clip_folders:read_clip_folders",
    ),
    "records": SourceLayout(
        "train, test with traj_A_to_B.tfrecords (BAIR's original)",
        lambda source: any(RECORD_FILE.fullmatch(name) for name in source.members),
        "src.intake.bair:read_records",
        ("camera",),
    ),
}


def read_content(source: Source, **options: Any) -> Content:
    """Returns what a source holds, verified but not decoded.

    options: cuts, test_length, frame_size, scored_frames, fill for dancers; camera for BAIR's original records. None
    is the same as left out. Raises UserError for an option that the layout does not have.
    """
    given = {option: value for option, value in options.items() if value is not None}
    layout = _layout(source)
    for option in given:
        if option not in layout.options:
            needed = next(other.words for other in LAYOUTS.values() if option in other.options)
            found = f"{VARIABLES[option]} has no effect: {source.path} holds {layout.words}"
            raise UserError(f"{found}; needed: {needed}; leave {VARIABLES[option]} out")
    read: Callable[..., Content] = pkgutil.resolve_name(layout.reader)
    return read(source, **given)


def _layout(source: Source) -> SourceLayout:
    """Returns the layout of a source, or of the archives in it if it has none itself; UserError for none, or two."""
    for _ in range(DEEPEST):
        found = [layout for layout in LAYOUTS.values() if layout.is_held_by(source)]
        if found or not source.look_into_archives():
            break
    if len(found) == 1:
        return found[0]
    if found:
        layouts = " and ".join(layout.words for layout in found)
        raise UserError(f"{source.path} holds two data sets, {layouts}; needed: one; give the folder of one of them")
    if source.refused:
        raise UserError(source.refused[0])
    needed = ", or ".join(layout.words for layout in LAYOUTS.values())
    hidden = f" (left out: files of other programs, such as {source.litter[0]})" if source.litter else ""
    archives = f", nor do the archives in it, such as {source.archives[0]}" if source.archives else ""
    raise UserError(f"{source.path} holds no data set{archives}{hidden}; needed, at any depth: {needed}")
