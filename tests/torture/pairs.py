"""Two commands at once in one workspace, every pair: one may be refused; afterwards both give what they should."""

import random
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.torture.cases import Case, Verdict, of_ended
from tests.torture.workshop import COMMANDS, NEEDS, Workshop, command, difference, finish, start

ORDER = tuple(COMMANDS)


def cases(workshop: Workshop, chance: random.Random, wanted: int) -> Iterator[Case]:
    """Yields every ordered pair of commands, the second one starting after a random number of operations."""
    pairs = [(one, two) for one in ORDER for two in ORDER]
    for one, two in pairs if wanted >= len(pairs) else chance.sample(pairs, wanted):
        yield Case(f"{one} and {two}", partial(attack, workshop, one, two, chance.random()))


def attack(workshop: Workshop, one: str, two: str, share: float) -> Verdict:
    """Starts the second command while the first one runs, waits for both, and runs both again, one after the other."""
    needed = [stage for stage in ORDER if stage in (*NEEDS[one], *NEEDS[two]) and stage not in (one, two)]
    with workshop.copy("data", "before") as workspace, tempfile.TemporaryDirectory() as scratch:
        for stage in needed:
            command(workspace, COMMANDS[stage])
        folders = [Path(scratch) / "one", Path(scratch) / "two"]
        for folder in folders:
            folder.mkdir()
        processes = [start(workspace, COMMANDS[one], folders[0])]
        time.sleep(2 * share)
        processes.append(start(workspace, COMMANDS[two], folders[1]))
        ended = [finish(*each, 100) for each in zip(processes, folders, strict=True)]
        for result in ended:
            if bad := of_ended(result):
                return bad
        last = sorted({*needed, one, two}, key=ORDER.index)
        for stage in (*last, *last):
            again = command(workspace, COMMANDS[stage])
            if again.code:
                return Verdict("lost", f"{stage} afterwards: {again.errors.strip()[-300:]}")
        with workshop.copy("data", "before") as calm:
            for stage in (*last, *last):
                command(calm, COMMANDS[stage])
            found = difference(calm, workspace)
        return Verdict("wrong", found) if found else Verdict("survived")
