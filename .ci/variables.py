"""Prints one line about a mistake in the targets and variables of a make command; nothing if there is none.

    python3 .ci/variables.py MAKEFILE "TARGETS" "NAMES OF GIVEN VARIABLES" "VALUE OF DATASET" "INHERITED NAMES"

It also notes, on the standard error, each variable that comes from the environment and is read.

make runs this before every target, even before .venv exists, so it needs only the standard library. It reads targets
and variables from the Makefile. A line `NAME ?=` is a variable. A target reads the variables that its recipe quotes.
"""

from __future__ import annotations  # so that an old Python can run this, and .ci/setup can then print what it needs

import re
import sys

# Variables of the environment that the command line may also set. Names with an underscore are always allowed.
USUAL = {"PYTHON", "SHELL", "MAKEFLAGS", "HOME", "PATH", "TMPDIR", "CI", "CC", "CXX"}


def variables_of(makefile: str) -> list[str]:
    """Returns the variables of a Makefile that targets read."""
    return [name for name in re.findall(r"^([A-Z]+) \?=", makefile, re.MULTILINE) if name not in USUAL]


def reads_of(makefile: str) -> dict[str, list[str]]:
    """Returns {target: variables that its recipe reads} for the documented targets of a Makefile."""
    recipes = re.findall(r"^([a-z-]+):.*##.*\n((?:\t.*\n)*)", makefile, re.MULTILINE)
    quoted = re.compile(r"\((?:call quoted,|value )([A-Z]+)\)")
    known = variables_of(makefile)
    found = {target: dict.fromkeys(quoted.findall(recipe)) for target, recipe in recipes}
    reads = {target: [name for name in names if name in known] for target, names in found.items()}
    return {**reads, "help": known}  # help shows all variables


def fault(makefile: str, targets: list[str], given: list[str], dataset: str) -> str:
    """Returns a message about the first mistake in these targets and variables; "" if there is none."""
    known = variables_of(makefile)
    reads = reads_of(makefile)
    for name in given:
        if name not in known and name not in USUAL and "_" not in name:
            return f"{name} is no variable of this Makefile; {suggestion(name.upper(), known)}"
    for target in targets:
        if target not in reads:
            return f"there is no target {target}; {suggestion(target, list(reads))}"
    read = list(dict.fromkeys(name for target in targets for name in reads[target]))
    for name in given:
        if name in known and name not in read:
            instead = f"it reads: {' '.join(read) or 'no variable'}"
            if name == "DATASET":
                instead = f'a run reads the data set its configuration names: SET="dataset={dataset}" with make train'
            return f"make {' '.join(targets)} does not read {name}; {instead}"
    return ""


def from_environment(makefile: str, targets: list[str], inherited: list[str]) -> list[str]:
    """Returns the variables of the environment that these targets read."""
    reads = reads_of(makefile)
    return [name for name in inherited if any(name in reads[target] for target in targets if target != "help")]


def suggestion(name: str, known: list[str]) -> str:
    """Returns a question with the most similar known name, or a list of all names."""
    import difflib  # noqa: PLC0415  (only a mistake needs it, and an import slows every command down)

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else f"known: {' '.join(known)}"


if __name__ == "__main__":
    place, targets, given, dataset, inherited = sys.argv[1:]
    with open(place, encoding="utf-8") as file:  # noqa: PTH123  (as above)
        text = file.read()
    found = fault(text, targets.split(), given.split(), dataset)
    print(found)
    for name in [] if found else from_environment(text, targets.split(), inherited.split()):
        print(f"note: {name} comes from the environment", file=sys.stderr)
