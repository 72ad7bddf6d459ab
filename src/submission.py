"""Predictions -> a checked submissions/<run>.csv, and a submissions/<run>.json that says where the csv comes from.

The header of the csv is `id,0,1,...,6143`. Each row holds one frame: its id (0, 1, 2, ...), then its values in C, H, W
order as integers 0..255. The sequences follow each other. Each has 630 rows, and its first row is the given frame.
"""

import hashlib
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from src.base.command_line import Parser, path_option, whole
from src.base.console import UserError, run_program, say
from src.base.files import file_hash, write_atomically
from src.base.names import checked_name
from src.base.reading import Unreadable, read_bytes, read_json, sealed_json
from src.base.settings import NotNegative, Positive, Sha256
from src.dance.csv_faults import CELLS, MAX_FAULTS, distinct, doubts_of, faults_of
from src.dance.csv_reading import NotRead, Reading, read_as_meant
from src.intake.facts import FRAME_SIZE, TEST_LENGTH, Side, Size
from src.intake.file_names import pictures_in
from src.intake.manifest import DanceManifest
from src.intake.pictures import Picture, count_kinds, read_picture, say_conversions

if TYPE_CHECKING:
    from torch import Tensor

FRAME_SHAPE = (3, *FRAME_SIZE)  # C, H, W, of the competition; other data sets may have others
SEQUENCE_LENGTH = TEST_LENGTH  # rows of one sequence, the given frame included
MAX_ROWS = 10**9  # of a csv


@dataclass(frozen=True)
class CheckedSubmission:
    """What a valid csv holds. `sha256` is the hash of the checked bytes; `doubts` say what makes no sense in it.

    `usual` says how it is written otherwise than by this project, as Kaggle takes it, too.
    """

    num_rows: Positive
    num_sequences: int
    sha256: str
    doubts: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()


class InvalidCsv(UserError):
    """A csv that must not be uploaded. `faults` has one line for each kind of fault; the text has the first."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        count = f"{len(faults)} or more faults" if len(faults) == MAX_FAULTS else f"{len(faults)} faults"
        more = f" ({count}; .venv/bin/pose-video check-csv {path} lists them)" if len(faults) > 1 else ""
        super().__init__(f"{path}: {faults[0]}{more}")
        self.faults = faults


class Provenance(BaseModel):
    """Where a csv comes from. It is saved beside the csv as <run>.json. `local_score` is the validation score in dB."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    run: str
    csv_sha256: Sha256
    num_rows: Annotated[int, Field(ge=1, le=MAX_ROWS)]
    num_sequences: Positive
    frame_size: tuple[Side, Side] = FRAME_SIZE  # height and width
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)$")]  # UTC, ISO 8601
    commit: str | None  # None outside a git checkout
    dataset: str
    dataset_fingerprint: str
    synthetic: bool = False  # whether this project has drawn the data; files of older versions do not say it
    config_sha256: Sha256
    checkpoint_sha256: Sha256
    checkpoint_step: NotNegative
    local_score: float | None  # None if the run was never validated
    seed: int

    @model_validator(mode="after")
    def _sequences_are_whole(self) -> Self:
        if self.num_rows % self.num_sequences:
            raise ValueError(f"{self.num_rows} rows are not {self.num_sequences} sequences of one length")
        return self

    @property
    def sequence_length(self) -> int:
        """Rows of one sequence."""
        return self.num_rows // self.num_sequences

    def save(self, path: Path) -> None:
        """Writes the JSON file in one step, so that it is never half written."""
        write_atomically(path, sealed_json(self))

    @classmethod
    def load(cls, path: Path) -> "Provenance":
        """Returns what `save` wrote; UserError if the file is missing, damaged or of another version."""
        if not path.is_file():
            raise UserError(f"{path} does not exist; move its csv away, `make submission RUN={path.stem}` writes both")
        try:
            return read_json(path, cls)
        except Unreadable as error:
            mend = f"move both files away and run `make submission RUN={path.stem}` again"
            raise UserError(f"{error}; the origin of its csv is unknown; {mend}") from None


def provenance_path(csv_path: Path) -> Path:
    """Returns the path of a csv's JSON file: the same folder and name, with the suffix .json."""
    return csv_path.with_suffix(".json")


def safe_to_replace(csv_path: Path) -> None:
    """Raises UserError if `csv_path` exists and these commands did not write it. Such a file is not overwritten."""
    if not csv_path.exists():
        return
    json_path = provenance_path(csv_path)
    mend = f"move it away (mv {csv_path} {csv_path}.kept) and run the same command again"
    if not json_path.is_file():
        raise UserError(f"{csv_path} exists and no {json_path.name} beside it says where it comes from; {mend}")
    if file_hash(csv_path) != Provenance.load(json_path).csv_sha256:
        raise UserError(f"{csv_path} exists and is not the file that {json_path.name} describes; {mend}")


