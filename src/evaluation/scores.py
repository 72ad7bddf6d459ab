"""runs/<run>/scores.json: the results of an evaluation. One class per system writes and reads the file.

Reports and the console show the description of a field as its meaning.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from src.base.console import UserError
from src.base.files import write_atomically
from src.base.reading import Unreadable, read_chosen, sealed_json
from src.base.settings import NotNegative, Sha256
from src.base.systems import SYSTEMS

NOTHING = "-"


def decimal(value: float | None, places: int, sign: Literal["", "+"] = "") -> str:
    """Returns a number as text with so many decimal places; "-" for None or NaN."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:{sign}.{places}f}".replace("inf", "∞")


class Shown(NamedTuple):
    """How tables show a number: the heading of its column, its decimal places, and "+" for a sign on every number."""

    label: str
    places: int = 2
    sign: Literal["", "+"] = ""


class RolloutScores(BaseModel):
    """The scores of one rollout, of a run or of a baseline. PSNR is in dB. Identical frames have infinite PSNR."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    score: Annotated[
        float,
        Shown("score (dB)"),
        Field(description="mean PSNR of the scored frames of free rollouts; protocol says which frames"),
    ]
    mean_ssim: Annotated[
        float, Shown("SSIM", 3), Field(description="structural similarity, mean over all predicted frames", ge=-1, le=1)
    ]


class Scores(RolloutScores):
    """The fields of scores.json that every system has."""

    system: Annotated[str, Field(description="the system of the run's model")]
    run: Annotated[str, Field(description="name of the run")]
    protocol: Annotated[str, Field(description="how the numbers were computed")]
    baselines: Annotated[
        Mapping[str, RolloutScores], Field(description="baselines without training, on the same data", min_length=1)
    ]
    num_given: Annotated[int, Field(description="frames given at the start of a rollout")]
    scored_frames: Annotated[tuple[int, int], Field(description="first and last frame of the score")]
    psnr_by_frame: Annotated[list[float], Field(description="PSNR of each frame in dB; infinite for given frames")]
    num_samples_compared: Annotated[NotNegative, Field(description="number of samples of the prior that are compared")]
    num_parameters: Annotated[NotNegative, Field(description="number of trained weights")]
    checkpoint_step: Annotated[NotNegative, Field(description="training steps of the checkpoint")]
    checkpoint_sha256: Annotated[Sha256, Field(description="hash of the checkpoint")]
    config_sha256: Annotated[Sha256, Field(description="hash of the run's configuration")]
    dataset_fingerprint: Annotated[str, Field(description="hash of the packed data set")]
    commit: Annotated[str | None, Field(description="commit of the code; null outside a git checkout")]

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        first, last = self.scored_frames
        if not 1 <= self.num_given <= first <= last < len(self.psnr_by_frame):
            raise ValueError(f"frames {first} to {last} of {len(self.psnr_by_frame)} cannot be scored")
        return self


class ScoreNumber(NamedTuple):
    """A number of scores.json that tables show."""

    name: str
    meaning: str
    shown: Shown

    def text(self, scores: BaseModel) -> str:
        """Returns the number as text; "-" if the scores do not have it."""
        return decimal(getattr(scores, self.name, None), self.shown.places, self.shown.sign)


def numbers_of(schema: type[BaseModel]) -> list[ScoreNumber]:
    """Returns the numbers of a class of scores that tables show, in the order of the fields."""
    return [
        ScoreNumber(name, field.description or "", shown)
        for name, field in schema.model_fields.items()
        for shown in field.metadata
        if isinstance(shown, Shown)
    ]


def lines_of_scores(scores: Scores) -> list[str]:
    """Returns a line with value and meaning for each number of an evaluation that baselines do not have."""
    others = [number for number in numbers_of(type(scores)) if number.name not in RolloutScores.model_fields]
    known = [number for number in others if getattr(scores, number.name) is not None]
    width = max((len(number.shown.label) for number in known), default=0)
    return [f"{number.shown.label:{width}}  {number.text(scores):>6}  {number.meaning}" for number in known]


def all_numbers() -> dict[str, ScoreNumber]:
    """Returns {name: number} of the numbers that tables show, for all systems. A name means the same in all of them."""
    return {number.name: number for system in SYSTEMS for number in numbers_of(schema_of(system))}


def schema_of(system: str) -> type[Scores]:
    """Returns the class of a system's scores."""
    return SYSTEMS[system].part("schema").SCHEMA


def schema_named_in(table: Mapping[str, object], origin: str) -> type[Scores]:
    """Returns the class of scores of the system that a table names; Unreadable, which names `origin`, without one."""
    system = table.get("system")
    if not isinstance(system, str) or system not in SYSTEMS:
        raise Unreadable(f"{origin} does not name its system, as in earlier versions")
    return schema_of(system)


def write_scores(path: Path, scores: Scores) -> None:
    """Writes scores.json. Infinity becomes the string "Infinity", because JSON has no such number."""
    write_atomically(path, sealed_json(scores))


def read_scores(path: Path) -> Scores:
    """Returns the content of scores.json; UserError if the file is missing, damaged or from another version."""
    evaluate = f"make evaluate RUN={path.parent.name}"
    if not path.exists():
        raise UserError(f"{path} does not exist; evaluate the run first: {evaluate}")
    try:
        return read_chosen(path, lambda table: schema_named_in(table, str(path)))
    except Unreadable as error:
        raise UserError(f"{error}; to write it again: {evaluate}") from None
