"""The notebook: what the folder holds, what the loopback server receives, and that the script runs there as here."""

import json
import subprocess
import sys
import zipfile
from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from kaggle_workbench import Bench, Desk, leaks, open_desk

STAGE = """
import sys
from pathlib import Path
import {package}
with Path("stages.txt").open("a") as file:
    print(*sys.argv[1:], file=file)
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with open_desk(tmp_path_factory.mktemp("kernel")) as desk:
        yield desk


def checkout(bench: Bench) -> None:
    """Makes the bench a git checkout whose stages only write down that they ran."""
    for name, package in (("packing", "json"), ("trainer", "numpy"), ("tester", "PIL.Image")):
        path = bench.folder / "src" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(STAGE.format(package=package))
    with (bench.folder / "src/packing.py").open("a") as file:
        file.write('Path("data").mkdir()\n')
    (bench.folder / "configs").mkdir()
    (bench.folder / "configs/my_run.toml").write_text('dataset = "other"\n[model]\nname = "reference_cvae"\n')
    (bench.folder / "src/untracked.py").write_text("import torch\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(bench.folder)]
    for command in (["init", "-q"], ["add", "src/packing.py", "src/trainer.py", "src/tester.py", "configs"]):
        subprocess.run([*git, *command], check=True)


def test_the_notebook_carries_the_tracked_source_and_runs_the_stages(desk: Desk) -> None:
    bench = desk.bench("notebook")
    checkout(bench)
    words = ("kernel", "--run", "my_run", "--competition", "notebook", "--folder", "kernel", "--user", "tester")
    result = desk.run(bench, *words, "--push")
    assert result.exit_code == 0, result
    (call,) = bench.competition.calls
    body = call["body"]
    assert call["method"] == "kernels.KernelsApiService/SaveKernel"
    assert (body["slug"], body["newTitle"]) == ("tester/train-my-run", "train my run")
    assert body["competitionDataSources"] == ["notebook"] and body["enableGpu"] and body["isPrivate"]
    assert "successfully pushed" in result.output and "does not resolve" not in result.output
    assert leaks(bench, [result]) == []
    script = (bench.folder / "kernel/run.py").read_text()
    assert body["text"] == script and len(script) < 1_000_000
    again = desk.run(bench, *words)
    assert "kaggle kernels push -p kernel" in again.output and (bench.folder / "kernel/run.py").read_text() == script
    for parent in ("input/notebook", "input/competitions/notebook"):
        run_script(bench, script, bench.folder / parent.replace("/", "-"), parent)


def run_script(bench: Bench, script: str, kaggle: Path, data: str) -> None:
    """Runs the script where Kaggle's folders are below `kaggle`, and checks what it leaves."""
    (kaggle / data).mkdir(parents=True)
    (kaggle / "working").mkdir()
    place = kaggle / "script.py"
    place.write_text(script.replace('Path("/kaggle")', f"Path({str(kaggle)!r})"))
    subprocess.run([sys.executable, str(place)], check=True, capture_output=True)
    assert (kaggle / "working/stages.txt").read_text().splitlines() == [
        f"--source {kaggle / data} --dataset other",
        "configs/my_run.toml",
        "evaluate my_run",
        "submission my_run",
    ]
    assert not (kaggle / "working/data").exists()
    with zipfile.ZipFile(BytesIO(b64decode(script.split('SOURCE = """')[1].split('"""', maxsplit=1)[0]))) as carried:
        assert sorted(carried.namelist()) == [
            "configs/my_run.toml",
            "src/packing.py",
            "src/tester.py",
            "src/trainer.py",
        ]
        assert all(carried.read(name) == (bench.folder / name).read_bytes() for name in carried.namelist())
    assert "PACKAGES = {'PIL': 'pillow', 'numpy': 'numpy'}" in script


def test_without_data_the_script_says_what_to_do(desk: Desk) -> None:
    bench = desk.bench("no-data")
    checkout(bench)
    asked = desk.run(bench, "kernel", "--run", "my_run", "--competition", "no-data", "--folder", "kernel")
    assert "kernel holds tester/train-my-run" in asked.output  # the client told who we are
    result = subprocess.run(
        [sys.executable, "run.py"], cwd=bench.folder / "kernel", capture_output=True, text=True, check=False
    )
    assert result.returncode == 1 and "the data of no-data is not attached; add it under Input" in result.stderr
    assert json.loads((bench.folder / "kernel/kernel-metadata.json").read_text())["code_file"] == "run.py"


def test_a_config_that_would_not_travel_is_refused(desk: Desk) -> None:
    bench = desk.bench("untracked")
    words = ("kernel", "--run", "other", "--competition", "untracked", "--folder", "kernel", "--user", "tester")
    assert "git tracks no file of src/ here" in desk.run(bench, *words).error
    checkout(bench)
    assert "configs/other.toml is not tracked by git" in desk.run(bench, *words).error


def test_a_notebook_that_kaggle_refuses_is_an_error(desk: Desk) -> None:
    bench = desk.bench("refused")
    checkout(bench)
    words = (
        "kernel",
        "--run",
        "my_run",
        "--competition",
        "refused",
        "--folder",
        "kernel",
        "--user",
        "tester",
        "--push",
    )
    bench.competition.push_error = "Maximum batch GPU session count of 2 reached."
    result = desk.run(bench, *words)
    assert result.exit_code == 2 and "Maximum batch GPU session count of 2 reached." in result.error
