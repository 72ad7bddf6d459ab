"""Two commands at once in one workspace, every pair: one may be refused; afterwards both give what they should."""

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import takewhile
from pathlib import Path

from tests.torture.cases import Case, Verdict, of_ended
from tests.torture.workshop import COMMANDS, NEEDS, Workshop, command, difference, finish, start

ORDER = tuple(COMMANDS)
HANGS_AFTER = 600  # seconds; two grids at once take minutes on a slow machine
CHAIN = ("data", "train", "evaluate", "submission")


def cases(workshop: Workshop, chance: random.Random, wanted: int) -> Iterator[Case]:
    """Yields every ordered pair of commands, the second one starting after a random number of operations."""
    pairs = [(one, two) for one in ORDER for two in ORDER]
    for one, two in pairs if wanted >= len(pairs) else chance.sample(pairs, wanted):
        yield Case(f"{one} and {two}", partial(attack, workshop, one, two, chance.random()))


def attack(workshop: Workshop, one: str, two: str, share: float) -> Verdict:
    """Starts the second command while the first one runs, and waits for both. Then it runs all that belongs to them."""
    begun = list(takewhile(lambda stage: stage not in (one, two), CHAIN))
    rest = [stage for stage in ORDER if stage in (*NEEDS[one], *NEEDS[two], one, two) and stage not in begun]
    snapshot = (begun[-1], "after") if begun else ("data", "before")
    with workshop.copy(*snapshot) as workspace, tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / "one", Path(scratch) / "two"]
        for folder in folders:
            folder.mkdir()
        processes = [start(workspace, COMMANDS[one], folders[0])]
        time.sleep(2 * share)
        processes.append(start(workspace, COMMANDS[two], folders[1]))
        for result in [finish(*each, HANGS_AFTER) for each in zip(processes, folders, strict=True)]:
            if bad := of_ended(result):
                return bad
        for stage in (*rest, *rest):
            again = command(workspace, COMMANDS[stage])
            if again.code:
                return Verdict("lost", f"{stage} afterwards: {again.errors.strip()[-300:]}")
        found = difference(_undisturbed(workshop, snapshot, rest), workspace)
        return Verdict("wrong", found) if found else Verdict("survived")


def _undisturbed(workshop: Workshop, snapshot: tuple[str, str], stages: list[str]) -> Path:
    """Returns the workspace in which these stages have run one after the other, twice; it is made once."""
    place = workshop.folder / " ".join((*snapshot, *stages))
    if not place.exists():
        with workshop.copy(*snapshot) as calm:
            for stage in (*stages, *stages):
                command(calm, COMMANDS[stage])
            with suppress(OSError):  # another process has made it meanwhile
                calm.rename(place)
            calm.mkdir(exist_ok=True)
    return place
