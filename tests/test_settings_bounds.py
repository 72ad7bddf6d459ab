"""Every number of a configuration has bounds, and a value at or beyond them is accepted or refused in one line."""

import types
import typing
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import annotated_types
import pytest
from pydantic import BaseModel

from src.base.console import UserError
from src.config import Config, from_json, load_config, parse_config, to_json
from src.models.configs import MODELS
from src.models.interface import build_model

ODD = (-1, 0, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), 2**63, 2**64, 10**400, "1", True, None, [], {}, [1])


class Number(NamedTuple):
    """A numeric setting: the table that holds it, its key, and its bounds."""

    model: str
    key: str
    whole: bool
    low: float
    high: float

    def table(self, value: object) -> dict[str, Any]:
        """Returns settings in which this one has a value."""
        is_fed = self.model == "reference_cvae" and "teacher_forcing" in self.key
        own = {"previous_frame": True} if is_fed else {}
        table: dict[str, Any] = {"model": {"name": self.model} | own, "training": {"window": 1002}}
        *sections, last = self.key.split(".")
        place = table
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
        return table


def parts(kind: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yields each type in an annotation with the constraints that belong to it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        for inner, constraints in parts(arguments[0]):
            yield inner, (*constraints, *arguments[1:])
    elif origin in (typing.Union, types.UnionType, tuple):
        yield from chain.from_iterable(parts(argument) for argument in arguments if argument is not ...)
    else:
        yield kind, ()


def limits(constraints: tuple[Any, ...]) -> tuple[float | None, float | None]:
    """Returns the lower and the upper bound among constraints of a field; None where there is none."""
    flat = list(chain.from_iterable(getattr(each, "metadata", None) or [each] for each in constraints))
    low, high = annotated_types.Ge | annotated_types.Gt, annotated_types.Le | annotated_types.Lt
    lows = [getattr(each, "ge", getattr(each, "gt", None)) for each in flat if isinstance(each, low)]
    highs = [getattr(each, "le", getattr(each, "lt", None)) for each in flat if isinstance(each, high)]
    return next(iter(lows), None), next(iter(highs), None)


def numbers_in(schema: type[BaseModel], prefix: str, model: str) -> Iterator[Number]:
    for name, field in schema.model_fields.items():
        hints = typing.get_type_hints(schema, include_extras=True)[name]
        for kind, constraints in parts(hints):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                if name != "model":
                    yield from numbers_in(kind, f"{prefix}{name}.", model)
            elif kind in (int, float):
                low, high = limits((*constraints, *field.metadata))
                assert low is not None and high is not None, f"{prefix}{name} has no bounds"
                yield Number(model, f"{prefix}{name}", kind is int, low, high)


NUMBERS = list(
    dict.fromkeys(
        chain(
            numbers_in(Config, "", "reference_cvae"),
            *(numbers_in(schema, "model.", name) for name, schema in MODELS.items()),
        )
    )
)


def outcome(table: dict[str, Any]) -> Config | str:
    """Returns the configuration, or the line that refuses it. Any other error fails the test."""
    try:
        return parse_config(table, "SET")
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number.model}: {number.key}")
def test_a_value_at_or_beyond_its_bounds_is_accepted_or_named(number: Number) -> None:
    step = 1 if number.whole else max(1e-9, abs(number.high) * 1e-9)
    for value in (*ODD, number.low, number.high):
        found = outcome(number.table(value))
        if isinstance(found, str):
            assert number.key in found or number.key.rpartition(".")[2] in found, found
        else:
            assert from_json(to_json(found), "config.json") == found
    for value in (number.low - step, number.high + step):
        refused = outcome(number.table(int(value) if number.whole else value))
        assert isinstance(refused, str) and number.key in refused, f"{value} is accepted"


def test_there_are_many() -> None:
    assert len(NUMBERS) * (len(ODD) + 4) >= 600
    assert len(NUMBERS) >= 45


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bound", ["low", "high"])
def test_a_model_at_its_bounds_is_built_or_refused(name: str, bound: str) -> None:
    """Each of its numbers at a bound, the others at their default; too large ones are refused before they are made."""
    facts = {"height": 64, "width": 64} | ({"num_action": 4, "num_position": 3} if "svg" in name else {})
    for number in (each for each in NUMBERS if each.model == name and each.key.startswith("model.") and each.whole):
        table = number.table(int(getattr(number, bound)))
        config = outcome(table)
        if isinstance(config, str):
            continue
        try:
            build_model(config, **facts)
        except UserError as error:
            assert "weights; training it takes" in str(error) or "cannot draw frames" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "seed = " + "9" * 5000,
        "a = " + "[" * 5000,
        "[model]\nname = ['reference_cvae']",
        "[model]\nname = {a = 1}",
        "model = 3",
        "training = []",
        "'' = 1",
        '"a\\u0000" = 1',
        "seed = 1\nseed = 2",
        "seed = 1979-05-27",
        "[training]\nheld_out_takes = [0, 0]",
        "[training]\nheld_out_takes = [" + "1," * 5000 + "]",
        "dataset = '" + "a" * 5000 + "'",
        "dataset = '../up'",
    ],
)
def test_a_file_of_settings_is_one_line(text: str, tmp_path: Any) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))
