"""Attacks the pipeline: kills, mutated files, two commands at once, refusals of the system, settings at their bounds.

python -m tests.torture --minutes 25            writes docs/reliability.md
python -m tests.torture --quick                 a sample of each class, for CI; writes nothing
python -m tests.torture --only kills --seed 3
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

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
    AttackClass("kills", 320, 40, kills.cases),
    AttackClass("mutated inputs", 100_000, 10_000, mutations.cases),
    AttackClass("two commands at once", 81, 12, pairs.cases),
    AttackClass("refusals of the system", 112, 16, refusals.cases),
    AttackClass("settings at their bounds", 600, 600, settings.cases),
)
PAGE = Path("docs/reliability.md")
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


def page(results: Results, options: argparse.Namespace, seconds: float) -> str:
    """Returns the text of docs/reliability.md."""
    goals = {kind.name: kind.goal for kind in CLASSES}
    rows = ["| class | goal | tried | survived | lost | wrong | tracebacks |", "|---|---:|---:|---:|---:|---:|---:|"]
    for name, found in results.items():
        rows.append(f"| {name} | {goals[name]:,} | " + " | ".join(f"{n:,}" for n in counts(found).values()) + " |")
    failed = [
        f"* {name}, {case}: {verdict.outcome}: {verdict.reason}"
        for name, found in results.items()
        for case, verdict in found
        if verdict.outcome != "survived"
    ]
    how = f"`make torture`, seed {options.seed}, {seconds / 60:.0f} minutes; {hardware()}; commit {commit()}."
    return "\n\n".join(
        [
            "# Reliability",
            (Path(__file__).parent / "explanation.md").read_text(encoding="utf-8").strip(),
            "\n".join(rows),
            how,
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
    if not options.quick and not options.only:
        write_atomically(PAGE, f"{page(results, options, time.monotonic() - started)}\n".encode())
        say(f"{PAGE}: written")
    survived = all(verdict.outcome == "survived" for found in results.values() for _, verdict in found)
    sys.exit(0 if survived else 1)


if __name__ == "__main__":
    if "LD_PRELOAD" not in os.environ:  # the library must be there from the start
        os.environ |= {"LD_PRELOAD": str(library()), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        os.environ["PYTHONPATH"] = str(Path.cwd())  # for the commands that a grid starts in its workspace
        os.execv(sys.executable, [sys.executable, "-m", "tests.torture", *sys.argv[1:]])
    main()
