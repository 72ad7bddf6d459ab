"""What documents name exists, what exists is named, and nothing in the checkout points to one machine or registry."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.reporting.comparison import read_comparison
from tests.conftest import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = dict(re.findall(r"^([a-z-]+):[^#\n]*## (.+)$", MAKEFILE, re.MULTILINE))
IGNORED = {".git", *re.findall(r"^([\w./]+)/$", (ROOT / ".gitignore").read_text(), re.MULTILINE)}  # folders
TEXT = {".md", ".py", ".toml", ".yml", ".yaml", ".lock", ".json", ".jsonl", ".jinja", ""}  # suffixes
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MEASURED = {  # headings of the README's tables
    "score (dB)": "score",
    "validation take (dB)": "score",
    "held out (dB)": "held_out_score",
    "KL (nats a frame)": "kl_nats",
    "between samples (dB)": "psnr_between_samples",
    "of vague poses (dB)": "psnr_between_samples_vague",
    "with other clips' actions": "score_shuffled_actions",
    "and positions": "score_shuffled_conditions",
    "best of 4 samples": "score_best_of_n",
}
documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@documents
def test_commands_exist(path: Path) -> None:
    commands = re.findall(r"(?:`|^|\s{2}|\| )make ([a-z-]+)", read(path), re.MULTILINE)
    assert set(commands) <= TARGETS.keys() | {"check"}
    for run in re.findall(r"\bRUN=([\w-]+)", read(path)):
        assert (ROOT / "configs" / f"{run}.toml").is_file(), f"RUN={run}"
    for grid in re.findall(r"\bGRID=(\S+\.toml)", read(path)):
        assert (ROOT / grid).is_file(), f"GRID={grid}"
    for variable in re.findall(r"make [a-z-]+(?: \w+=\S+)*? (\w+)=", read(path)):
        assert re.search(rf"^{variable} \?=", MAKEFILE, re.MULTILINE), f"{variable}= is no variable of the Makefile"


@documents
def test_files_exist(path: Path) -> None:
    text = read(path)
    named = set(re.findall(r"\b((?:src|tests|configs|docs|\.ci)/[\w./-]*\w)", text))
    named |= set(re.findall(r"\b(reports/[\w./-]+\.md)", text))
    named |= {f"src/{module}.py" for module in re.findall(r"-m src\.(\w+)", text)}
    assert {name for name in named if not (ROOT / name).exists()} == set()
    links = {link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link}
    assert {link for link in links if not (path.parent / link).exists()} == set()
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
        (["trian", "RUN=x"], "there is no target trian; known: help setup"),
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


def test_a_target_reads_the_variables_that_its_recipe_names() -> None:
    recipes = dict(re.findall(r"^([a-z]+): .*##.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE))
    declared = dict(re.findall(r"^reads\.([a-z]+) := (.*)$", MAKEFILE, re.MULTILINE))
    variables = re.compile(r"\(call quoted,([A-Z]+)\)|\(value ([A-Z]+)\)")
    for target, recipe in recipes.items():
        named = {first or second for first, second in variables.findall(recipe)}
        assert named == set(declared.get(target, "").split()) or target == "help", target


def tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Header and rows of each table of a Markdown text."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        header, _, *rows = ([cell.strip(" *") for cell in line.strip("|").split("|")] for line in block.splitlines())
        yield header, rows


def test_every_mean_and_spread_is_that_of_its_arm() -> None:
    """A row names its arm, `arm` or `grid/arm`, and its table the grid, if not the row."""
    checked = 0
    for header, rows in tables(read(ROOT / "README.md")):
        for row in (row for row in rows if "±" in "".join(row)):
            (name,) = re.findall(r"`([\w/]+)`", row[0])
            grid, arm = name.split("/") if "/" in name else (header[0].split("`")[1], name)
            comparison = read_comparison(ROOT / "reports" / f"{grid}.json")
            assert comparison is not None
            spreads = comparison.arms[arm]
            for heading, cell in list(zip(header, row, strict=True))[1:]:
                if "±" in cell:
                    spread = spreads[MEASURED[heading]]
                    places = len(cell.partition(".")[2].partition(" ")[0])
                    assert cell == f"{spread.mean:.{places}f} ± {spread.deviation:.{places}f}", (name, heading)
                    checked += 1
    assert checked > 20


def test_every_other_mean_and_spread_stands_in_a_report() -> None:
    reports = "".join(read(path) for path in (ROOT / "reports").glob("*.md") if path.name != "LOG.md")
    spreads = re.findall(r"\d+\.\d+ ± \d+\.\d+", read(ROOT / "README.md"))
    assert [spread for spread in spreads if spread not in reports] == []


def test_the_baselines_of_the_real_sample_are_those_of_the_report() -> None:
    known = json.loads(read(ROOT / "reports/dance_mini.json"))["runs"][0]["baselines"]
    stated = next(rows for header, rows in tables(read(ROOT / "README.md")) if header[0].startswith("real sample"))
    assert {row[0]: row[1] for row in stated if row[0] in known} == {name: f"{known[name]:.2f}" for name in known}


def test_the_tree_has_every_source_file_once() -> None:
    (tree,) = re.findall(r"## What is where\s+```\n(.*?)```", read(ROOT / "README.md"), re.DOTALL)
    listed = [name for name in re.findall(r"\b\w+\.py\b", tree) if not name.startswith(("test_", "conftest"))]
    present = [path.name for path in (ROOT / "src").rglob("*.py") if path.name != "__init__.py"]
    assert sorted(listed) == sorted(present)


def texts(folder: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Name and text of each file of the checkout that holds text."""
    for path in sorted(folder.iterdir()):
        name = str(path.relative_to(ROOT))
        if path.is_dir() and name not in IGNORED and path.name not in IGNORED:
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
