"""Runs a command with a fault at one of its file operations: a kill, a power cut, or an error of the system.

The operations that change files below a folder are counted, by the library that injector.c is compiled into. A fault
is a place (the number of the operation), a kind, and, for an error, its number and whether it stays.
"""

import ctypes
import errno
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from src.base.files import file_hash

SOURCE = Path(__file__).with_name("injector.c")
KINDS = ("none", "before", "after", "half", "drop", "fail", "fail on")  # the numbers of injector.c
Kind = Literal["none", "before", "after", "half", "drop", "fail", "fail on"]
KILLS: tuple[Kind, ...] = ("before", "after", "half", "drop")


@dataclass(frozen=True)
class Fault:
    """What happens at the operation with a number. `code` is the errno of "fail" and "fail on"."""

    place: int = 0
    kind: Kind = "none"
    code: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {errno.errorcode[self.code]} at {self.place}" if self.code else f"{self.kind} {self.place}"


@dataclass(frozen=True)
class Result:
    """How a command has ended, and the operations that it has done: "number call path"."""

    code: int
    output: str
    errors: str
    operations: list[str]


@functools.cache
def library() -> Path:
    """Returns the compiled library; skips the test where no compiler is installed."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the fault injector needs Linux and a C compiler")
    target = Path(tempfile.gettempdir()) / f"fault-injector-{os.getuid()}-{file_hash(SOURCE)[:16]}.so"
    if not target.exists():
        new = target.with_suffix(f".{os.getpid()}")
        command = [compiler, "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", str(SOURCE), "-o", str(new), "-ldl"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        new.replace(target)  # other processes may compile it at the same moment
    return target


def environment(root: Path, scratch: Path, fault: Fault) -> dict[str, str]:
    """Returns the variables that load the library into a command. `scratch` is a folder outside of `root`."""
    counter, log = scratch / "counter", scratch / "operations"
    counter.write_bytes(bytes(8))
    log.write_bytes(b"")
    plan = f"{fault.place} {KINDS.index(fault.kind)} {fault.code}"
    return {
        "LD_PRELOAD": str(library()),
        "FAULT_ROOT": str(root.resolve()),
        "FAULT_COUNTER": str(counter),
        "FAULT_PLAN": plan,
        "FAULT_LOG": str(log),
    }


def arm(root: Path, scratch: Path, fault: Fault) -> None:
    """Plans a fault for this process, into which the library is loaded, and for the programs that it starts."""
    variables = environment(root, scratch, fault)
    os.environ.update(variables)
    plan = (fault.place, KINDS.index(fault.kind), fault.code)
    names = (variables[name].encode() for name in ("FAULT_ROOT", "FAULT_COUNTER"))
    loaded = ctypes.CDLL(str(library()))
    loaded.fault_arm(*names, ctypes.c_int64(plan[0]), plan[1], plan[2], variables["FAULT_LOG"].encode())


def run(command: Sequence[str], root: Path, fault: Fault | None = None, timeout: float = 120) -> Result:
    """Runs a command in `root` with a fault, in its own process group, and returns how it has ended."""
    with tempfile.TemporaryDirectory() as scratch:
        variables = os.environ | environment(root, Path(scratch), fault or Fault())
        process = subprocess.Popen(
            command,
            cwd=root,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        output, errors = process.communicate(timeout=timeout)
        operations = (Path(scratch) / "operations").read_text(errors="replace").splitlines()
    return Result(process.returncode, output, errors, operations)
