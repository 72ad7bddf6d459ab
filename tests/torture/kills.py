"""Kills at file operations of every stage. The same command then leaves what an undisturbed one leaves."""

import random
from collections.abc import Iterator
from functools import partial

from tests.faults.injector import KILLS, Fault
from tests.torture.cases import Case, Verdict, of_ended
from tests.torture.workshop import COMMANDS, Workshop, command, difference

SHARES = {"data": 14, "folder": 14, "train": 30, "evaluate": 12, "submission": 12, "predict": 8, "report": 6, "grid": 4}


def cases(workshop: Workshop, chance: random.Random, wanted: int) -> Iterator[Case]:
    """Yields kills at places that are spread over all operations of each stage, in turn over the kinds."""
    for stage, share in SHARES.items():
        with workshop.copy(stage, "before") as workspace:
            num_operations = len(command(workspace, COMMANDS[stage]).operations)
        count = max(2, round(wanted * share / sum(SHARES.values())))
        for number in range(count):
            place = 1 + min(num_operations - 1, int((number + chance.random()) * num_operations / count))
            first = Fault(place, KILLS[number % len(KILLS)])
            second = Fault(chance.randint(1, num_operations), KILLS[chance.randrange(4)]) if number % 5 == 4 else None
            name = f"{stage}: {first}" + (f", then {second}" if second else "")
            yield Case(name, partial(attack, workshop, stage, [first, second] if second else [first]))


def attack(workshop: Workshop, stage: str, faults: list[Fault]) -> Verdict:
    """Kills a stage once or twice, runs it to its end, and compares what it leaves."""
    with workshop.copy(stage, "before") as workspace:
        for fault in faults:
            killed = command(workspace, COMMANDS[stage], fault)
            if bad := of_ended(killed, may_be_killed=True):
                return bad
        again = command(workspace, COMMANDS[stage])
        if again.code:
            bad = of_ended(again)
            return bad or Verdict("lost", f"the same command ends with {again.code}: {again.errors.strip()[-300:]}")
        found = difference(workshop.folder / f"after {stage}", workspace)
        return Verdict("wrong", found) if found else Verdict("survived")
