"""`make gpu-check`: all that needs a GPU, in about nine minutes and without network.

It runs the tests marked `gpu`, times the training step of each model and the rollouts, and trains `dance` on synthetic
data of the competition's size. It writes reports/gpu.md and reports/gpu.json after each part, so that a check that is
stopped leaves what it has measured. A part for which no time is left, or which fails, is named in the report.
"""

import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch

from src.base.console import UserError, run_program, say
from src.base.devices import hardware
from src.base.files import write_atomically
from src.base.ownership import owned
from src.base.provenance import commit
from src.commands import gpu_check_options
from src.speed.rollouts import rollout_rows
from src.speed.steps import PRECISIONS, RECIPES, Peaks, Row, measured_peaks, step_rows
from src.speed.whole_run import FULL_SIZE, whole_run

REPORT = Path("reports/gpu")
LONG = {"tests": 40.0, "whole run": 130.0, "compiled": 60.0}  # seconds that a long part is expected to take
TRAINING_SECONDS = 40.0  # of the whole run


class Check:
    """The parts in their order, with the time that is left and the report so far."""

    def __init__(self, seconds: float, report: Path) -> None:
        self.ends = time.monotonic() + seconds
        self.report = report
        self.parts: dict[str, list[Row]] = {}
        self.failures: list[str] = []
        self.left_out: list[str] = []  # no time was left for these
        self.machine = machine()

    def run(self, title: str, name: str, rows: Callable[[], Iterable[Row]], *, expected: float = 10.0) -> None:
        """Adds rows to a part, if the time allows, and writes the report. A failure is named there."""
        if time.monotonic() + expected > self.ends:
            self.left_out.append(f"{title}: {name}")
        else:
            started = time.monotonic()
            try:
                for row in rows():
                    self.parts.setdefault(title, []).append(row)
                    say(f"{title}: " + ", ".join(f"{key} {_cell(value)}" for key, value in row.items()))
            except Exception as error:  # the other parts go on; the report names this one, and the exit code is 1
                traceback.print_exc()
                first_line = str(error).partition("\n")[0]
                self.failures.append(f"{title}: {name}: {type(error).__name__}: {first_line}")
            say(f"{title}: {name}: {time.monotonic() - started:.0f} s")
        self.write()

    def write(self) -> None:
        """Writes the report as Markdown and JSON."""
        content = {"machine": self.machine, "parts": self.parts, "failures": self.failures, "left_out": self.left_out}
        write_atomically(self.report.with_suffix(".json"), (json.dumps(content, indent=1) + "\n").encode())
        write_atomically(self.report.with_suffix(".md"), as_markdown(self).encode())


def machine() -> dict[str, str]:
    """Returns the hardware, the driver and the versions."""
    query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    try:
        driver: str = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    return {
        "hardware": hardware(),
        "driver, memory": driver,
        "torch": str(torch.__version__),
        "CUDA": str(torch.version.cuda),
        "cuDNN": str(torch.backends.cudnn.version()),
        "commit": str(commit()),
    }


def gpu_tests() -> list[Row]:
    """Runs the tests marked `gpu`. Returns the test runner's closing line."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "tests/test_gpu.py",
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    print(run.stdout[-6000:] + run.stderr[-2000:])
    closing = [line for line in run.stdout.splitlines() if line.strip()][-1:] or ["the test runner is not installed"]
    if run.returncode:
        raise RuntimeError(closing[0])
    return [{"tests marked gpu": closing[0].strip("= ")}]


def check(seconds: float, report: Path, device: torch.device) -> Check:
    """Runs all parts that fit into the time."""
    progress = Check(seconds, report)
    peaks = measured_peaks(device)
    progress.run("Peaks", "products and copies", lambda: [_row_of(peaks)])
    progress.run("Tests", "marked gpu", gpu_tests, expected=LONG["tests"])
    for name in RECIPES:
        for mode in ("CUDA graph", "eager"):
            rows = partial(step_rows, name, mode, PRECISIONS, peaks=peaks, repeats=10, device=device)
            progress.run("Training steps", f"{name}, {mode}", rows)
    lab = partial(rollout_rows, "dance_lab_sound", device=device)
    progress.run("Rollouts", "lab network", partial(lab, ("eager", "CUDA graph"), 2), expected=20)
    progress.run("Rollouts", "default model", partial(rollout_rows, "dance", ("eager",), 3, device))
    step = _seconds_of_a_step(progress)
    with tempfile.TemporaryDirectory() as folder:
        run = partial(whole_run, Path(folder), "dance", step_seconds=step, seconds=TRAINING_SECONDS, data=FULL_SIZE)
        progress.run("From data to csv", "dance", lambda: [run()], expected=LONG["whole run"])
    for name in RECIPES:
        rows = partial(step_rows, name, "compiled", ("bfloat16",), peaks=peaks, repeats=10, device=device)
        progress.run("Training steps", f"{name}, compiled", rows, expected=LONG["compiled"])
    compiled = partial(lab, ("eager", "compiled"), 1)
    progress.run("Rollouts", "lab network, compiled", compiled, expected=LONG["compiled"])
    return progress


def _row_of(peaks: Peaks) -> Row:
    products = {f"{kind} (TFLOP/s)": value for kind, value in peaks.tflops.items()}
    return products | {"copy (GB/s)": peaks.bytes_per_s / 1e9}


def _seconds_of_a_step(progress: Check) -> float:
    """Returns the measured time of a step of `dance` as it is trained, or a guess if that part failed."""
    for row in progress.parts.get("Training steps", []):
        if (row["recipe"], row["precision"], row["mode"]) == ("dance", "bfloat16", "CUDA graph"):
            return row["ms"] / 1e3
    return 0.1


def as_markdown(check: Check) -> str:
    """Returns the report as Markdown: the machine, a table for each part, and what is missing."""
    lines = ["# The GPU check", "", "`make gpu-check`", ""]
    lines += [f"* {name}: {value}" for name, value in check.machine.items()] + [""]
    for title, rows in check.parts.items():
        columns = list(rows[0])
        lines += [f"## {title}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |" for row in rows] + [""]
    for title, names in (("Failed", check.failures), ("No time was left", check.left_out)):
        lines += [f"## {title}", "", *(f"* {name}" for name in names), ""] if names else []
    return "\n".join(lines).rstrip() + "\n"


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main() -> None:
    """The command line."""
    chosen = gpu_check_options()
    if not torch.cuda.is_available():
        raise UserError("no CUDA device is usable here; needed: a GPU and its driver (`nvidia-smi` shows them)")
    with owned(REPORT.with_suffix(".md")):
        progress = check(60 * chosen.minutes, REPORT, torch.device("cuda", 0))
    say(REPORT.with_suffix(".md").read_text(encoding="utf-8"))
    sys.exit(1 if progress.failures else 0)


if __name__ == "__main__":
    run_program(main)
