"""The commands of `pose-video`: those of make, and a mistake is told before torch is imported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from src.commands import COMMANDS, main
from tests.conftest import ROOT

# Prints the CPU seconds and the slow modules that a command has imported, after the command has ended in any way.
MEASURED = """
import atexit, resource, sys
SLOW = ("torch", "pandas", "matplotlib", "tensorboard", "sklearn", "kaggle", "torchvision", "torchmetrics", "imageio")
def tell():
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{used.ru_utime + used.ru_stime:.2f}", *(name for name in SLOW if name in sys.modules), file=sys.stderr)
atexit.register(tell)
from src.base.console import run_main
from src.commands import main
run_main(main)
"""
OWN = {"setup", "lock", "demo", "test", "torture", "audit", "lint", "format", "check", "clean", "help"}  # of make alone
MORE = {"scores", "download", "check-csv"}  # parts of targets, and the check of a csv of another program


def test_every_target_is_a_command() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert targets - OWN == set(COMMANDS) - MORE
    assert set(re.findall(r"-m src ([a-z-]+)", makefile)) == set(COMMANDS) - {"check-csv"}
    assert not re.search(r"-m src\.", makefile)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--help", ""),
        ("train --help", ""),
        ("evaluate --help", ""),
        ("check-csv --help", ""),
        ("data --help", ""),
        ("submit --help", ""),
        ("report --help", ""),
        ("trian demo", "error: there is no command trian; did you mean train?"),
        ("train dmeo", "error: configs/dmeo.toml does not exist; did you mean RUN=demo?"),
        ("evaluate dmeo", "error: there is no run dmeo; did you mean RUN=demo?"),
        ("submission dmeo", "error: there is no run dmeo; did you mean RUN=demo?"),
        ("train demo --set training.num_epohcs=3", "error: SET: unknown setting training.num_epohcs; did you mean"),
        ("evaluate demo --set evaluation.latnet=mean", "error: SET: unknown setting evaluation.latnet; did you mean"),
        ("predict demo --out x.gif", "error: missing: FRAME=first.png, the picture of the first frame; POSES=folder"),
        ("predict demo --frame 0.png --poses p --out x.avi", "error: OUT=x.avi; needed: a name that ends in .gif"),
        ("predict demo --frame 0.png --poses p --out bad", "error: OUT=bad exists; needed: a new folder"),
        ("cost demo --gpu t5", "error: GPU=t5 is not known; needed: one of t4"),
        ("experiments grdi", "error: configs/experiments/grdi.toml does not exist; did you mean GRID=grid?"),
        ("check-csv bad.csv", "error: bad.csv: "),
    ],
)
def test_a_mistake_is_told_before_torch_is_imported(words: str, line: str, tmp_path: Path) -> None:
    for folder in ("configs/experiments", "runs/demo"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("configs/demo.toml", "configs/experiments/grid.toml"):
        (tmp_path / file).write_text("seed = 1\n", encoding="utf-8")
    (tmp_path / "runs/demo/config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "bad").write_bytes(b"")
    (tmp_path / "bad.csv").write_text("frame,a,b\n0,1,2\n", encoding="utf-8")
    command = [sys.executable, "-c", MEASURED, f"--project={tmp_path}", *words.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    *said, (seconds, *imported) = done.stderr.splitlines()[:-1], done.stderr.splitlines()[-1].split()
    print(f"{words}: {seconds} s of CPU")
    assert imported == []
    assert done.returncode == (2 if line else 0)
    assert done.stderr.startswith(line) and (line or said == [[]])


def test_a_folder_without_configurations_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, line in ((["train", "demo"], "name it with --project"), (["--project", "x", "train"], "--project x")):
        monkeypatch.setattr("sys.argv", ["pose-video", *words])
        with pytest.raises(ValueError, match=line):
            main()


def test_the_command_works_from_any_folder(tmp_path: Path) -> None:
    place = tmp_path / "a project"
    (place / ".venv/bin").mkdir(parents=True)
    (place / "configs").mkdir()
    (place / "configs/demo.toml").write_text("seed = 1\n", encoding="utf-8")
    (place / "src").symlink_to(ROOT / "src")
    python = place / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    command = place / ".venv/bin/pose-video"
    command.write_bytes((ROOT / ".ci/pose-video").read_bytes())
    for words in (["--project", str(place)], [f"--project={place}"]):
        asked = ["sh", str(command), *words, "train", "dmeo"]
        done = subprocess.run(asked, cwd="/", capture_output=True, text=True, check=False)
        assert done.stderr == "error: configs/dmeo.toml does not exist; did you mean RUN=demo?\n"
