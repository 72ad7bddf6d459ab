"""A stop signal during every command: it ends soon, no lock stays, and the same command finishes.

That it ends soon is printed and not tested, because a busy machine is slow. What it needs for that is tested: processes
of pools are killed and not waited for, and the process leaves without taking torch apart.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.test_trainer import write_toml

SYNTHETIC = ("--take-length", "150", "--val-length", "12", "--test-length", "12")
COMMANDS = {
    "synthetic data": ("src", "data", "--source", "synthetic", "--dataset", "own", *SYNTHETIC),
    "synthetic pushing": ("src", "data", "--source", "synthetic-pushing", "--dataset", "own"),
    "packing": ("src", "data", "--source", "pictures", "--dataset", "own"),
    "train": ("src", "train", "configs/short.toml", "--name", "long", "--set", "training.num_epochs=2000"),
    "evaluate": ("src", "evaluate", "short"),
    "submission": ("src", "submission", "short"),
    "predict": ("src", "predict", "short", "--frame", "given.png", "--poses", "poses", "--out", "clip.gif"),
    "report": ("src", "report"),
    "benchmark": ("src", "bench"),
}
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    """A workplace with the data set `tiny`, the trained run `short`, pictures to pack and pictures to predict from."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(data_folder, folder / "data")
    write_toml(folder, num_epochs=2)
    (folder / "poses").mkdir()
    Image.new("RGB", (64, 32)).save(folder / "given.png")
    for number in range(300):
        Image.new("RGB", (64, 32), "white").save(folder / "poses" / f"{number}.png")
    run(folder, "src.trainer", "configs/short.toml")
    draw = "from pathlib import Path; from src.synthetic.dancers import write_dance\n"
    lengths = "take_length=200, val_length=12, test_length=12"
    draw += f"write_dance(Path('pictures'), num_takes=2, num_tests=2, num_processes=1, {lengths})"
    subprocess.run([sys.executable, "-c", draw], cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    return folder


def run(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def workplace(trained: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(trained, tmp_path / "work")
    yield tmp_path / "work"
    shutil.rmtree(tmp_path / "work")


@pytest.mark.parametrize(
    ("name", "number"), zip(COMMANDS, [signal.SIGTERM, signal.SIGHUP, signal.SIGINT] * 3, strict=True)
)
def test_a_command_stops_and_can_be_repeated(
    name: str, number: signal.Signals, workplace: Path, tell: Callable[[str], None]
) -> None:
    words = COMMANDS[name]
    process = subprocess.Popen(
        [sys.executable, "-c", STARTED, *words],
        cwd=workplace,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "begun\n"
    time.sleep(0.7)  # somewhere in its work
    started = time.monotonic()
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    tell(f"stops: {name} ends {time.monotonic() - started:.2f} s after {number.name}")
    if process.returncode in (0, -number):  # its work had ended before the signal
        return
    code = 130 if "run the same command again to resume" in output else 128 + number
    assert process.returncode == code and errors in ("stopped\n", ""), (process.returncode, errors)
    assert not [path for path in workplace.rglob("*.lock") if path.parent.name != ".uploads"], "no lock stays"
    if name in ("packing", "predict"):  # tests/torture repeats all
        run(workplace, *words)
        left = [path.name for path in workplace.rglob(".*") if path.name.endswith(".partial")]
        assert not left, "the same command removes what was half written"


STARTED = """
import runpy, sys
from src.base import console, processes
own = processes.follow_parent
def begun():
    own()
    print("begun", flush=True)
console.follow_parent = begun
sys.argv = sys.argv[1:]
sys.path.insert(0, "")
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def test_every_program_ends_at_once_when_it_is_stopped() -> None:
    programs = [ROOT / ".ci" / "pose-video"]
    programs += [path for path in (ROOT / "src").rglob("*.py") if '__name__ == "__main__"' in path.read_text()]
    programs.remove(ROOT / "src" / "competition" / "kernel_script.py")  # it holds the text of another program
    programs.remove(ROOT / "src" / "competition" / "recorder.py")  # Kaggle's client; the command that starts it ends it
    assert len(programs) > 10
    assert [path.name for path in programs if "run_program(main)" not in path.read_text()] == []


def test_the_processes_of_a_pool_are_not_waited_for() -> None:
    """Each would work for a minute."""
    script = (
        "import time\nfrom concurrent.futures import ProcessPoolExecutor\nfrom multiprocessing import get_context\n"
        "from src.base.console import run_program\nfrom src.base.processes import end_pool_process_with_parent\n"
        "def main():\n"
        "    with ProcessPoolExecutor(2, get_context('fork'), end_pool_process_with_parent) as pool:\n"
        "        jobs = [pool.submit(time.sleep, 60) for _ in range(9)]\n"
        "        time.sleep(1)\n        print('ready', flush=True)\n        jobs[0].result()\n"
        "run_program(main)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=50) == ("", "stopped\n") and process.returncode == 143


def test_a_stopped_command_leaves_at_once_and_cleans_up() -> None:
    """Modules are not taken apart, which takes torch two seconds; what was registered for the end is done."""
    script = (
        "import atexit, os, signal, sys\nfrom src.base.console import run_program\n"
        "class Module:\n    def __del__(self):\n        os.write(1, b'taken apart ')\n"
        "kept = Module()\natexit.register(lambda: os.write(1, b'cleaned '))\n"
        "def main():\n"
        "    os.kill(os.getpid(), signal.SIGTERM) if sys.argv[1] == 'stop' else sys.exit(int(sys.argv[1]))\n"
        "run_program(main)"
    )
    for word, code, output in (("stop", 143, "cleaned "), ("130", 130, "cleaned "), ("3", 3, "cleaned taken apart ")):
        done = subprocess.run(
            [sys.executable, "-c", script, word], env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (code, output)
