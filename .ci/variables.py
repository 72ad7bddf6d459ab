"""Says in one line what is wrong with the targets and variables of a make command; nothing where all is well.

    python3 .ci/variables.py MAKEFILE "TARGETS" "NAMES OF GIVEN VARIABLES" "VALUE OF DATASET"

make runs this before any target, also where there is no .venv yet, so it needs the standard library alone. The Makefile
itself says what there is: a line `NAME ?=` is a variable, and a target reads the variables that its recipe quotes.
"""

from __future__ import annotations  # an older Python shall come as far as .ci/setup, which says what is needed

import re
import sys

# May be set on the command line as well, beside all names with an underscore: they are the environment's.
USUAL = {"PYTHON", "SHELL", "MAKEFLAGS", "HOME", "PATH", "TMPDIR", "CI", "CC", "CXX"}


def variables_of(makefile: str) -> list[str]:
    """Returns the variables of a Makefile that targets read."""
    return [name for name in re.findall(r"^([A-Z]+) \?=", makefile, re.MULTILINE) if name not in USUAL]


def reads_of(makefile: str) -> dict[str, list[str]]:
    """Returns the documented targets of a Makefile, each with the variables that its recipe reads."""
    recipes = re.findall(r"^([a-z-]+):.*##.*\n((?:\t.*\n)*)", makefile, re.MULTILINE)
    quoted = re.compile(r"\((?:call quoted,|value )([A-Z]+)\)")
    reads = {target: list(dict.fromkeys(quoted.findall(recipe))) for target, recipe in recipes}
    return {**reads, "help": variables_of(makefile)}  # it shows them all


def fault(makefile: str, targets: list[str], given: list[str], dataset: str) -> str:
    """Returns what is wrong with these targets and variables in words, "" where nothing is."""
    known, reads = variables_of(makefile), reads_of(makefile)
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


def suggestion(name: str, known: list[str]) -> str:
    """Returns the known name that may be meant, or all of them."""
    import difflib  # noqa: PLC0415  (only a mistake needs it, and every command pays for an import)

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else f"known: {' '.join(known)}"


if __name__ == "__main__":
    place, targets, given, dataset = sys.argv[1:]
    with open(place, encoding="utf-8") as file:  # noqa: PTH123  (as above)
        print(fault(file.read(), targets.split(), given.split(), dataset))
