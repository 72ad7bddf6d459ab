"""The script that runs on Kaggle, run here with its folders elsewhere and with stages that only record themselves."""

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from src.base import provenance
from src.competition.kernel_script import SessionOrder, write_kernel

TORCH = """
class cuda:
    device_count = lambda: {gpus}

class ones:
    def __init__(self, size, device): {broken}
    def sum(self): return self
    item = sum
"""
STAGE = """
import signal, sys, time
from pathlib import Path
import {package}
with Path("stages.txt").open("a") as file:
    print(Path(__file__).stem, *sys.argv[1:], file=file)
"""
PACKING = (
    STAGE.format(package="json")
    + """
Path("data").mkdir()
"""
)
TRAINER = (
    STAGE.format(package="numpy")
    + """
run = Path("runs/my_run")
run.mkdir(parents=True, exist_ok=True)
before = (run / "last.pt").read_text() if (run / "last.pt").exists() else ""
if Path("hang").exists():
    time.sleep(60)
if Path("wait").exists():
    signal.signal(signal.SIGTERM, lambda *_: ((run / "last.pt").write_text(before + "stopped "), sys.exit(130)))
    time.sleep(60)
(run / "last.pt").write_text(before + "finished")
"""
)
TESTER = (
    STAGE.format(package="PIL.Image")
    + """
Path("submissions").mkdir(exist_ok=True)
Path("submissions/my_run.json").write_text('{"run": "my_run", "commit": null}')
"""
)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout whose stages only record themselves."""
    folder = tmp_path / "checkout"
    for name in ("src/synthetic", "src/intake", "configs"):
        (folder / name).mkdir(parents=True)
    files = {"src/packing.py": PACKING, "src/trainer.py": TRAINER, "src/tester.py": TESTER}
    files |= {"src/synthetic/tabletop.py": "import pymunk", "src/intake/tfrecords.py": "import google_crc32c"}
    files |= {"configs/my_run.toml": 'dataset = "other"\n[model]\nname = "reference_cvae"\n'}
    files |= {"configs/robot.toml": 'dataset = "other"\n[model]\nname = "svg"\n[training]\nwindow = 5\n'}
    for name, text in files.items():
        (folder / name).write_text(text)
    for command in (["init", "-q"], ["add", *files]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    (folder / "src/untracked.py").write_text("import torch\n")
    monkeypatch.chdir(folder)
    return folder


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(checkout: Path, tmp_path: Path) -> Run:
    """Runs the script of a session below a folder of its own."""

    def run_session(
        place: str,
        *,
        gpus: int = 1,
        broken: str = "pass",
        slow: bool = False,
        hangs: bool = False,
        attached: str = "",
        **changes: object,
    ) -> subprocess.CompletedProcess[str]:
        kaggle = tmp_path / place
        settings = {"training_seconds": 600, "gpus": 1, "previous": None, "earlier": None, **changes}
        order = SessionOrder("my_run", "slug", place, f"tester/{place}", **settings)
        write_kernel(order, tmp_path / "kernel")
        for name in ("input/slug", "working", "stub/torch-9.0.dist-info"):
            (kaggle / name).mkdir(parents=True)
        if attached:
            (kaggle / "input/notebooks").mkdir()
            (kaggle / "input/notebooks/before").symlink_to(tmp_path / attached / "working")
        for name, wanted in (("wait", slow), ("hang", hangs)):
            if wanted:
                (kaggle / "working" / name).touch()
        (kaggle / "stub/torch.py").write_text(TORCH.format(gpus=gpus, broken=broken))
        (kaggle / "stub/torch-9.0.dist-info/METADATA").write_text("Name: torch\nVersion: 9.0\n")
        script = (tmp_path / "kernel/run.py").read_text().replace('Path("/kaggle")', f"Path({str(kaggle)!r})")
        (kaggle / "script.py").write_text(script)
        environment = os.environ | {"PYTHONPATH": str(kaggle / "stub")}
        command = [sys.executable, str(kaggle / "script.py")]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    return run_session


def stages(place: Path) -> list[str]:
    path = place / "working/stages.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_a_session_runs_the_stages_and_seals_its_output(run: Run, tmp_path: Path) -> None:
    result = run("one", gpus=2)
    assert result.returncode == 0, result
    assert result.stdout.splitlines()[0] == "session one"
    assert stages(tmp_path / "one") == [
        f"packing --source {tmp_path}/one/input/slug --dataset other",
        "trainer configs/my_run.toml --gpus 1",
        "tester evaluate my_run",
        "tester submission my_run",
    ]
    work = tmp_path / "one/working"
    written = json.loads((work / "session.json").read_text())
    assert written["session"] == "one" and written["finished"]
    assert sorted(written["files"]) == ["runs/my_run/last.pt", "submissions/my_run.json"]
    for name, sha256 in written["files"].items():
        assert hashlib.sha256((work / name).read_bytes()).hexdigest() == sha256
    assert not (work / "data").exists()
    script = (tmp_path / "kernel/run.py").read_text()
    known = re.search(r"^COMMIT = '(.*?)'", script, re.MULTILINE)[1]
    assert (work / ".commit").read_text() == known == (provenance.commit() or "")
    with zipfile.ZipFile(BytesIO(b64decode(script.split('SOURCE = """')[1].split('"""', maxsplit=1)[0]))) as carried:
        assert "src/trainer.py" in carried.namelist() and "src/untracked.py" not in carried.namelist()


def test_a_training_that_has_not_begun_when_the_time_is_over_is_a_failure(run: Run, tmp_path: Path) -> None:
    result = run("late", training_seconds=3, hangs=True)
    assert result.returncode == 1 and "src.trainer ended with exit code -15" in result.stderr
    assert not (tmp_path / "late/working/session.json").exists()


def test_training_that_takes_too_long_saves_and_the_next_session_goes_on_from_it(run: Run, tmp_path: Path) -> None:
    first = run("first", training_seconds=4, slow=True)
    assert first.returncode == 0, first
    assert "the session's time is nearly over" in first.stdout
    assert len(stages(tmp_path / "first")) == 2, "no evaluation, no csv"
    assert not json.loads((tmp_path / "first/working/session.json").read_text())["finished"]
    second = run("second", previous="first", earlier="tester/first", attached="first")
    assert second.returncode == 0, second
    assert (tmp_path / "second/working/runs/my_run/last.pt").read_text() == "stopped finished"
    metadata = json.loads((tmp_path / "kernel/kernel-metadata.json").read_text())
    assert metadata["kernel_sources"] == ["tester/first"]
    lost = run("lost", previous="another", attached="first")
    assert lost.returncode == 1 and "the output of session another is not attached" in lost.stderr
    (tmp_path / "first/working/runs/my_run/last.pt").write_text("damaged")
    damaged = run("third", previous="first", attached="first")
    assert damaged.returncode == 1 and "runs/my_run/last.pt of session first is damaged" in damaged.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gpus": 0}, "1 GPU needed, 0 found"),
        ({"broken": "raise RuntimeError('no kernel image')"}, "torch 9.0 does not run on this GPU (no kernel image)"),
    ],
)
def test_a_session_without_a_fitting_gpu_stops_before_anything_is_done(
    settings: dict[str, object], says: str, run: Run, tmp_path: Path
) -> None:
    result = run("none", **settings)
    assert result.returncode == 1 and says in result.stderr
    assert stages(tmp_path / "none") == [] and not (tmp_path / "none/working/src").exists()


def test_without_data_the_script_explains_what_to_do(run: Run, tmp_path: Path) -> None:
    run("none")
    (tmp_path / "none/input/slug").rmdir()
    command = [sys.executable, str(tmp_path / "none/script.py")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "none/stub")}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 1 and "the data of slug is not attached" in result.stderr


def test_a_package_that_the_run_does_not_need_is_not_fetched(checkout: Path, tmp_path: Path) -> None:
    found = {}
    for name in ("my_run", "robot"):
        write_kernel(SessionOrder(name, "slug", "s", "tester/s", 1, 600, None, None), tmp_path / name)
        found[name] = re.search(r"^PACKAGES = (.*)$", (tmp_path / name / "run.py").read_text(), re.MULTILINE)[1]
    assert found["my_run"] == "{'PIL': 'pillow', 'numpy': 'numpy'}"
    assert found["robot"] == "{'PIL': 'pillow', 'google_crc32c': 'google_crc32c', 'numpy': 'numpy'}"