def write_submission(
    path: Path,
    rollouts: "Tensor",
    *,
    frame_shape: tuple[int, int, int] = FRAME_SHAPE,
    sequence_length: int = SEQUENCE_LENGTH,
) -> None:
    """Writes rollouts (K, 630, 3, 32, 64), float in [0, 1] or uint8, as the competition's csv.

    The file is written in one step, so that it is never half written. UserError if `path` holds a file that must not be
    replaced (see `safe_to_replace`).
    """
    num_values = math.prod(frame_shape)
    assert rollouts.ndim == 5 and len(rollouts) > 0, f"rollouts must be (K, T, C, H, W): {tuple(rollouts.shape)}"
    assert rollouts.shape[1:] == (sequence_length, *frame_shape), f"a rollout of shape {tuple(rollouts.shape[1:])}"
    from src.maths.metrics import quantise  # noqa: PLC0415  (torch is slow to import, and a check needs none)

    integers = quantise(rollouts) if rollouts.is_floating_point() else rollouts
    rows = integers.reshape(len(rollouts) * sequence_length, num_values).cpu().numpy()
    assert rows.dtype == np.uint8 and rows.shape == (len(rollouts) * sequence_length, num_values), rows.shape
    safe_to_replace(path)
    lines = [b",".join([b"id", *(str(column).encode() for column in range(num_values))])]
    lines += (b"%d,%b" % (i, b",".join(CELLS[row].tolist())) for i, row in enumerate(rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, b"\n".join(lines) + b"\n")


def check_submission(
    path: Path,
    *,
    first_frames: np.ndarray | None = None,
    num_sequences: int | None = None,
    sequence_length: int = SEQUENCE_LENGTH,
    frame_shape: tuple[int, int, int] = FRAME_SHAPE,
) -> CheckedSubmission:
    """Returns what a valid csv holds. UserError for an invalid one: it names the first fault and counts the others.

    first_frames: uint8 (K, 3, 32, 64), the required frame 0 of each sequence. It also sets the number of sequences.
    """
    content = _read(path)
    reading, faults = judge(content, (first_frames, num_sequences, sequence_length, frame_shape))
    if faults or reading.odd:
        raise InvalidCsv(path, faults or [not_for_kaggle(path, reading)])
    num_rows = len(reading.content.splitlines()) - 1
    doubts = tuple(doubts_of(reading.content, sequence_length))
    sha256 = hashlib.sha256(content).hexdigest()
    return CheckedSubmission(num_rows, num_rows // sequence_length, sha256, doubts, tuple(reading.usual))


Needed = tuple[np.ndarray | None, int | None, int, tuple[int, int, int]]  # the arguments of `faults_of`


def judge(content: bytes, needed: Needed) -> tuple[Reading, list[str]]:
    """Returns how a csv was read, and one line for each kind of fault of what it means, at most ten."""
    if next(faults_of(content, *needed), None) is None:
        return Reading(content), []
    try:
        reading = read_as_meant(content, math.prod(needed[-1]))
    except NotRead as cause:
        return Reading(content), [str(cause)]
    return reading, distinct(faults_of(reading.content, *needed, lines=reading.lines))


def not_for_kaggle(path: Path, reading: Reading) -> str:
    """Says in one line what Kaggle would refuse or misread in a csv whose values are valid, and how to mend it."""
    mended = shlex.quote(str(path.with_name(f"{path.stem}-mended.csv")))
    return (
        f"the values are valid, but Kaggle would refuse or misread the file: it has {', '.join(reading.odd)}; to write "
        f"it as Kaggle takes it: .venv/bin/pose-video check-csv {shlex.quote(str(path))} --mend {mended}"
    )


def say_doubts(path: Path, checked: CheckedSubmission) -> None:
    """Prints a warning for each doubt about a csv, and a line if it is written otherwise than here."""
    for doubt in checked.doubts:
        say(f"warning: {path}: {doubt}")
    if checked.usual:
        say(f"{path}: it has {', '.join(checked.usual)}; every csv reader takes them, Kaggle's too")


def find_faults(path: Path, **needed: Any) -> list[str]:
    """Returns the faults that `check_submission` finds with these arguments; an empty list for a valid file."""
    try:
        check_submission(path, **needed)
    except InvalidCsv as error:
        return error.faults
    return []


def write_mended(
    path: Path,
    out: Path,
    *,
    first_frames: np.ndarray | None = None,
    num_sequences: int | None = None,
    sequence_length: int = SEQUENCE_LENGTH,
    frame_shape: tuple[int, int, int] = FRAME_SHAPE,
) -> bool:
    """Writes a csv as Kaggle takes it and returns True. Returns False if its values have faults; nothing is written."""
    if out.exists():
        raise UserError(f"--mend {out} exists already; give another name")
    reading, faults = judge(_read(path), (first_frames, num_sequences, sequence_length, frame_shape))
    if faults:
        return False
    write_atomically(out, reading.content.rstrip(b"\n") + b"\n")
    say(f"{out}: {path} without {', '.join(reading.odd) or 'a change'}")
    return True


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"{path} is a folder; needed: a csv file, such as submissions/<run>.csv")
    if not path.is_file():
        own = path.absolute() == Path("submissions", f"{path.stem}.csv").absolute()
        needed = f"`make submission RUN={path.stem}` writes it" if own else "needed: the csv file to check"
        raise UserError(f"{path} does not exist; {needed}")
    return read_bytes(path)


def read_first_frames(folder: Path, size: Size = FRAME_SIZE) -> np.ndarray:
    """Returns the given frames of a test folder, uint8 (K, 3, H, W). Folder `folder`/K holds one picture, K = 0, 1, ...

    They are resized to `size`, (H, W), as packing does it. One printed line says which pictures were converted.
    """
    sequences = sorted((path for path in folder.glob("*") if path.name.isdecimal()), key=lambda path: int(path.name))
    if [path.name for path in sequences] != [str(k) for k in range(len(sequences))] or not sequences:
        found = ", ".join(path.name for path in sequences) or "none"
        raise UserError(f"{folder} holds the folders {found}; needed: folders 0, 1, ... with one first frame in each")
    pictures = [_read_first_frame(sequence, size) for sequence in sequences]
    say_conversions(count_kinds((picture.name, picture.kind) for picture in pictures), say)
    return np.stack([picture.pixels for picture in pictures])


def _read_first_frame(folder: Path, size: Size) -> Picture:
    pictures = pictures_in(folder)
    if len(pictures) != 1:
        raise UserError(f"{folder} holds {len(pictures)} pictures; needed: one, the first frame of its sequence")
    return read_picture(pictures[0], size, str(pictures[0]))


class Layout(NamedTuple):
    """What a csv must hold. `origin` says in words where these numbers come from."""

    sequence_length: int
    frame_size: Size
    origin: str
    first_frames: np.ndarray | None = None
    csv_sha256: str | None = None  # of the csv that a JSON file describes

    def __str__(self) -> str:
        height, width = self.frame_size
        return f"{self.sequence_length} frames of {height} x {width} a sequence, by {self.origin}"


def layout_of(path: Path, dataset: str | None, data_folder: Path = Path("data")) -> Layout:
    """Returns what a csv must hold: according to `dataset`, else the JSON beside the csv, else the competition.

    UserError if the data set is missing or is not one of dancers, or if the JSON is damaged.
    """
    if dataset is not None:
        folder = data_folder / checked_name(dataset, "--dataset")
        manifest = DanceManifest.load(folder)
        first_frames = manifest.open_arrays(folder)["test_frames"]
        return Layout(manifest.test_length, manifest.frame_size, str(folder), first_frames)
    if provenance_path(path).is_file():
        provenance = Provenance.load(provenance_path(path))
        return Layout(
            provenance.sequence_length, provenance.frame_size, str(provenance_path(path)), None, provenance.csv_sha256
        )
    return Layout(SEQUENCE_LENGTH, FRAME_SIZE, "the competition's format")


def main() -> None:
    """Checks a csv: `pose-video check-csv FILE` says that it is valid, or lists its faults."""
    parser = Parser(description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "check-csv", aliases=["check"], help="print one line if valid (exit 0), else one per kind of fault (exit 2)"
    )
    check.add_argument("file", metavar="FILE", type=path_option)
    check.add_argument(
        "--first-frames", type=path_option, metavar="FOLDER", help="compare frame 0 with this test_img folder (K/*.png)"
    )
    check.add_argument(
        "--dataset", metavar="NAME", help="check against data/NAME (default: against the JSON beside FILE)"
    )
    check.add_argument(
        "--length",
        type=whole(1, 1_000_000),
        help=f"rows of one sequence (default: by data set or JSON, or {SEQUENCE_LENGTH})",
    )
    check.add_argument(
        "--mend", type=path_option, metavar="NEW.csv", help="write what FILE means as Kaggle takes it, and check that"
    )
    arguments = parser.parse_args()
    layout = layout_of(arguments.file, arguments.dataset)
    if arguments.length is not None:
        layout = layout._replace(sequence_length=arguments.length, origin=f"--length and {layout.origin}")
    if arguments.first_frames:
        layout = layout._replace(first_frames=read_first_frames(arguments.first_frames, layout.frame_size))
    needed: dict[str, Any] = {
        "first_frames": layout.first_frames,
        "sequence_length": layout.sequence_length,
        "frame_shape": (3, *layout.frame_size),
    }
    path = arguments.file
    if arguments.mend and write_mended(path, arguments.mend, **needed):
        path = arguments.mend
    try:
        checked = check_submission(path, **needed)
    except InvalidCsv as error:
        for fault in error.faults:
            print(f"error: {path}: {fault}", file=sys.stderr)
        say(f"needed: {layout}")
        sys.exit(2)
    say_doubts(path, checked)
    if path == arguments.file and layout.csv_sha256 not in (None, checked.sha256):
        say(f"warning: {path} is not the file that {provenance_path(path)} describes; it was changed or replaced")
    say(f"valid: {checked.num_rows} rows, {checked.num_sequences} sequences, sha256 {checked.sha256}; {layout}")


if __name__ == "__main__":
    run_program(main)
