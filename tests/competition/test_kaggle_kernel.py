"""Tests of the notebook: the folder's content, the upload to the loopback server, and a run of the script."""

import json
import os
import re
import runpy
import subprocess
import sys
import zipfile
from base64 import b64decode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from kaggle_workbench import Harness, Workspace, leaks, open_harness

from src import trainer
from src.base.provenance import commit
from src.config import Config

STAGE = """
import sys
from pathlib import Path
import {package}
with Path("stages.txt").open("a") as file:
    print(*sys.argv[1:], file=file)
"""


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with open_harness(tmp_path_factory.mktemp("kernel"), forked=True) as harness:
        yield harness


def checkout(workspace: Workspace) -> None:
    """Makes the workspace a git checkout. Its stages only record that they have run."""
    for name, package in (("packing", "json"), ("trainer", "numpy"), ("tester", "PIL.Image")):
        path = workspace.folder / "src" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(STAGE.format(package=package))
    with (workspace.folder / "src/packing.py").open("a") as file:
        file.write('Path("data").mkdir()\n')
    with (workspace.folder / "src/tester.py").open("a") as file:
        file.write('Path("submissions").mkdir(exist_ok=True)\n')
        file.write("""Path("submissions/my_run.json").write_text('{"run": "my_run", "commit": null}')\n""")
    (workspace.folder / "configs").mkdir()
    (workspace.folder / "configs/my_run.toml").write_text('dataset = "other"\n[model]\nname = "reference_cvae"\n')
    (workspace.folder / "src/untracked.py").write_text("import torch\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(workspace.folder)]
    for command in (["init", "-q"], ["add", "src/packing.py", "src/trainer.py", "src/tester.py", "configs"]):
        subprocess.run([*git, *command], check=True)


def test_the_notebook_contains_the_tracked_source_and_runs_the_stages(harness: Harness) -> None:
    workspace = harness.workspace("notebook")
    checkout(workspace)
    words = ("kernel", "--run", "my_run", "--competition", "notebook", "--folder", "kernel", "--user", "tester")
    result = harness.run(workspace, *words, "--push")
    assert result.exit_code == 0, result
    (call,) = workspace.competition.calls
    body = call["body"]
    assert call["method"] == "kernels.KernelsApiService/SaveKernel"
    assert (body["slug"], body["newTitle"]) == ("tester/train-my-run", "train my run")
    assert body["competitionDataSources"] == ["notebook"] and body["enableGpu"] and body["isPrivate"]
    assert body["machineShape"] == "NvidiaTeslaT4"
    assert "successfully pushed" in result.output and "does not resolve" not in result.output
    assert leaks(workspace, [result]) == []
    script = (workspace.folder / "kernel/run.py").read_text()
    assert body["text"] == script and len(script) < 1_000_000
    again = harness.run(workspace, *words)
    assert "\n  .venv/bin/kaggle kernels output tester/train-my-run --path . " in again.output
    assert (
        ".venv/bin/kaggle kernels push -p kernel" in again.output
        and (workspace.folder / "kernel/run.py").read_text() == script
    )
    for parent in ("input/notebook", "input/competitions/notebook"):
        run_script(workspace, script, workspace.folder / parent.replace("/", "-"), parent)


def run_script(workspace: Workspace, script: str, kaggle: Path, data: str) -> None:
    """Runs the script with Kaggle's folders below `kaggle`, and checks its output."""
    (kaggle / data).mkdir(parents=True)
    (kaggle / "working").mkdir()
    place = kaggle / "script.py"
    place.write_text(script.replace('Path("/kaggle")', f"Path({str(kaggle)!r})"))
    (kaggle / "stub").mkdir()
    (kaggle / "stub/torch.py").write_text(
        "class cuda:\n    is_available = lambda: False\n"
    )  # importing the real one is slow
    environment = os.environ | {"PYTHONPATH": str(kaggle / "stub")}
    subprocess.run([sys.executable, str(place)], check=True, capture_output=True, env=environment)
    assert (kaggle / "working/stages.txt").read_text().splitlines() == [
        f"--source {kaggle / data} --dataset other",
        "configs/my_run.toml --set training.precision=float32",  # there is no GPU with bfloat16 here
        "evaluate my_run",
        "submission my_run",
    ]
    assert not (kaggle / "working/data").exists()
    provenance = json.loads((kaggle / "working/submissions/my_run.json").read_text())
    known = re.search(r"^COMMIT = '?(\w+(?:-dirty)?)'?$", script, re.MULTILINE)[1]
    assert provenance == {"run": "my_run", "commit": known if commit() else None}
    with zipfile.ZipFile(BytesIO(b64decode(script.split('SOURCE = """')[1].split('"""', maxsplit=1)[0]))) as carried:
        assert sorted(carried.namelist()) == [
            "configs/my_run.toml",
            "src/packing.py",
            "src/tester.py",
            "src/trainer.py",
        ]
        assert all(carried.read(name) == (workspace.folder / name).read_bytes() for name in carried.namelist())
    assert "PACKAGES = {'PIL': 'pillow', 'numpy': 'numpy'}" in script


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "float32"), ((8, 0), "bfloat16"), (None, "float32")])
def test_the_trainer_gets_a_precision_that_the_gpu_supports(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, precision: str
) -> None:
    workspace = harness.workspace(f"gpu-{precision}-{capability is None:d}")
    checkout(workspace)
    config = workspace.folder / "configs/my_run.toml"
    config.write_text(config.read_text() + '[training]\nprecision = "bfloat16"\n')
    words = ("--run", "my_run", "--competition", workspace.competition.slug, "--folder", "kernel", "--user", "tester")
    assert harness.run(workspace, "kernel", *words).exit_code == 0
    monkeypatch.setattr("torch.cuda.is_available", lambda: capability is not None)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: capability)
    arguments = runpy.run_path(str(workspace.folder / "kernel/run.py"))["precision_arguments"]()
    seen: list[Config] = []
    monkeypatch.setattr(trainer, "train", lambda config, folder: seen.append(config) or True)
    monkeypatch.setattr("sys.argv", ["trainer", str(config), *arguments])
    with pytest.raises(SystemExit, match="0"):
        trainer.main()
    assert seen[0].training.precision == precision


