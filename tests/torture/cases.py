"""What an attack is made of: cases, and what becomes of each."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tests.faults.injector import Result
from tests.torture.workshop import Workshop

Outcome = Literal["survived", "lost", "wrong", "traceback"]


@dataclass(frozen=True)
class Verdict:
    """What became of one or more like cases, and why."""

    outcome: Outcome
    reason: str = ""
    count: int = 1


@dataclass(frozen=True)
class Case:
    """One attack: its name, and the function that does it."""

    name: str
    attack: Callable[[], Verdict]


@dataclass(frozen=True)
class AttackClass:
    """A class of attacks. `cases` yields about `wanted` of them; the order is random, so a part of it is a sample."""

    name: str
    goal: int  # cases of a full run
    quick: int  # cases of the subset for CI
    cases: Callable[[Workshop, random.Random, int], Iterator[Case]]


def of_ended(result: Result, *, may_be_killed: bool = False) -> Verdict | None:
    """Returns the verdict on a command that has not ended as it should; None for one that has.

    It should end with code 0, or with code 2 (or that of a stop) and one line.
    """
    lines = [line for line in result.errors.splitlines() if line.strip()]
    if "Traceback (most recent call last)" in result.errors:
        return Verdict("traceback", lines[-1])
    if result.code == -99:
        return Verdict("lost", "it did not end")
    if result.code == 0 or (may_be_killed and result.code == -9):
        return None
    errors = [line for line in lines if line.startswith(("error: ", "stopped"))]
    if result.code in (2, 130, 143) and len(errors) == 1:
        return None
    return Verdict("traceback", f"exit code {result.code}: {' | '.join(lines)[:300]}")
