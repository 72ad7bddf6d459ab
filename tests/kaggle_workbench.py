"""What the tests of the round trip share: a folder with a run to submit, and commands run in processes of their own.

Every command sees a home of its own, the loopback server and nothing else. The worker processes are forked from one
that has imported everything. A desk with `forked` clients runs the real client's code in forks of the workers, which
have imported what the client imports, but not the client: a start of Python costs more than all else that it does.
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
from src.competition.ledger import Ledger, Submission

AT_ONCE = 12  # commands; much of their time is waiting
HEIGHT, WIDTH, LENGTH = 2, 4, 3  # of the small csv: frames (3, 2, 4), sequences of 3
QUICK = {"--poll-first": 0.1, "--poll-longest": 1, "--stall": 300, "--settle": 0.2, "--call-timeout": 300}
POPEN = subprocess.Popen
FORKS = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    exit_code: int
    output: str
    error: str
    cpu_s: float  # of the command and the clients it started


@dataclass(frozen=True)
class Bench:
    """A folder with submissions/run.csv and its run, a home with credentials, and the competition it belongs to."""

    folder: Path
    competition: Competition
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def submissions(self) -> list[Submission]:
        return Ledger(self.folder / "submissions/ledger.jsonl").submissions()

    def command(self, name: str, *options: str, patience: dict[str, float] = QUICK) -> list[str]:
        """Returns the words of `download` or `submit` for this competition."""
        known = patience if name == "submit" else list(patience)[:3]
        waits = [word for option in known for word in (option, str(patience[option]))]
        own = ["--run", "run", "--message", 'first "try"'] if name == "submit" else ["--folder", "data/.downloads"]
        return [name, "--competition", self.competition.slug, *waits, *own, *options]


def set_up(server: LoopbackKaggle, folder: Path, slug: str, **settings: object) -> Bench:
    """Returns a bench with a small, valid csv and the right key in ~/.kaggle/kaggle.json."""
    bench = Bench(folder, server.add(slug, **settings), server.environment)
    for path in (bench.home / ".kaggle", folder / "submissions", folder / "runs/run"):
        path.mkdir(parents=True)
    credentials = bench.home / ".kaggle/kaggle.json"
    credentials.write_text(json.dumps({"username": USER, "key": KEY}))
    credentials.chmod(0o600)
    write_run(folder, small_csv(slug))
    return bench


def small_csv(seed: str) -> bytes:
    """Returns a csv of one sequence whose numbers follow from the seed."""
    size, digest = 3 * HEIGHT * WIDTH, hashlib.sha512(seed.encode()).digest()
    rows = [",".join([str(row), *map(str, digest[row : row + size])]) for row in range(LENGTH)]
    return "\n".join([",".join(["id", *map(str, range(size))]), *rows]).encode() + b"\n"


def write_run(
    folder: Path, content: bytes, num_rows: int = LENGTH, frame_size: tuple[int, int] = (HEIGHT, WIDTH)
) -> None:
    """Writes the csv, the run it comes from, and the provenance that ties them together."""
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
        "config_sha256": hashes[2],
        "checkpoint_sha256": hashes[1],
        "checkpoint_step": 100,
        "local_score": 31.75,
        "seed": 1,
    }
    (folder / "submissions/run.json").write_text(json.dumps(provenance))


def environment_of(bench: Bench, **more: str) -> dict[str, str]:
    """Returns the whole environment of a command: nothing of this machine's but the path and the language."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, **bench.environment, "HOME": str(bench.home), **more}


class ForkedClient(subprocess.Popen):
    """A process that runs the client's code without a new start of Python; every other command starts as ever."""

    def __init__(self, command: list[str], **settings: object) -> None:
        if command[:4] == [sys.executable, "-P", "-m", "kaggle"]:
            settings["preexec_fn"] = functools.partial(run_client, command, dict(settings))
        super().__init__(command, **settings)


