"""Shared by the tests of src/competition: a folder with a run to submit, and commands that run in worker processes.

Every command has its own home folder and reaches only the loopback server. The workers are forked from a process that
has imported everything, to save time. With `forked` clients, the client's code also runs in a fork of a worker, because
starting Python takes longer than the client's work. A fork has imported the client's dependencies, not the client.
"""

import contextlib
import functools
import hashlib
import io
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

from loopback_kaggle import KEY, USER, Competition, LoopbackKaggle, read_faults

from src import kaggle_client
from src.base.console import run_main
from src.competition.client import RECORDER
from src.competition.ledger import Ledger, Submission

NUM_WORKERS = 12  # commands at the same time; they mostly wait
HEIGHT, WIDTH, LENGTH = 2, 4, 3  # of the small csv: frames (3, 2, 4), sequences of 3
QUICK_WAITS = {"--poll-first": 0.1, "--poll-longest": 1, "--stall": 300, "--settle": 0.2, "--call-timeout": 300}
POPEN = subprocess.Popen
FORKS = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Result:
    """The exit code of a command, and what it printed."""

    exit_code: int
    output: str
    error: str
    cpu_s: float  # CPU time of the command and of the clients it started


@dataclass(frozen=True)
class Workspace:
    """A folder with submissions/run.csv, its run, a home with credentials, and the run's competition."""

    folder: Path
    competition: Competition
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def submissions(self) -> list[Submission]:
        return Ledger(self.folder / "submissions/ledger.jsonl").submissions()

    def command(self, name: str, *options: str, waits: dict[str, float] = QUICK_WAITS) -> list[str]:
        """Returns the arguments of `download` or `submit` for this competition."""
        accepted = waits if name == "submit" else list(waits)[:3]
        times = [word for option in accepted for word in (option, str(waits[option]))]
        own = ["--run", "run", "--message", 'first "try"'] if name == "submit" else ["--folder", "data/.downloads"]
        return [name, "--competition", self.competition.slug, *times, *own, *options]


def make_workspace(server: LoopbackKaggle, folder: Path, slug: str, **settings: object) -> Workspace:
    """Returns a workspace with a small, valid csv and the correct key in ~/.kaggle/kaggle.json."""
    workspace = Workspace(folder, server.add(slug, **settings), server.environment)
    for path in (workspace.home / ".kaggle", folder / "submissions", folder / "runs/run"):
        path.mkdir(parents=True)
    credentials = workspace.home / ".kaggle/kaggle.json"
    credentials.write_text(json.dumps({"username": USER, "key": KEY}))
    credentials.chmod(0o600)
    write_run(folder, small_csv(slug))
    return workspace


def small_csv(seed: str) -> bytes:
    """Returns a csv of one sequence. The seed decides its numbers."""
    size = 3 * HEIGHT * WIDTH
    digest = hashlib.sha512(seed.encode()).digest()
    rows = [",".join([str(row), *map(str, digest[row : row + size])]) for row in range(LENGTH)]
    return "\n".join([",".join(["id", *map(str, range(size))]), *rows]).encode() + b"\n"


def write_run(
    folder: Path,
    content: bytes,
    num_rows: int = LENGTH,
    frame_size: tuple[int, int] = (HEIGHT, WIDTH),
    synthetic: bool = False,
) -> None:
    """Writes the csv, its run, and the provenance that connects them."""
    (folder / "submissions/run.csv").write_bytes(content)
    (folder / "runs/run/best.pt").write_bytes(b"weights of " + content[-20:])
    (folder / "runs/run/config.json").write_text("{}")
    hashes = [hashlib.sha256(data).hexdigest() for data in (content, b"weights of " + content[-20:], b"{}")]
    provenance = {
        "run": "run",
        "csv_sha256": hashes[0],
        "num_rows": num_rows,
        "num_sequences": 1,
        "frame_size": frame_size,
        "created": "2024-05-01T10:00:00+00:00",
        "commit": "0123456789ab",
        "dataset": "dance",
        "dataset_fingerprint": "f" * 64,
        "synthetic": synthetic,
        "config_sha256": hashes[2],
        "checkpoint_sha256": hashes[1],
        "checkpoint_step": 100,
        "local_score": 31.75,
        "seed": 1,
    }
    (folder / "submissions/run.json").write_text(json.dumps(provenance))


