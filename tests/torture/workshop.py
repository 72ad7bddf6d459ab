"""A small workspace in which every command has run, and a way to run a command in a copy of it within a second.

Starting Python and importing torch takes some seconds. So the attack imports everything once, and each command is a
fork of it, with the fault injector armed.
"""

import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from src.base.console import run_main
from tests.differences import first_difference
from tests.faults.injector import Fault, Result, arm

CONFIG = """
dataset = "tiny"
[model]
name = "reference_cvae"
width = 8
num_levels = 2
num_blocks = 1
[training]
num_epochs = 3
batch_size = 8
clips_per_epoch = 16
validate_every = 1
warmup_steps = 2
precision = "float32"
"""
GRID = """
title = "Two arms"
base = "tiny"
seeds = [0]
set = "training.num_epochs=1"
[arms]
plain = ""
wider = "model.width=16"
[comparisons]
both = ["plain", "wider"]
"""
DRAWN = "--num-takes 2 --take-length 16 --val-length 12 --num-tests 2 --test-length 12"
COMMANDS = {  # stage -> the command of that stage, in the order in which people run them
    "data": f"packing --source synthetic --dataset tiny {DRAWN}",
    "folder": "packing --source pictures --dataset copied --cuts 16",
    "train": "trainer tiny",
    "evaluate": "tester evaluate tiny",
    "submission": "tester submission tiny",
    "predict": "tester predict tiny --frame pictures/val/val_img/0.png --poses pictures/val/val_label --out drawn.gif",
    "report": "report",
    "grid": "experiments grid",
    "verify": "verify",
}
NEEDS = {  # stage -> the stages that must have run before it
    "data": (),
    "folder": (),
    "train": ("data",),
    "evaluate": ("data", "train"),
    "submission": ("data", "train", "evaluate"),
    "predict": ("data", "train"),
    "report": ("data", "train", "evaluate", "submission"),
    "grid": ("data",),
    "verify": ("data", "train", "evaluate", "submission"),
}
VARYING = {"clips_per_s", "data_share", "rollout_seconds", "created", "commit", "clock", "training_seconds", "hardware"}
VARYING |= {"checksum"}  # of a file that holds one of them
IGNORED = re.compile(r"tensorboard/|\.checked\.json$|curves\.png$|index\.html$|\.(md|png|svg|gif)$|hardware\.txt$")


@dataclass(frozen=True)
class Workshop:
    """The folder with a snapshot before each stage and after it."""

    folder: Path

    @contextmanager
    def copy(self, stage: str, when: str) -> Iterator[Path]:
        """Yields a copy of the workspace "before" or "after" a stage. It is removed afterwards."""
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            place = Path(scratch) / "workspace"
            shutil.copytree(self.folder / f"{when} {stage}", place, symlinks=True)
            yield place


def prepare(folder: Path) -> Workshop:
    """Makes the snapshots of all stages."""
    for module in ("trainer", "tester", "packing", "report", "experiments", "verify", "synthetic.dancers"):
        importlib.import_module(f"src.{module}")
    # Nothing is computed before the forks: OpenMP waits for ever in the fork of a process whose threads have worked.
    for module in ("matplotlib.pyplot", "torchvision.utils", "torch.utils.tensorboard", "imageio.v3"):
        importlib.import_module(module)
    importlib.import_module("torchmetrics.functional.image")
    workshop = Workshop(folder)
    begin = folder / "begin"
    (begin / "configs" / "experiments").mkdir(parents=True)
    (begin / "configs" / "tiny.toml").write_text(CONFIG)
    (begin / "configs" / "experiments" / "grid.toml").write_text(GRID)
    options = dict(zip(DRAWN.split()[::2], DRAWN.split()[1::2], strict=True))
    draw = " ".join(f"{name.replace('--num-', '--')} {number}" for name, number in options.items())
    made = command(begin, f"synthetic.dancers dance pictures {draw}")
    assert made.code == 0, made.errors
    for stage, words in COMMANDS.items():
        before = folder / f"before {stage}"
        shutil.copytree(folder / f"after {NEEDS[stage][-1]}" if NEEDS[stage] else begin, before, symlinks=True)
        after = folder / f"after {stage}"
        shutil.copytree(before, after, symlinks=True)
        done = command(after, words)
        assert done.code == 0, f"{stage}: {done.output}{done.errors}"
    return workshop


