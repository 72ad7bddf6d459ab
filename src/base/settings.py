"""Building blocks of the configuration: the base class of its tables and the types of its values."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from src.base.names import NEEDED, is_name

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Shift = NotNegative  # pixels, less than a frame is high or wide: `resolution.resolved` knows how large that is


def _is_data_set(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"dataset = {text!r}; needed: {NEEDED}")
    return text


DataSetName = Annotated[str, AfterValidator(_is_data_set)]


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
