"""What documents name exists, what exists is named, and nothing in the checkout points to one machine or registry."""

import ast
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.config import Config, flatten
from src.models.configs import MODELS
from src.submission import FRAME_SHAPE
from tests.conftest import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = dict(re.findall(r"^([a-z-]+):[^#\n]*## (.+)$", MAKEFILE, re.MULTILINE))
RECIPES = dict(re.findall(r"^([a-z]+):.*##.*\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z]+) \?=", MAKEFILE, re.MULTILINE))
IGNORED = re.findall(r"^([\w./]+?)/?$", (ROOT / ".gitignore").read_text(), re.MULTILINE)  # folders; /name: at the top
EXAMPLE = {"src/models/tint_cvae.py", "configs/tint.toml"}  # what CONTRIBUTING.md tells to write
TEXT = {".md", ".py", ".toml", ".yml", ".yaml", ".lock", ".json", ".jsonl", ".jinja", ""}  # suffixes
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@documents
def test_commands_exist(path: Path) -> None:
    text = read(path)
    commands = re.findall(r"(?:`|^|\s{2}|\| )make ([a-z-]+)", text, re.MULTILINE)
    assert set(commands) <= TARGETS.keys()
    for run in re.findall(r"\bRUN=([\w-]+)", text):
        assert (ROOT / "configs" / f"{run}.toml").is_file(), f"RUN={run}"
    for grid in re.findall(r"\bGRID=(\S+\.toml)", text):
        assert (ROOT / grid).is_file(), f"GRID={grid}"


@documents
def test_variables_exist_and_are_read(path: Path) -> None:
    """Every NAME=value is a variable of the Makefile, and after a target one that its recipe reads."""
    text = read(path)
    assert set(re.findall(r"(?<![\w-])([A-Z]+)=", text)) <= VARIABLES
    for target, words in re.findall(r"make ([a-z-]+)((?:\s+[A-Z]+=(?:\"[^\"]*\"|[^\s`]+))+)", text):
        given = set(re.findall(r"([A-Z]+)=", re.sub(r"\"[^\"]*\"", "", words)))
        assert given <= named_in(RECIPES[target]) | {"PYTHON"}, f"make {target}{words}"


def test_usage_names_every_target_and_variable() -> None:
    text = read(ROOT / "docs/usage.md")
    assert TARGETS.keys() - set(re.findall(r"make ([a-z-]+)", text)) == set()
    assert VARIABLES - set(re.findall(r"[`\s]([A-Z]+)(?:=|`)", text)) == set()
    runs = {path.stem for path in (ROOT / "configs").glob("*.toml")}
    grids = {path.stem for path in (ROOT / "configs/experiments").glob("*.toml")}
    assert (runs | grids) - set(re.findall(r"`(\w+)`", text)) == set()


@documents
def test_settings_exist(path: Path) -> None:
    known = {key for name in MODELS for key in flatten(Config.model_construct(model=MODELS[name].model_construct()))}
    sections = "model|augmentation|kl_weight|training|evaluation"
    named = set(re.findall(rf"(?<![\w./])((?:{sections})(?:\.[a-z_]+)+)(?![\w./])", read(path)))
    assert named - known - {key.rpartition(".")[0] for key in known} == set()


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings: lower case, punctuation dropped, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", read(path), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@documents
def test_files_exist(path: Path) -> None:
    text = read(path)
    named = set(re.findall(r"\b((?:src|tests|configs|docs|examples|\.ci)/[\w./-]*\w)", text))
    named |= set(re.findall(r"\b(reports/[\w./-]+\.md)", text))
    named |= {f"src/{module}.py" for module in re.findall(r"-m src\.(\w+)", text)}
    assert {name for name in named - EXAMPLE if not (ROOT / name).exists()} == set()
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text):
        if "://" not in link:
            target = path.parent / link if link else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), f"{link}#{anchor}"
    known = {file.name for folder in ("src", "tests") for file in (ROOT / folder).rglob("*.py")}
    assert set(re.findall(r"`(\w+\.py)\b", text)) <= known


