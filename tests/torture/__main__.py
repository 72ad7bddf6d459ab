"""Attacks the pipeline: kills, mutated files, two commands at once, refusals of the system, settings at their bounds.

python -m tests.torture --minutes 25            writes docs/reliability.md
python -m tests.torture --quick                 a sample of each class, for CI; writes nothing
python -m tests.torture --only kills --seed 3
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from src.base.command_line import Parser, whole
from src.base.console import say
from src.base.devices import hardware
from src.base.files import write_atomically
from src.base.provenance import commit
from tests.faults.injector import library
from tests.torture import kills, mutations, pairs, refusals, settings
from tests.torture.cases import AttackClass, Case, Verdict
from tests.torture.workshop import Workshop, prepare

CLASSES = (
    AttackClass("settings at their bounds", 600, 600, settings.cases),
    AttackClass("refusals of the system", 112, 16, refusals.cases),
    AttackClass("mutated inputs", 100_000, 10_000, mutations.cases),
    AttackClass("two commands at once", 81, 12, pairs.cases),
    AttackClass("kills", 320, 40, kills.cases),
)
PAGE, TABLE = Path("docs/reliability.md"), Path("docs/reliability.json")
Results = dict[str, list[tuple[str, Verdict]]]


def attack_all(workshop: Workshop, chosen: Sequence[AttackClass], options: argparse.Namespace) -> Results:
    """Runs the cases of each class in forked processes, until they are done or the time is over."""
    results: Results = {}
    deadline = time.monotonic() + 60 * options.minutes
    for kind in chosen:
        chance = random.Random(f"{options.seed} {kind.name}")
        wanted = kind.quick if options.quick else kind.goal
        listed = list(kind.cases(workshop, chance, wanted))
        chance.shuffle(listed)
        say(f"{kind.name}: {len(listed)} cases")
        Listed.cases = listed
        found: list[tuple[str, Verdict]] = []
        with ProcessPoolExecutor(os.cpu_count(), get_context("fork")) as pool:
            jobs = {pool.submit(_attack, number, deadline): case.name for number, case in enumerate(listed)}
            for job in as_completed(jobs):
                verdict = job.result()
                if verdict is None:
                    continue
                found.append((jobs[job], verdict))
                if verdict.outcome != "survived":
                    say(f"  {verdict.outcome}: {jobs[job]}: {verdict.reason}")
        results[kind.name] = found
        say(summary(kind, found))
        if not options.quick:
            save({kind.name: found}, options)
    return results


class Listed:
    """The cases of the present class. Forked processes find them here."""

    cases: Sequence[Case]


def _attack(number: int, deadline: float) -> Verdict | None:
    """Returns what becomes of a case; None if the time is over."""
    if time.monotonic() > deadline:
        return None
    case = Listed.cases[number]
    try:
        return case.attack()
    except Exception as error:  # the attack itself is at fault; it must not pass for survival
        return Verdict("traceback", f"in the attack: {type(error).__name__}: {error}")


def counts(found: Sequence[tuple[str, Verdict]]) -> dict[str, int]:
    """Returns how many cases were tried, and what became of them."""
    tried = {"tried": sum(verdict.count for _, verdict in found)}
    outcomes = ("survived", "lost", "wrong", "traceback")
    return tried | {each: sum(v.count for _, v in found if v.outcome == each) for each in outcomes}


def summary(kind: AttackClass, found: Sequence[tuple[str, Verdict]]) -> str:
    """Returns the line on a class."""
    return f"{kind.name}: " + ", ".join(f"{number:,} {word}" for word, number in counts(found).items())


def save(results: Results, options: argparse.Namespace) -> None:
    """Writes the results of the attacked classes, beside those of the others, and the page."""
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    for name, found in results.items():
        failed = [f"{case}: {each.outcome}: {each.reason}" for case, each in found if each.outcome != "survived"]
        origin = {"seed": options.seed, "hardware": hardware(), "commit": commit()}
        table[name] = {"counts": counts(found), "failed": failed} | origin
    write_atomically(TABLE, f"{json.dumps(table, indent=1)}\n".encode())
    write_atomically(PAGE, f"{page(table)}\n".encode())
    say(f"{PAGE}: written")


def page(table: dict[str, Any]) -> str:
    """Returns the text of docs/reliability.md."""
    rows = ["| class | goal | tried | survived | lost | wrong | tracebacks | seed | commit |"]
    rows.append("|---|---:|---:|---:|---:|---:|---:|---:|---|")
    failed = []
    for kind in CLASSES:
        if kind.name in table:
            known = table[kind.name]
            cells = [f"{number:,}" for number in (kind.goal, *known["counts"].values())]
            rows.append(f"| {' | '.join([kind.name, *cells, str(known['seed']), known['commit'] or 'not known'])} |")
            failed += [f"* {kind.name}, {case}" for case in known["failed"]]
    machines = sorted({known["hardware"] for known in table.values()})
    return "\n\n".join(
        [
            "# Reliability",
            (Path(__file__).parent / "explanation.md").read_text(encoding="utf-8").strip(),
            "\n".join(rows),
            f"Command: `make torture`. Machine: {'; '.join(machines)}.",
            "## Cases that did not survive",
            "\n".join(failed) or "None.",
        ]
    )


def main() -> None:
    """The command `python -m tests.torture`."""
    parser = Parser(prog="python -m tests.torture", description="Attacks the pipeline.")
    parser.add_argument("--minutes", type=whole(1, 1000), default=30, help="time limit (default: %(default)s)")
    parser.add_argument("--seed", type=whole(0, 2**31), default=0)
    parser.add_argument("--quick", action="store_true", help="a sample of each class; writes no page")
    parser.add_argument("--only", choices=[kind.name for kind in CLASSES], action="append")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        workshop = prepare(Path(folder))
        say(f"prepared after {time.monotonic() - started:.0f} s")
        chosen = [kind for kind in CLASSES if not options.only or kind.name in options.only]
        results = attack_all(workshop, chosen, options)
    survived = all(verdict.outcome == "survived" for found in results.values() for _, verdict in found)
    sys.exit(0 if survived else 1)


if __name__ == "__main__":
    if "LD_PRELOAD" not in os.environ:  # the library must be there from the start
        os.environ |= {"LD_PRELOAD": str(library()), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        os.environ["PYTHONPATH"] = str(Path.cwd())  # for the commands that a grid starts in its workspace
        os.execv(sys.executable, [sys.executable, "-m", "tests.torture", *sys.argv[1:]])
    main()