def run_client(command: list[str], settings: dict[str, object]) -> None:
    """Ends this process, which has the new one's streams and session already, as the client ends."""
    set_alarm, passed = settings.get("preexec_fn"), settings.get("pass_fds", ())
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
    sys.argv, code = command[3:], 0
    try:
        runpy.run_module("kaggle", run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else ending.code is not None
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


def run_command(folder: Path, environment: dict[str, str], words: list[str], forked: bool = False) -> Result:
    """Runs one command of src.kaggle_client in this process, which is a worker's."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as at a terminal, also for tests in a background
    subprocess.Popen = ForkedClient if forked else POPEN
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["kaggle_client", *words]
    output, error, code, before = io.StringIO(), io.StringIO(), 0, os.times()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        try:
            run_main(kaggle_client.main)
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
    cpu_s = sum(after - start for after, start in zip(os.times()[:4], before[:4], strict=True))
    return Result(code, output.getvalue(), error.getvalue(), cpu_s)


def workers(count: int) -> ProcessPoolExecutor:
    """Returns a pool whose processes run `run_command`; the process they are forked from has imported this file."""
    FORKS.set_forkserver_preload(["kaggle_preload"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), str(Path(__file__).parent)])
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    return ProcessPoolExecutor(count, mp_context=FORKS)


@dataclass(frozen=True)
class Desk:
    """The server, the worker processes, a folder for the benches, and every result so far."""

    server: LoopbackKaggle
    pool: ProcessPoolExecutor
    folder: Path
    results: list[Result]
    forked: bool

    def bench(self, slug: str, faults: str = "", **settings: object) -> Bench:
        """Returns a new bench; `faults` are written STEP:KIND[:TIMES[:AFTER]], ..."""
        listed = read_faults(faults.split(", ")) if faults else []
        return set_up(self.server, self.folder / slug, slug, faults=listed, **settings)

    def elsewhere(self, bench: Bench) -> Bench:
        """Returns the same run on another machine, whose ledger knows nothing."""
        folder = self.folder / f"{bench.folder.name}-elsewhere"
        shutil.copytree(bench.folder, folder, ignore=shutil.ignore_patterns("ledger.jsonl", ".uploads"))
        return Bench(folder, bench.competition, bench.environment)

    def run(self, bench: Bench, *words: str, **environment: str) -> Result:
        """Returns how a command ended, run in a worker."""
        surroundings = environment_of(bench, **environment)
        result = self.pool.submit(run_command, bench.folder, surroundings, list(words), self.forked).result()
        self.results.append(result)
        return result

    def kill(self, bench: Bench, words: list[str], when: Callable[[BaseProcess], None]) -> bool:
        """Starts a command, kills it once `when` returns, and returns whether it was still at work."""
        process = FORKS.Process(
            target=run_command, args=(bench.folder, environment_of(bench), words, True, self.forked)
        )
        process.start()
        when(process)
        alive = process.is_alive()
        process.kill()
        process.join()
        return alive

    @cached_property
    def hasty(self) -> dict[str, float]:
        """Returns a patience that is short, and yet long enough for this machine as busy as it is now."""
        bench = self.bench(f"haste-{self.folder.name}")
        self.run(bench, "submissions")  # a worker's start is not the client's
        started = time.monotonic()
        self.run(bench, "leaderboard", "--competition", bench.competition.slug)
        limit = round(5 + 6 * (time.monotonic() - started))
        return {**QUICK, "--call-timeout": limit, "--stall": limit}


@contextlib.contextmanager
def open_desk(folder: Path, *, forked: bool = False) -> Iterator[Desk]:
    """Opens the server and the workers; nothing may have gone anywhere but to localhost when they close."""
    with workers(AT_ONCE) as pool, LoopbackKaggle() as server:
        yield Desk(server, pool, folder, [], forked)
        assert server.strangers == []


def wait_until(happened: Callable[[], bool], limit_s: float = 120.0) -> None:
    """Waits for something that must happen."""
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def losses(bench: Bench) -> list[str]:
    """Returns every way in which the ledger and the server disagree, and every submission beyond the first."""
    listed = Counter(entry["description"].rpartition("[run:")[2].rstrip("]") for entry in bench.competition.submissions)
    faults = [f"{tag} is on the server {count} times" for tag, count in listed.items() if count > 1]
    if len(listed) > 1:
        faults.append(f"{len(listed)} submissions of one csv")
    states = {submission.intent.tag: submission.state for submission in bench.submissions}
    for tag in listed:
        hidden = states.get(tag) == "unknown" and bench.competition.list_delay_s > 0
        if states.get(tag) not in ("accepted", "scored") and not hidden:
            faults.append(f"{tag} is on the server and {states.get(tag)} in the ledger")
    for tag, state in states.items():
        if state in ("accepted", "scored") and tag not in listed:
            faults.append(f"{tag} is {state} in the ledger and not on the server")
    return faults


def ended_otherwise(bench: Bench, result: Result, exit_code: int, submissions: int) -> list[str]:
    """Returns how the end of a command differs from the one expected, and every disagreement of ledger and server."""
    wrong = losses(bench)
    if exit_code == 0:
        wrong += [f"{path} is left behind" for path in bench.folder.glob("submissions/.uploads/*.zip")]
    if result.exit_code != exit_code:
        wrong.append(f"exit code {result.exit_code}, not {exit_code}: {result.error} {result.output}")
    if len(bench.competition.submissions) != submissions:
        wrong.append(f"{len(bench.competition.submissions)} submissions, not {submissions}")
    if result.exit_code == 2 and (result.error.count("\n") != 1 or not result.error.startswith("error: ")):
        wrong.append(f"not one line of error: {result.error}")
    return wrong


def leaks(bench: Bench, results: list[Result]) -> list[str]:
    """Returns the secrets that were printed, or written to any file but a zip."""
    texts = [result.output + result.error for result in results]
    written = [path for name in ("submissions", "data") for path in (bench.folder / name).rglob("*")]
    texts += [path.read_text(errors="replace") for path in written if path.is_file() and path.suffix != ".zip"]
    secrets = (KEY, f"token.{bench.competition.slug}", "signature=secret", "Authorization")
    return [secret for secret in secrets if any(secret in text for text in texts)]