def test_make_lists_every_target() -> None:
    assert TARGETS.keys() >= {"help", "setup", "demo", "data", "train", "evaluate", "submission", "predict", "report"}
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target, purpose in TARGETS.items():
        assert re.search(rf"^  make {target} +{re.escape(purpose)}$", listed, re.MULTILINE), target
    for variable in re.findall(r"^([A-Z]+) \?=", MAKEFILE, re.MULTILINE):
        if variable != "PYTHON":
            assert re.search(rf"^  {variable}\b", listed, re.MULTILINE), variable
    (phony,) = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == TARGETS.keys() | set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trian", "RUN=x"], r"there is no target trian; did you mean train\?"),
        (["kaggle"], "there is no target kaggle; known: help setup"),
        (["train", "Run=x"], "Run is no variable of this Makefile; did you mean RUN?"),
        (["train", 'set=seed=1 training.loss="mse"'], "set is no variable of this Makefile; did you mean SET?"),
        (["report", "VERBOUS=1"], "VERBOUS is no variable of this Makefile; known: DATASET RUN"),
        (["data", "SOURCE=x.zip"], "DATASET=name is needed"),
        (["submission", "RUN=x", "GPUS=4"], "make submission does not read GPUS; it reads: RUN SET"),
        (["bench", "ARGS=--repeats=1"], "make bench does not read ARGS; it reads: no variable"),
        (["train", "DATASET=q"], 'make train does not read DATASET; a run reads the data set .*: SET="dataset=q"'),
        (["data", "train", "SOURCE=x.zip", "DATASET=x", "RUN=x"], None),
        (["-j2", "train", "SET=seed=1 a=b", "PYTHON=python3", "OMP_NUM_THREADS=2", "CC=gcc"], None),
        (["data", "SOURCE=x.zip", "DATASET=x"], None),
    ],
)
def test_a_variable_without_effect_is_refused(arguments: list[str], line: str | None) -> None:
    done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if line else 0), done.stderr
    assert re.search(rf"\*\*\* {line}", done.stderr) if line else not done.stderr


def named_in(recipe: str) -> set[str]:
    """The variables that a recipe reads."""
    found = re.findall(r"\(call quoted,([A-Z]+)\)|\(value ([A-Z]+)\)", recipe)
    return {first or second for first, second in found}