def command(
    workspace: Path,
    words: str,
    fault: Fault | None = None,
    *,
    limits: Sequence[tuple[int, int]] = (),
    variables: dict[str, str | None] | None = None,
    root: Path | None = None,
    timeout: float = 300,
) -> Result:
    """Runs a command of src in a workspace, in a fork of this process and in its own process group.

    limits: (resource, number) for `setrlimit`. variables: of the environment; None removes one. root: where operations
    count (default: the workspace).
    """
    with tempfile.TemporaryDirectory() as scratch:
        process = start(workspace, words, Path(scratch), fault, limits=limits, variables=variables, root=root)
        return finish(process, Path(scratch), timeout)


def start(workspace: Path, words: str, scratch: Path, fault: Fault | None = None, **options: Any) -> int:
    """Starts a command as `command` does, and returns the number of its process."""
    process = os.fork()
    if process == 0:
        _become(lambda: _run(words), workspace, scratch, fault or Fault(), **options)
    return process


def finish(process: int, scratch: Path, timeout: float) -> Result:
    """Waits for a command and returns how it has ended; kills it after `timeout` seconds (code None is -99)."""
    deadline = time.monotonic() + timeout
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() > deadline:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            code = -99
            break
        time.sleep(0.005)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # children that have outlived it would disturb the next command
    texts = [(scratch / name).read_text(errors="replace") for name in ("output", "errors")]
    return Result(code, *texts, (scratch / "operations").read_text(errors="replace").splitlines())


def _become(
    main: Callable[[], None],
    workspace: Path,
    scratch: Path,
    fault: Fault,
    *,
    limits: Sequence[tuple[int, int]] = (),
    variables: dict[str, str | None] | None = None,
    root: Path | None = None,
) -> None:
    """Turns this forked process into a command that ends with the exit code of `main`."""
    code = 1
    try:
        os.setsid()
        os.chdir(workspace)
        for name, descriptor in (("output", 1), ("errors", 2)):
            os.dup2(os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.modules["__main__"] = type(sys)("__main__")  # so that processes of a pool do not import the attack
        for name, text in (variables or {}).items():
            os.environ.pop(name, None) if text is None else os.environ.update({name: text})
        arm(root or workspace, scratch, fault)
        for kind, number in limits:
            resource.setrlimit(kind, (number, number))
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # what a user would see as a traceback
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _run(words: str) -> None:
    module, *sys.argv[1:] = words.split()
    sys.argv[0] = module
    sys.orig_argv = ["python", "-m", f"src.{module}", *sys.argv[1:]]
    run_main(importlib.import_module(f"src.{module}").main)


def difference(expected: Path, found: Path) -> str | None:
    """Returns the first thing in which two workspaces differ, apart from measured times; None if there is nothing."""
    names = [_names(folder) for folder in (expected, found)]
    if names[0] != names[1]:
        return f"only one has {sorted(names[0] ^ names[1])[0]}"
    for name in sorted(names[0]):
        if not IGNORED.search(name) and (other := _difference(expected / name, found / name)):
            return f"{name}: {other}"
        if name.endswith((".png", ".gif")) and "tensorboard" not in name:
            with Image.open(found / name) as picture:
                picture.load()
    return None


def _names(folder: Path) -> set[str]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if "tensorboard/" not in name and not name.endswith(".checked.json")}


def _difference(expected: Path, found: Path) -> str | None:
    if expected.suffix == ".pt":
        return first_difference(*(_known(torch.load(path, weights_only=True)) for path in (expected, found)))
    if expected.suffix == ".npy":
        return None if np.array_equal(np.load(expected), np.load(found)) else "another array"
    if expected.suffix in (".json", ".jsonl"):
        tables = [[_known(json.loads(line)) for line in _texts(path)] for path in (expected, found)]
        return first_difference(*tables)
    return None if expected.read_bytes() == found.read_bytes() else "other bytes"


def _texts(path: Path) -> list[str]:
    text = path.read_text()
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _known(value: Any) -> Any:
    """Returns a value without what is measured."""
    if isinstance(value, dict):
        return {key: _known(inner) for key, inner in value.items() if key not in VARYING}
    return [_known(inner) for inner in value] if isinstance(value, list | tuple) else value