def test_an_old_torch_is_refused_before_anything_runs(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = harness.workspace("old-torch")
    checkout(workspace)
    words = ("--run", "my_run", "--competition", "old-torch", "--folder", "kernel", "--user", "tester")
    assert harness.run(workspace, "kernel", *words).exit_code == 0
    main = runpy.run_path(str(workspace.folder / "kernel/run.py"))["main"]
    for version, says in (("2.5.1+cu121", "torch 2.5.1.* is installed, 2.6 is needed"), ("2.10.0", "is not attached")):
        monkeypatch.setattr("importlib.metadata.version", lambda name, version=version: version)
        with pytest.raises(SystemExit, match=says):
            main(workspace.folder)


def test_a_title_that_is_too_long_for_kaggle_is_refused(harness: Harness) -> None:
    workspace = harness.workspace("title")
    words = ("--competition", "title", "--folder", "kernel", "--user", "tester")
    assert "has 51 characters, Kaggle allows 50" in harness.run(workspace, "kernel", "--run", "r" * 45, *words).error
    assert "git tracks no file" in harness.run(workspace, "kernel", "--run", "r" * 44, *words).error


def test_without_data_the_script_explains_what_to_do(harness: Harness) -> None:
    workspace = harness.workspace("no-data")
    checkout(workspace)
    asked = harness.run(workspace, "kernel", "--run", "my_run", "--competition", "no-data", "--folder", "kernel")
    assert "kernel holds tester/train-my-run" in asked.output  # the user's name comes from the client
    result = subprocess.run(
        [sys.executable, "run.py"], cwd=workspace.folder / "kernel", capture_output=True, text=True, check=False
    )
    assert result.returncode == 1 and "the data of no-data is not attached; add it under Input" in result.stderr
    assert json.loads((workspace.folder / "kernel/kernel-metadata.json").read_text())["code_file"] == "run.py"


def test_an_untracked_config_is_refused(harness: Harness) -> None:
    workspace = harness.workspace("untracked")
    words = ("kernel", "--run", "other", "--competition", "untracked", "--folder", "kernel", "--user", "tester")
    assert "git tracks no file of src/ here" in harness.run(workspace, *words).error
    checkout(workspace)
    assert "configs/other.toml is not tracked by git" in harness.run(workspace, *words).error


def test_a_notebook_that_kaggle_refuses_is_an_error(harness: Harness) -> None:
    workspace = harness.workspace("refused")
    checkout(workspace)
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
    workspace.competition.push_error = "Maximum batch GPU session count of 2 reached."
    result = harness.run(workspace, *words)
    assert result.exit_code == 2 and "Maximum batch GPU session count of 2 reached." in result.error