def test_the_values_of_variables_run_nothing(tmp_path: Path) -> None:
    text = f'it\'s $(shell touch {tmp_path}/ran) `touch {tmp_path}/ran` "$$HOME" # \\'
    done = subprocess.run(
        ["make", "-n", "train", f"DATASET={text}", f"RUN={text}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "*** make train does not read DATASET; a run reads" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["$(shell touch ran)", "`touch ran`", "$$(touch ran)", '"; touch ran; "'])
def test_the_text_of_python_runs_nothing(tmp_path: Path, text: str) -> None:
    """It is the name of a program, in one piece, which `make setup` says is not installed."""
    for name in ("Makefile", "requirements.lock", ".ci/setup", ".ci/variables.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for targets in (["help"], ["setup"]):
        done = subprocess.run(
            ["make", *targets, f"PYTHON={text}"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert not (tmp_path / "ran").exists(), targets
    assert done.returncode == 2 and done.stderr.startswith(f"error: {text} is not installed; install Python")


@pytest.mark.parametrize("name", ["RUN", "MESSAGE", "SET", "ARGS", "SOURCE", "PYTHON"])
def test_a_line_break_is_refused_in_one_line(name: str) -> None:
    done = subprocess.run(
        ["make", "-n", "submit", f"{name}=a\nb"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and f"*** {name} holds a line break; needed: one line" in done.stderr


def test_a_variable_of_the_environment_is_named_where_it_is_read() -> None:
    environment = os.environ | {"RUN": "x", "SET": "seed=1", "SIZE": "y"}
    for targets, names in ((["train"], ["RUN", "SET"]), (["train", "RUN=z"], ["SET"]), (["report"], []), ([], [])):
        command = ["make", "-n", *targets]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr.splitlines() == [f"note: {name} comes from the environment" for name in names]


@pytest.mark.parametrize("text", ["; touch ran", "$(touch ran)", "`touch ran`", "> ran", "&& touch ran", "*", "'"])
def test_the_text_of_args_runs_nothing(tmp_path: Path, text: str) -> None:
    """The words reach Python, which knows no such option."""
    script = tmp_path / "make.sh"
    words = ["make", "--no-print-directory", "-n", "submissions", f"ARGS={text}"]
    shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = shown.splitlines()[-1].replace(".venv/bin/python", sys.executable)
    script.write_text(f"cd {tmp_path}; export PYTHONPATH={ROOT}; {command}\n")
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["make.sh"]


def test_a_target_reads_the_variables_that_its_recipe_names() -> None:
    checker = runpy.run_path(str(ROOT / ".ci/variables.py"))
    reads = checker["reads_of"](MAKEFILE)
    assert reads.keys() == TARGETS.keys()
    assert reads["submission"] == ["RUN", "SET"]
    assert reads["submit"] == ["RUN", "COMPETITION", "MESSAGE", "ARGS"]
    assert reads["demo"] == [] and reads["report"] == ["RUNS", "OUT"]
    read = {name for target, names in reads.items() if target != "help" for name in names}
    assert read == set(reads["help"]) == VARIABLES - {"PYTHON"}


def tree(path: Path, heading: str) -> list[str]:
    """Paths in the tree of a document's section, by their indentation, two spaces a level; folders end in a slash."""
    (block,) = re.findall(rf"## {heading}\n.*?```\n(.*?)```", read(path), re.DOTALL)
    paths: list[str] = []
    above: list[str] = []
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        above = above[: indent // 2]
        names = re.match(r"\s*((?:[\w.-]+/? )+)", line + " ")
        assert names, line
        paths += ["".join(above) + name for name in names[1].split()]
        above.append(names[1].split()[-1])
    return paths


def test_readme_is_short() -> None:
    assert len(read(ROOT / "README.md").splitlines()) <= 160


def test_readme_shows_the_csv_of_a_frame() -> None:
    (header,) = re.findall(r"^id,0,1,2,3,4,\.\.\.,(\d+),(\d+)$", read(ROOT / "README.md"), re.MULTILINE)
    assert [int(column) for column in header] == [math.prod(FRAME_SHAPE) - 2, math.prod(FRAME_SHAPE) - 1]


def test_readme_s_tree_has_what_stands_at_the_top_of_src() -> None:
    named = {name for name in tree(ROOT / "README.md", "What is where") if name.startswith("src/")}
    present = {
        f"src/{path.name}" + ("/" if path.is_dir() else "")
        for path in (ROOT / "src").iterdir()
        if path.name not in ("__init__.py", "__pycache__")
    }
    assert named == present | {"src/"}


def test_the_long_tree_has_every_source_file_once() -> None:
    named = [name for name in tree(ROOT / "CONTRIBUTING.md", "Every file") if name.endswith(".py")]
    present = [str(path.relative_to(ROOT)) for path in (ROOT / "src").rglob("*.py") if path.name != "__init__.py"]
    assert sorted(named) == sorted(present)


def defined(path: Path) -> set[str]:
    """Names of a file's functions and classes; a method is `Class.method`."""
    names = set()
    for node in ast.parse(read(path)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@documents
def test_linked_functions_exist(path: Path) -> None:
    for name, link in re.findall(r"\[`([\w.]+)`\]\(([^)#\s]+\.py)\)", read(path)):
        assert name in defined(path.parent / link), f"{name} is not in {link}"


def test_the_walk_has_ten_stops_in_few_files() -> None:
    stops = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^## )", read(ROOT / "docs/walk.md"), re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _ in stops] == list(range(1, 11))
    files = [set(re.findall(r"\]\(\.\./(src/[\w/]+\.py)\)", text)) for _, text in stops]
    assert all(files)
    assert len(set().union(*files)) <= 20  # to be read by a newcomer


def texts(folder: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Name and text of each file of the checkout that holds text."""
    for path in sorted(folder.iterdir()):
        name = str(path.relative_to(ROOT))
        if path.name == ".git":  # a folder, or a file in a worktree
            continue
        if path.is_dir() and f"/{name}" not in IGNORED and path.name not in IGNORED:
            yield from texts(path)
        elif path.is_file() and (path.suffix in TEXT or folder.name == ".ci"):
            yield name, read(path)


def test_nothing_points_to_one_machine_or_registry() -> None:
    machine = re.compile(r"(?<![\w.])/(?:[r]oot|[w]ork|[h]ome/\w+|[U]sers/\w+)/")
    registry = re.compile(r"(?<!no-emit-)[i]ndex-url|[f]ind-links|https?://[\w.-]*(?:[p]ypi|[m]irror|[p]ythonhosted)")
    found = [name for name, text in texts() if machine.search(text) or registry.search(text)]
    assert found == []


def test_conda_users_get_the_same() -> None:
    environment = read(ROOT / "environment.yml")
    assert "--requirement requirements.lock" in environment
    assert re.findall(r"- python(\S+)", environment) == [PROJECT["requires-python"]]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_locked_with_hashes() -> None:
    blocks = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([^\s;]+)(.*?)(?=^[\w]|\Z)", LOCK, re.MULTILINE | re.DOTALL)
    locked = {normalised(name): (version, block) for name, version, block in blocks}
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for _, block in locked.values())
    declared = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in declared:
        match = re.fullmatch(r"([\w.-]+)(==|>=)([\w.]+)", requirement)
        assert match, requirement
        name, relation, wanted = match.groups()
        version = locked[normalised(name)][0]
        if relation == "==":
            assert version == wanted, requirement
        else:
            have, need = ([int(part) for part in text.split(".") if part.isdecimal()] for text in (version, wanted))
            assert have >= need, requirement
