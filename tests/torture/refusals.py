"""What a system can refuse, at every stage: one line, exit code 2, and the same command later gives the whole."""

import errno
import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.injector import Fault
from tests.torture.cases import Case, Verdict, of_ended
from tests.torture.workshop import COMMANDS, Workshop, command, difference

NUMBERS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS),
    *(errno.EACCES, errno.EMFILE, errno.ENAMETOOLONG, errno.ENOMEM),
)
STAGES = ("data", "folder", "train", "evaluate", "submission", "predict", "report")


def _set_clock_back(workspace: Path) -> None:
    """Makes every file a year younger than now, as if the clock had been set back since."""
    later = time.time() + 365 * 86_400
    for path in workspace.rglob("*"):
        os.utime(path, (later, later))


CONDITIONS: dict[str, dict[str, Any]] = {  # how a command is run
    "without HOME": {"variables": {"HOME": None}},
    "HOME that does not exist": {"variables": {"HOME": "/nowhere"}},
    "TMPDIR that does not exist": {"variables": {"TMPDIR": "/nowhere"}},
    "few open files": {"limits": [(resource.RLIMIT_NOFILE, 24)]},
    "small files": {"limits": [(resource.RLIMIT_FSIZE, 20_000)]},
    "little memory": {"limits": [(resource.RLIMIT_AS, 2_500 * 2**20)]},
    "no /dev/shm": {"root": Path("/dev/shm"), "fault": Fault(1, "fail on", errno.ENOENT)},
}


def cases(workshop: Workshop, chance: random.Random, wanted: int) -> Iterator[Case]:
    """Yields errors at random operations of each stage, and stages under conditions that are not usual."""
    found: list[Case] = []
    for stage in STAGES:
        with workshop.copy(stage, "before") as workspace:
            num_operations = len(command(workspace, COMMANDS[stage]).operations)
        for code in NUMBERS:
            fault = Fault(chance.randint(1, num_operations), chance.choice(("fail", "fail on")), code)
            found.append(Case(f"{stage}: {fault}", partial(attack, workshop, stage, {"fault": fault})))
        for name, options in CONDITIONS.items():
            found.append(Case(f"{stage}: {name}", partial(attack, workshop, stage, options)))
        found.append(Case(f"{stage}: clock set back", partial(attack, workshop, stage, {}, _set_clock_back)))
    yield from found if wanted >= len(found) else chance.sample(found, wanted)


def attack(
    workshop: Workshop, stage: str, options: dict[str, Any], change: Callable[[Path], None] | None = None
) -> Verdict:
    """Runs a stage under a condition, then without it, and compares what it leaves."""
    with workshop.copy(stage, "before") as workspace:
        if change:
            change(workspace)
        if bad := of_ended(command(workspace, COMMANDS[stage], **options)):
            return bad
        again = command(workspace, COMMANDS[stage])
        if again.code:
            return of_ended(again) or Verdict("lost", f"afterwards: {again.errors.strip()[-300:]}")
        found = difference(workshop.folder / f"after {stage}", workspace)
        return Verdict("wrong", found) if found else Verdict("survived")
