"""What is to be submitted: submissions/<run>.csv, faultless and up to date, its message, the file that travels."""

import hashlib
import io
import shlex
import zipfile
from dataclasses import dataclass
from pathlib import Path

from src.base.console import UserError
from src.base.files import file_hash, write_atomically

SUBMISSIONS = Path("submissions")
UPLOADS = SUBMISSIONS / ".uploads"  # lock, logs and zips of uploads under way
LONGEST_MESSAGE = 400  # characters; a message cut by the server could lose its tag
ZIP_GAIN = 0.9  # a zip is sent instead of the csv when it is smaller than this part of it


@dataclass(frozen=True)
class Wish:
    """What a person asks for: the run's csv in a competition; once more, or although it is stale, only if said."""

    run: str
    competition: str
    message: str = ""
    again: bool = False
    force_stale: bool = False

    @property
    def csv(self) -> Path:
        """Returns where the csv is."""
        return SUBMISSIONS / f"{self.run}.csv"

    def make(self, option: str) -> str:
        """Returns the command with one more option."""
        return f"`make submit RUN={self.run} COMPETITION={self.competition} ARGS={option}`"


@dataclass(frozen=True)
class Order:
    """What is to be submitted where; all checked."""

    run: str
    competition: str
    message: str
    csv: Path
    csv_sha256: str
    commit: str | None
    local_score: float | None  # dB


def prepare(wish: Wish) -> Order:
    """Returns the checked order; refuses a csv that is malformed, or that the run would not write today."""
    from src.submission import Provenance, check_submission  # noqa: PLC0415 (loads torch; no other command needs it)

    path, run, message = wish.csv, wish.run, " ".join((wish.message or wish.run).split())
    if len(message) > LONGEST_MESSAGE:
        raise UserError(f"the message has {len(message)} characters; {LONGEST_MESSAGE} are the most")
    if "[run:" in message:
        raise UserError("the message contains `[run:`, which begins the tag that is put behind it; leave it out")
    provenance = Provenance.load(path.with_suffix(".json"))
    shape = (3, *provenance.frame_size)
    checked = check_submission(path, sequence_length=provenance.sequence_length, frame_shape=shape)
    changed = [path] if checked.sha256 != provenance.csv_sha256 else []
    for sha256, names in (
        (provenance.checkpoint_sha256, ("best.pt", "last.pt")),
        (provenance.config_sha256, ("config.json",)),
    ):
        sources = [Path("runs") / run / name for name in names]
        if not any(source.exists() and file_hash(source) == sha256 for source in sources):
            changed.append(sources[0])
    if changed and not wish.force_stale:
        raise UserError(
            f"{', '.join(map(str, changed))}: changed or gone since {path} was written; `make submission RUN={run}` "
            f"writes it anew, {wish.make('--force-stale')} submits it as it is"
        )
    known = path not in changed  # else commit and score are those of another csv
    commit, local_score = (provenance.commit, provenance.local_score) if known else (None, None)
    return Order(run, wish.competition, message, path, checked.sha256, commit, local_score)


def packed(order: Order) -> Path:
    """Returns the file to upload: a zip of the csv, the same bytes each time, or the csv where a zip is no gain."""
    content = order.csv.read_bytes()
    if hashlib.sha256(content).hexdigest() != order.csv_sha256:
        raise UserError(f"{order.csv} was changed while it was being submitted; run the same command again")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(order.csv.name, date_time=(1980, 1, 1, 0, 0, 0))
        archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=6)
    if len(buffer.getvalue()) > ZIP_GAIN * len(content):
        return order.csv
    path = UPLOADS / f"{order.run}.zip"
    write_atomically(path, buffer.getvalue())
    return path


def manual_command(order: Order, tag: str) -> str:
    """Returns the line that submits by hand, with the tag by which the next `make submit` finds it."""
    words = ("--file", str(packed(order)), f"--message={order.message} [run:{tag}]")
    return shlex.join((".venv/bin/kaggle", "competitions", "submit", order.competition, *words))
