"""Building blocks of the configuration: the base class of its tables and the types of its values."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from src.base.names import NEEDED, is_name

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=10**6)]
Small = Annotated[int, Field(ge=1, le=64)]  # of parts that are built one after the other
Channels = Annotated[int, Field(ge=1, le=2**16)]
Width = Annotated[int, Field(ge=8, le=4096, multiple_of=8)]  # channels, normed in groups of 8
NotNegative = Annotated[int, Field(ge=0, le=10**12)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Frames = Annotated[int, Field(ge=0, le=1000)]  # beside a frame
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Shift = Annotated[int, Field(ge=0, le=1024)]  # pixels, less than a frame is high or wide, as `resolved` checks


def _is_data_set(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"dataset = {text!r}; needed: {NEEDED}")
    return text


def _is_run(text: str) -> str:
    if text and not is_name(text):
        raise ValueError(f"{text!r} is no name of a run; needed: {NEEDED}")
    return text


DataSetName = Annotated[str, AfterValidator(_is_data_set)]
RunOrNone = Annotated[str, AfterValidator(_is_run)]  # "": none


class Section(BaseModel):
    """A table of settings. It cannot be changed; an unknown key or a value of the wrong type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Section)


def refuse_without_effect(section: Kind, unused: tuple[str, ...]) -> Kind:
    """Returns the section; raises ValueError if a setting that its `kind` does not use differs from its default."""
    changed = [name for name in unused if getattr(section, name) != type(section).model_fields[name].default]
    if changed:
        kind = section.model_dump()["kind"]
        raise ValueError(f'{", ".join(changed)} would have no effect with kind = "{kind}"; remove it')
    return section