def environment_of(workspace: Workspace, **more: str) -> dict[str, str]:
    """Returns all environment variables of a command. Only PATH and LANG come from this machine."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, **workspace.environment, "HOME": str(workspace.home), **more}


class ForkedClient(subprocess.Popen):
    """A process that runs the client's code without starting Python again. All other commands start as usual."""

    def __init__(self, command: list[str], **settings: object) -> None:
        if command[:3] == [sys.executable, "-P", str(RECORDER)]:
            settings["preexec_fn"] = functools.partial(run_client, command, dict(settings))
        super().__init__(command, **settings)


def run_client(command: list[str], settings: dict[str, object]) -> None:
    """Runs the client in this forked process and ends it with the client's exit code.

    The process already has the streams and the session of the new process.
    """
    set_alarm = settings.get("preexec_fn")
    passed = settings.get("pass_fds", ())
    if set_alarm:
        set_alarm()
    first = 3
    for kept in (*sorted(passed), os.sysconf("SC_OPEN_MAX")):
        os.closerange(first, kept)
        first = kept + 1
    os.environ.clear()
    os.environ.update(settings["env"])
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    sys.argv = command[2:]
    code = 0
    try:
        runpy.run_path(command[2], run_name="__main__")
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else ending.code is not None
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


def run_command(folder: Path, environment: dict[str, str], words: list[str], forked: bool = False) -> Result:
    """Runs one command of src.kaggle_client in this worker process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as on a terminal, also if the tests run in background
    subprocess.Popen = ForkedClient if forked else POPEN
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["kaggle_client", *words]
    output = io.StringIO()
    error = io.StringIO()
    code = 0
    before = os.times()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        try:
            run_main(kaggle_client.main)
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
    cpu_s = sum(after - start for after, start in zip(os.times()[:4], before[:4], strict=True))
    return Result(code, output.getvalue(), error.getvalue(), cpu_s)


def workers(count: int) -> ProcessPoolExecutor:
    """Returns a pool of processes for `run_command`. They are forked from a process that has imported this file."""
    FORKS.set_forkserver_preload(["kaggle_preload"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), str(Path(__file__).parent)])
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    return ProcessPoolExecutor(count, mp_context=FORKS)


@dataclass(frozen=True)
class Harness:
    """The server, the worker processes, a folder for the workspaces, and all results so far."""

    server: LoopbackKaggle
    pool: ProcessPoolExecutor
    folder: Path
    results: list[Result]
    forked: bool

    def workspace(self, slug: str, faults: str = "", **settings: object) -> Workspace:
        """Returns a new workspace. `faults` has the form STEP:KIND[:TIMES[:AFTER]], ..."""
        listed = read_faults(faults.split(", ")) if faults else []
        return make_workspace(self.server, self.folder / slug, slug, faults=listed, **settings)

    def other_machine(self, workspace: Workspace) -> Workspace:
        """Returns a copy of the workspace without its ledger, like the same run on another machine."""
        folder = self.folder / f"{workspace.folder.name}-elsewhere"
        shutil.copytree(workspace.folder, folder, ignore=shutil.ignore_patterns("ledger.jsonl", ".uploads"))
        return Workspace(folder, workspace.competition, workspace.environment)

    def run(self, workspace: Workspace, *words: str, **environment: str) -> Result:
        """Runs a command in a worker and returns its result."""
        variables = environment_of(workspace, **environment)
        result = self.pool.submit(run_command, workspace.folder, variables, list(words), self.forked).result()
        self.results.append(result)
        return result

    def kill(self, workspace: Workspace, words: list[str], when: Callable[[BaseProcess], None]) -> bool:
        """Starts a command, kills it after `when` returns, and returns whether it was still running."""
        process = FORKS.Process(
            target=run_command, args=(workspace.folder, environment_of(workspace), words, self.forked)
        )
        process.start()
        when(process)
        alive = process.is_alive()
        process.kill()
        process.join()
        return alive

    @cached_property
    def short_waits(self) -> dict[str, float]:
        """Returns short time limits that are still long enough for the present load of this machine."""
        workspace = self.workspace(f"haste-{self.folder.name}")
        self.run(workspace, "submissions")  # starts the worker, so that its start is not measured
        started = time.monotonic()
        self.run(workspace, "leaderboard", "--competition", workspace.competition.slug)
        limit = round(5 + 6 * (time.monotonic() - started))
        return {**QUICK_WAITS, "--call-timeout": limit, "--stall": limit}


@contextlib.contextmanager
def open_harness(folder: Path, *, forked: bool = False) -> Iterator[Harness]:
    """Opens the server and the workers. At the end, checks that all calls went to localhost."""
    with workers(NUM_WORKERS) as pool, LoopbackKaggle() as server:
        yield Harness(server, pool, folder, [], forked)
        assert server.outside_calls == []


def wait_until(happened: Callable[[], bool], limit_s: float = 120.0) -> None:
    """Waits until `happened()` is true. Fails after `limit_s` seconds."""
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, f"it did not happen within {limit_s} s"
        time.sleep(0.01)


def disagreements(workspace: Workspace) -> list[str]:
    """Returns all differences between the ledger and the server, and all submissions after the first."""
    listed = Counter(
        entry["description"].partition("[run:")[2].partition("]")[0] for entry in workspace.competition.submissions
    )
    faults = [f"{tag} is on the server {count} times" for tag, count in listed.items() if count > 1]
    if len(listed) > 1:
        faults.append(f"{len(listed)} submissions of one csv")
    states = {submission.intent.tag: submission.state for submission in workspace.submissions}
    for tag in listed:
        hidden = states.get(tag) == "unknown" and workspace.competition.list_delay_s > 0
        if states.get(tag) not in ("accepted", "scored") and not hidden:
            faults.append(f"{tag} is on the server and {states.get(tag)} in the ledger")
    for tag, state in states.items():
        if state in ("accepted", "scored") and tag not in listed:
            faults.append(f"{tag} is {state} in the ledger and not on the server")
    return faults


def unexpected(workspace: Workspace, result: Result, exit_code: int, submissions: int) -> list[str]:
    """Returns the differences from the expected result, and between the ledger and the server."""
    wrong = disagreements(workspace)
    if exit_code == 0:
        wrong += [f"{path} is left behind" for path in workspace.folder.glob("submissions/.uploads/*.zip")]
    if result.exit_code != exit_code:
        wrong.append(f"exit code {result.exit_code}, not {exit_code}: {result.error} {result.output}")
    if len(workspace.competition.submissions) != submissions:
        wrong.append(f"{len(workspace.competition.submissions)} submissions, not {submissions}")
    if result.exit_code == 2 and (result.error.count("\n") != 1 or not result.error.startswith("error: ")):
        wrong.append(f"not one line of error: {result.error}")
    return wrong


def leaks(workspace: Workspace, results: list[Result]) -> list[str]:
    """Returns the secrets that were printed, or written to a file other than a zip."""
    texts = [result.output + result.error for result in results]
    written = [path for name in ("submissions", "data") for path in (workspace.folder / name).rglob("*")]
    texts += [path.read_text(errors="replace") for path in written if path.is_file() and path.suffix != ".zip"]
    secrets = (KEY, f"token.{workspace.competition.slug}", "signature=secret", "Authorization")
    return [secret for secret in secrets if any(secret in text for text in texts)]
