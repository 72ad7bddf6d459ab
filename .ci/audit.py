#!/usr/bin/env python3
"""Checks the installed packages: `make audit`.

1. They have the versions of requirements.lock, and each line there has hashes.
2. pip-audit knows no vulnerability of them, if it can be run and can reach its source; otherwise the audit says so.
3. Their licences, as their metadata state them.

Exit code 1 if a version differs, a hash is missing, a vulnerability is known, or a licence forbids closed software.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

LOCK = Path("requirements.lock")
STRICT = re.compile(r"\bA?GPL|(?<!Lesser )General Public License", re.IGNORECASE)
SECONDS = 300


def locked(text: str) -> dict[Requirement, int]:
    """Returns the requirements of a lock file that hold on this machine, with the number of their hashes."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    found = {Requirement(re.split(r"\s*\\|\s+--hash|\s+#", entry)[0]): entry.count("--hash=") for entry in entries}
    return {each: hashes for each, hashes in found.items() if each.marker is None or each.marker.evaluate()}


def problems_of(requirements: dict[Requirement, int]) -> list[str]:
    """Returns a line for each package without a hash, not installed, or of another version."""
    lines = [f"{each.name} has no hash in the lock" for each, hashes in requirements.items() if not hashes]
    for each in requirements:
        try:
            version = distribution(each.name).version
        except PackageNotFoundError:
            lines.append(f"{each.name} is not installed; needed: {each.specifier}")
            continue
        if not each.specifier.contains(version, prereleases=True):
            lines.append(f"{each.name} is {version}; needed: {each.specifier}")
    return lines


def vulnerabilities() -> tuple[list[str], str]:
    """Returns the known vulnerabilities, and why they could not be looked up; "" if they could."""
    asked = ("--requirement", str(LOCK), "--require-hashes", "--disable-pip", "--format", "json")
    words = ("tool", "run", "pip-audit", *asked)
    reasons: list[str] = []
    try:
        done = subprocess.run((".venv/bin/uv", *words), capture_output=True, text=True, check=False, timeout=SECONDS)
        reasons = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        report = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return [], f"pip-audit has not answered within {SECONDS} s"
    except (OSError, ValueError, KeyError, TypeError):
        return [], f"pip-audit could not be run or reach its source: {reasons[-1] if reasons else 'no answer'}"
    return [
        f"{package['name']} {package['version']}: {', '.join(each['id'] for each in package['vulns'])}"
        for package in report
        if package.get("vulns")
    ], ""


def licence_of(name: str) -> str:
    """Returns the licence that a package's metadata state; "unknown" if they state none."""
    facts = distribution(name).metadata
    classifiers = [
        line.rpartition(" :: ")[2] for line in facts.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    stated = (facts.get("License-Expression") or ", ".join(classifiers) or facts.get("License") or "unknown").strip()
    return stated.splitlines()[0] if stated else "unknown"


def is_strict(licence: str) -> bool:
    """Returns whether a licence forbids use in closed software. Of several licences a user chooses one."""
    return all(STRICT.search(part) for part in re.split(r",| OR ", licence))


def main() -> int:
    """Prints the three parts and returns the exit code."""
    requirements = locked(LOCK.read_text(encoding="utf-8"))
    faults = problems_of(requirements)
    print(f"versions and hashes: {len(requirements)} packages, {len(faults)} problems")
    known, unchecked = vulnerabilities()
    print(f"known vulnerabilities: {f'NOT CHECKED: {unchecked}' if unchecked else len(known)}")
    licences = {
        each.name: licence_of(each.name) for each in requirements if f"{each.name} is not installed" not in str(faults)
    }
    for name, licence in sorted(licences.items()):
        print(f"  {name:28} {licence[:70]}")
    unknown = [name for name, licence in licences.items() if licence == "unknown"]
    print(f"licences: {len(licences)}, unknown: {', '.join(unknown) or 'none'}")
    faults += known + [f"{name} has the licence {text}" for name, text in licences.items() if is_strict(text)]
    for line in faults:
        print(f"PROBLEM: {line}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
