"""Settings at and beyond their bounds: accepted, or refused in one line that names the setting."""

import random
from collections.abc import Iterator
from functools import partial

from src.base.console import UserError
from src.config import parse_config
from tests.test_settings_bounds import NUMBERS, ODD, Number
from tests.torture.cases import Case, Verdict
from tests.torture.workshop import Workshop


def cases(workshop: Workshop, chance: random.Random, wanted: int) -> Iterator[Case]:
    """Yields each numeric setting with each odd value, with its bounds, and with values just beyond them."""
    for number in NUMBERS:
        step = 1 if number.whole else max(1e-9, abs(number.high) * 1e-9)
        beyond = [int(value) if number.whole else value for value in (number.low - step, number.high + step)]
        for value in (*ODD, number.low, number.high):
            yield Case(f"{number.model}: {number.key} = {value!r:.40}", partial(attack, number, value))
        for value in beyond:
            yield Case(f"{number.model}: {number.key} = {value!r:.40}", partial(attack, number, value, beyond=True))


def attack(number: Number, value: object, *, beyond: bool = False) -> Verdict:
    """Reads a configuration with the value."""
    try:
        parse_config(number.table(value), "SET")
    except UserError as error:
        named = number.key.rpartition(".")[2] in str(error) and "\n" not in str(error)
        return Verdict("survived") if named else Verdict("wrong", f"refused without its name: {error}")
    except Exception as error:  # what a user would see as a traceback
        return Verdict("traceback", f"{type(error).__name__}: {error}")
    return Verdict("wrong", "accepted beyond its bound") if beyond else Verdict("survived")
