"""Which system's data a zip or folder holds, told by its layout, and reading it as such."""

from pathlib import PurePosixPath

from src.base.console import UserError
from src.intake.bair import holds_records, list_records
from src.intake.clip_folders import holds_clip_folders, list_clip_folders
from src.intake.dance import DanceContent, read_dance
from src.intake.dance_listing import FOLDERS, holds_dance, is_litter
from src.intake.facts import FRAME_SIZE, SCORED_FRAMES, Size
from src.intake.manifest import Camera, SourceRecord
from src.intake.pushing import PushingContent, PushingRequest
from src.intake.sources import Source

ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"}
LAYOUTS = {  # in words
    "dance": f"{', '.join(FOLDERS)} (dance)",
    "pushing": "train, validate, test with traj_A_to_B/N/0.png (pushing)",
    "records": "train, test with traj_A_to_B.tfrecords (BAIR's original)",
}


def read_content(
    source: Source,
    *,
    cuts: tuple[int, ...] | None = None,
    test_length: int | None = None,
    frame_size: Size | None = None,
    scored_frames: tuple[int, int] | None = None,
    camera: Camera | None = None,
) -> DanceContent | PushingContent:
    """Returns what a source holds, verified but not decoded; UserError also for an option of another layout.

    cuts, test_length, frame_size, scored_frames: of dancers; camera: of BAIR's original records. None where they are
    not given.
    """
    layout = _layout(source)
    given = {
        "CUTS": (cuts, "dance"),
        "--test-length": (test_length, "dance"),
        "SIZE": (frame_size, "dance"),
        "SCORED": (scored_frames, "dance"),
        "CAMERA": (camera, "records"),
    }
    for option, (value, needed) in given.items():
        if value is not None and layout != needed:
            found = f"{option} has no effect: {source.path} holds {LAYOUTS[layout]}"
            raise UserError(f"{found}; needed: {LAYOUTS[needed]}; leave {option} out")
    if layout == "dance":
        return read_dance(
            source,
            cuts=cuts,
            test_length=test_length,
            frame_size=frame_size or FRAME_SIZE,
            scored_frames=scored_frames or SCORED_FRAMES,
        )
    if layout == "records":
        return read_pushing(source, camera=camera or "main")
    return read_pushing(source)


def read_pushing(source: Source, *, camera: Camera | None = None) -> PushingContent:
    """Returns the clips of a source: of folders, or as a camera saw them of BAIR's original records."""
    listing = list_records(source, camera) if camera else list_clip_folders(source)
    kind = "records" if camera else source.kind
    record = SourceRecord(name=source.path.resolve().name, kind=kind, fingerprint=listing.fingerprint)
    return PushingContent(PushingRequest(record, listing.camera), source, listing)


def _layout(source: Source) -> str:
    """Returns a key of `LAYOUTS`; UserError where the source has none of them, or two."""
    holds = {"dance": holds_dance, "pushing": holds_clip_folders, "records": holds_records}
    found = [layout for layout, is_held in holds.items() if is_held(source)]
    if len(found) == 1:
        return found[0]
    if found:
        layouts = " and ".join(LAYOUTS[layout] for layout in found)
        raise UserError(f"{source.path} holds two data sets, {layouts}; needed: one; give the folder of one of them")
    for name in source.members:
        if not is_litter(name) and PurePosixPath(name).suffix.lower() in ARCHIVES:
            raise UserError(f"{source.path} holds an archive but no data set; unpack its member {name} and give that")
    needed = ", or ".join(LAYOUTS.values())
    raise UserError(f"{source.path} holds no data set; needed, at any depth: {needed}")
