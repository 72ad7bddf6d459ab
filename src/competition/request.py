"""A request to submit: checks submissions/<run>.csv and its message, and makes the file to upload."""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

from src.base.console import UserError
from src.base.files import file_hash, write_atomically
from src.base.reading import read_bytes

SUBMISSIONS = Path("submissions")
UPLOADS = SUBMISSIONS / ".uploads"  # the lock, and the logs and zips of current uploads
MAX_ZIP_RATIO = 0.9  # the zip is uploaded if its size is at most this fraction of the csv's


@dataclass(frozen=True)
class SubmitRequest:
    """The user's request: submit this run's csv to this competition.

    `again` allows a csv that Kaggle has already. `force_stale` allows a csv whose run has changed since. `plain_csv`
    uploads no zip.
    """

    run: str
    competition: str
    message: str = ""
    again: bool = False
    force_stale: bool = False
    plain_csv: bool = False

    @property
    def csv(self) -> Path:
        """Returns the path of the csv."""
        return SUBMISSIONS / f"{self.run}.csv"

    def make_command(self, option: str = "") -> str:
        """Returns the make command of this request, with one more option or with none."""
        return f"`make submit RUN={self.run} COMPETITION={self.competition}{option and f' ARGS={option}'}`"


@dataclass(frozen=True)
class PreparedSubmission:
    """A checked submission, ready for upload."""

    run: str
    competition: str
    message: str
    csv: Path
    csv_sha256: str
    commit: str | None
    local_score: float | None  # dB


def prepare(request: SubmitRequest) -> PreparedSubmission:
    """Returns the checked submission.

    Raises UserError if the message or the csv is not valid, or if the csv or its run has changed since it was written.
    """
    from src.submission import Provenance, check_submission, say_doubts  # noqa: PLC0415 (loads torch; no other command needs it)

    path = request.csv
    run = request.run
    message = " ".join((request.message or run).split())
    try:
        message.encode()
    except UnicodeEncodeError:
        raise UserError(f"the message {message!r} is no text in UTF-8; write it in UTF-8, or in ASCII") from None
    if "[run:" in message:
        raise UserError("the message contains `[run:`, which starts the tag that is added to it; remove it")
    provenance = Provenance.load(path.with_suffix(".json"))
    if provenance.synthetic:
        raise UserError(
            f"{path} is a rehearsal: its data set {provenance.dataset} is synthetic, so no competition can score it; "
            "train on a competition's data (make data SOURCE=kaggle COMPETITION=slug DATASET=name) and submit that run"
        )
    shape = (3, *provenance.frame_size)
    checked = check_submission(path, sequence_length=provenance.sequence_length, frame_shape=shape)
    say_doubts(path, checked)
    changed = [path] if checked.sha256 != provenance.csv_sha256 else []
    for sha256, names in (
        (provenance.checkpoint_sha256, ("best.pt", "last.pt")),
        (provenance.config_sha256, ("config.json",)),
    ):
        sources = [Path("runs") / run / name for name in names]
        if not any(source.exists() and file_hash(source) == sha256 for source in sources):
            changed.append(sources[0])
    if changed and not request.force_stale:
        raise UserError(
            f"{', '.join(map(str, changed))}: not as it was when the csv was written; move {path} away, and "
            f"`make submission RUN={run}` writes it again; {request.make_command('--force-stale')} submits it as it is"
        )
    known = path not in changed  # otherwise the commit and the score belong to another csv
    commit, local_score = (provenance.commit, provenance.local_score) if known else (None, None)
    return PreparedSubmission(run, request.competition, message, path, checked.sha256, commit, local_score)


def file_to_upload(prepared: PreparedSubmission, *, plain_csv: bool = False) -> Path:
    """Returns the file to upload: a zip of the csv, or the csv if that is wanted or if the zip is not smaller.

    The zip has the same bytes each time.
    """
    content = read_bytes(prepared.csv)
    if hashlib.sha256(content).hexdigest() != prepared.csv_sha256:
        raise UserError(f"{prepared.csv} was changed while it was being submitted; run the same command again")
    if plain_csv:
        return prepared.csv
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(prepared.csv.name, date_time=(1980, 1, 1, 0, 0, 0))
        archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=6)
    if len(buffer.getvalue()) > MAX_ZIP_RATIO * len(content):
        return prepared.csv
    path = UPLOADS / f"{prepared.run}.zip"
    write_atomically(path, buffer.getvalue())
    return path
