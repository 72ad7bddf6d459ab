"""The order in which src is read: a file imports only from files above its own, and none is long."""

import ast
from itertools import chain
from pathlib import Path

import pytest

from tests.conftest import ROOT

ORDER = (
    *("base.system_errors", "base.processes", "base.console", "base.children", "base.command_line"),
    *("base.names", "base.reading", "base.ownership"),
    *("base.files", "base.provenance", "base.distributed", "base.gpus", "base.devices", "base.bfloat16"),
    *("base.randomness", "base.settings", "base.systems", "intake.facts", "dance.skeleton", "models.configs", "config"),
    *("training.saved_config", "commands", "__main__"),
    *("evaluation.scores", "evaluation.final", "dance.schema", "pushing.schema"),
    *("maths.schedules", "maths.losses", "maths.metrics"),
    *("synthetic.rasteriser", "synthetic.writing", "synthetic.dancer_drawing", "synthetic.dancers"),
    *("synthetic.tabletop_drawing", "synthetic.tabletop"),
    *("intake.file_names", "intake.containers", "intake.sources", "intake.pictures"),
    *("intake.pairing", "intake.dance_listing", "intake.takes"),
    *("intake.arrays", "intake.manifest", "intake.doubts", "intake.chunks"),
    *("intake.dance", "intake.pushing", "intake.layouts", "intake.tables", "intake.clip_folders"),
    *("intake.tfrecords", "intake.bair", "training.resolution"),
    *("packing", "dance.augmentations", "dataset", "pushing.data"),
    *("vae_modules", "models.svg_modules", "models.lab_cvae", "models.reference_cvae"),
    *("models.svg", "models.conv_svg", "models.interface"),
    *(
        "base.cuda_graphs",
        "evaluation.rollout",
        "evaluation.validation",
        "dance.prediction",
        "dance.validation",
        "pushing.validation",
    ),
    *("training.clock", "training.checkpoint", "training.log", "training.guard"),
    *("training.precision", "training.idle_settings", "training.dial"),
    *("training.update", "training.stop_signals", "trainer", "dance.csv_reading", "dance.csv_faults"),
    *("submission", "reporting.plots", "reporting.videos", "reporting.clips"),
    *("reporting.results", "reporting.tables"),
    *("reporting.kept", "reporting.comparison", "reporting.curves", "reporting.page"),
    *("evaluation.trained", "dance.scores", "dance.pictures", "dance.cost"),
    *("pushing.scores", "pushing.pictures", "pushing.cost"),
    *(
        "evaluation.protocols",
        "tester",
        "measure",
        "experiments",
        "compare",
        "competition.ledger",
        "figures",
        "report",
        "benchmark",
        "cost",
        *("speed.clock", "speed.steps", "speed.rollouts", "speed.whole_run", "gpu_check"),
    ),
    *("competition.recorder", "competition.credentials", "competition.answers", "competition.errors"),
    *("competition.client", "competition.queries"),
    *("competition.download", "competition.request", "competition.scores", "competition.submit"),
    *("competition.kernel_script", "competition.kernel_session", "competition.kernel"),
    *("kaggle_client", "verify"),
)
FILES = sorted(path for path in (ROOT / "src").rglob("*.py") if path.name != "__init__.py")
PACKAGES = {"src"} | {f"src.{path.parent.name}" for path in (ROOT / "src").glob("*/__init__.py")}
STAGES = ("trainer", "tester", "packing", "experiments")  # talk through files, not imports


def name(path: Path) -> str:
    """A file's name in `ORDER`, as it is imported."""
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)


def imports(path: Path) -> set[str]:
    """The files of src that a file imports, wherever it does so; for type checkers alone does not count."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            if node.module in PACKAGES:
                package = node.module.removeprefix("src").removeprefix(".")
                found |= {f"{package}.{alias.name}".removeprefix(".") for alias in node.names}
            elif node.module and node.module.startswith("src."):
                found.add(node.module.removeprefix("src."))
        elif isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "src" for alias in node.names), f"{path.name}: import src..."
    return found


def test_every_file_has_its_place() -> None:
    assert sorted(ORDER) == sorted(map(name, FILES))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_imports_only_from_files_before_it(path: Path) -> None:
    assert imports(path) <= set(ORDER[: ORDER.index(name(path))])


def test_stages_do_not_import_each_other() -> None:
    for stage in STAGES:
        assert not imports(ROOT / "src" / f"{stage}.py") & set(STAGES) - {stage}, stage


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_is_long(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, node.name


@pytest.mark.parametrize("path", [ROOT / "src" / path for path in ("dance/scores.py", "pushing/scores.py")], ids=name)
def test_scores_compute_and_do_not_draw(path: Path) -> None:
    """Neither a scorer, nor a validation, nor anything that they import, wherever in src it stands."""
    seen: set[str] = set()
    wanted = {name(path), *(name(found) for found in FILES if found.parent.name == "evaluation")}
    while wanted:
        file = wanted.pop()
        seen.add(file)
        found = ROOT / "src" / f"{file.replace('.', '/')}.py"
        assert "matplotlib" not in found.read_text(encoding="utf-8"), file
        wanted |= imports(found) - seen
    assert "reporting.plots" not in seen and {"dance.validation", "pushing.validation"} & seen


def test_no_two_classes_share_a_name() -> None:
    names = [
        node.name
        for path in FILES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    assert {found for found in names if names.count(found) > 1} == set()


def test_names_say_something() -> None:
    everything = chain((ROOT / "src").rglob("*.py"), (ROOT / "tests").iterdir())
    assert not {path.stem for path in everything} & {"utils", "helpers", "common", "misc"}
