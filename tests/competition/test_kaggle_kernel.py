"""Tests of the trip to Kaggle's GPU: push, follow, fail, run out of time, resume, fetch, submit; faults and kills."""

import hashlib
import json
import random
import re
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from kaggle_workbench import QUICK_WAITS, Harness, Result, leaks, open_harness, wait_until
from loopback_kaggle import read_faults
from loopback_notebooks import Session

WAITS = [word for option, value in QUICK_WAITS.items() if option != "--deadline" for word in (option, str(value))]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with open_harness(tmp_path_factory.mktemp("kernel"), forked=True) as harness:
        yield harness


class Trained:
    """A workspace without the run, which a session on the loopback Kaggle makes and hands out."""

    def __init__(self, harness: Harness, slug: str, faults: str = "") -> None:
        self.harness = harness
        self.workspace = harness.workspace(slug)
        self.competition = self.workspace.competition
        self.competition.faults[:] = read_faults(faults.split(", ")) if faults else []
        self.competition.run = self.session
        self.finished = True
        self.epochs = 1
        self.made: dict[str, bytes] = {}
        folder = self.workspace.folder
        for path in (*folder.glob("runs/run/*"), *folder.glob("submissions/run.*")):
            self.made[str(path.relative_to(folder))] = path.read_bytes()
            path.unlink()
        (folder / "runs/run").rmdir()
        (folder / "configs").mkdir()
        (folder / "src").mkdir()
        (folder / "configs/run.toml").write_text('dataset = "other"\n[model]\nname = "reference_cvae"\n')
        (folder / "src/trainer.py").write_text("import numpy\n")
        for command in (["init", "-q"], ["add", "src", "configs"]):
            subprocess.run(["git", "-C", str(folder), *command], check=True)

    def session(self, session: Session) -> None:
        """Does what the script would do."""
        files = {**self.made, "runs/run/last.pt": b"weights of epoch %d" % self.epochs, "runs/run/log.jsonl": b"{}\n"}
        if not self.finished:
            files = {name: data for name, data in files.items() if name.startswith("runs/")}
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        identity = self.identity(session.source)
        written = {"session": identity, "finished": self.finished, "bytes": 100, "files": hashes}
        session.output = {**files, "session.json": json.dumps(written).encode()}
        lines = [f"session {identity}", "Collecting numpy", "epoch 1/2  loss 0.5  validation 31.00 dB"]
        session.log = json.dumps([{"stream_name": "stdout", "time": 1.0, "data": f"{line}\n"} for line in lines])

    @staticmethod
    def identity(source: str) -> str:
        return re.search(r"^SESSION = '(\w+)'", source, re.MULTILINE)[1]

    @property
    def words(self) -> list[str]:
        return ["kernel", "--run", "run", "--competition", self.competition.slug, "--folder", "kernel", *WAITS]

    def go(self, *more: str) -> Result:
        return self.harness.run(self.workspace, *self.words, *more)

    def state(self) -> dict[str, object]:
        return json.loads((self.workspace.folder / "runs/run/kernel.json").read_text())

    def here(self) -> dict[str, bytes]:
        """Returns the run and its csv, as they are in this folder."""
        folder = self.workspace.folder
        paths = (*folder.glob("runs/run/*"), *folder.glob("submissions/run.*"))
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name != "kernel.json"}

    def pushed(self, number: int = 1) -> Session:
        """Returns the session that was pushed first, second, ..."""
        return self.competition.notebooks[self.competition.pushes[number - 1]]

    def is_complete(self, number: int = 1) -> bool:
        """Returns whether everything that the session has made is here, and nothing else."""
        output = dict(self.pushed(number).output)
        output.pop("session.json")
        return self.here() == output


def test_a_push_says_what_the_notebook_needs(harness: Harness) -> None:
    trained = Trained(harness, "push")
    result = trained.go("--gpus", "2")
    assert result.exit_code == 0, result
    (call,) = [call for call in trained.competition.calls if call["step"] == "push"]
    body = call["body"]
    assert call["method"] == "kernels.KernelsApiService/SaveKernel"
    session = trained.identity(body["text"])
    assert (body["slug"], body["newTitle"]) == (f"tester/train-run-{session}", f"train run {session}")
    assert body["competitionDataSources"] == ["push"] and body["enableGpu"] and body["isPrivate"]
    assert body["machineShape"] == "NvidiaTeslaT4" and body["sessionTimeoutSeconds"] == 12 * 3600
    assert 'command = [sys.executable, "-m", "src.trainer", \'configs/run.toml\', "--gpus", "2"]' in body["text"]
    assert "TRAINING_SECONDS = 39600" in body["text"]
    assert "20.00 of 30.00 hours of GPU time are left" in result.output
    assert leaks(trained.workspace, [result]) == []


def test_a_trip_shows_the_runs_lines_and_brings_everything_back(harness: Harness) -> None:
    trained = Trained(harness, "trip")
    result = trained.go()
    assert result.exit_code == 0, result
    assert trained.is_complete() and trained.state()["stage"] == "fetched"
    assert result.output.count("epoch 1/2  loss 0.5  validation 31.00 dB") == 1
    assert "Collecting" not in result.output
    for status in ("queued", "running", "complete"):
        assert f"{trained.competition.pushes[0]}: {status}\n" in result.output
    calls = len(trained.competition.calls)
    again = trained.go()
    assert again.exit_code == 0 and "run is trained" in again.output
    assert [call["step"] for call in trained.competition.calls[calls:]] in ([], ["introspect"])


def test_what_was_fetched_is_submitted_at_once(harness: Harness) -> None:
    trained = Trained(harness, "submit")
    assert trained.go().exit_code == 0
    result = harness.run(trained.workspace, *trained.workspace.command("submit"))
    assert result.exit_code == 0 and "public score 31.25, local score 31.75 dB" in result.output, result
    assert len(trained.competition.submissions) == 1


def test_a_failed_session_is_noticed_with_its_reason_and_the_next_is_another_notebook(harness: Harness) -> None:
    trained = Trained(harness, "fail")

    def fail(session: Session) -> None:
        session.statuses = ["RUNNING", "ERROR"]
        lines = ["session x", "Traceback", "error: 1 GPU needed, 0 found; choose the accelerator GPU T4 x2", "bye"]
        session.log = json.dumps([{"data": line} for line in lines])

    trained.competition.run = fail
    result = trained.go()
    assert result.exit_code == 2 and "the session on Kaggle has failed: error: 1 GPU needed, 0 found" in result.error
    assert trained.here() == {}
    trained.competition.run = trained.session
    assert trained.go().exit_code == 0 and trained.is_complete(2)
    assert len(set(trained.competition.pushes)) == 2


def test_a_session_whose_time_was_over_is_resumed_in_a_new_one(harness: Harness) -> None:
    trained = Trained(harness, "time")
    trained.finished = False
    result = trained.go()
    assert result.exit_code == 0 and "it goes on in a new session" in result.output
    assert trained.is_complete() and not (trained.workspace.folder / "submissions/run.csv").exists()
    trained.finished, trained.epochs = True, 2
    assert trained.go().exit_code == 0 and trained.is_complete(2)
    first, second = [call["body"] for call in trained.competition.calls if call["step"] == "push"]
    assert first.get("kernelDataSources", []) == [] and "PREVIOUS = None" in first["text"]
    assert second["kernelDataSources"] == [first["slug"]]
    assert f"PREVIOUS = {trained.identity(first['text'])!r}" in second["text"]


def test_a_run_that_was_trained_here_is_not_replaced(harness: Harness) -> None:
    trained = Trained(harness, "mine")
    last = trained.workspace.folder / "runs/run/last.pt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"mine")
    assert "runs/run was trained here" in trained.go().error
    assert trained.competition.pushes == []
    last.unlink()
    trained.competition.run = lambda session: (trained.session(session), last.write_bytes(b"mine"))
    assert "runs/run was trained here" in trained.go().error and last.read_bytes() == b"mine"


def test_the_output_of_another_session_is_refused(harness: Harness) -> None:
    trained = Trained(harness, "older")
    assert trained.go().exit_code == 0
    other = Trained(harness, "newer")

    def stale(session: Session) -> None:
        session.output = trained.pushed().output

    other.competition.run = stale
    result = other.go()
    assert result.exit_code == 2 and "is of another session" in result.error
    assert other.here() == {} and other.state()["stage"] == "running"
    session = other.pushed()
    other.session(session)
    assert other.go().exit_code == 0 and other.is_complete()
    assert len(other.competition.pushes) == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("runs/run/../../Makefile", "which is no file of run"),
        ("runs/other/last.pt", "which is no file of run"),
        ("runs/run/kernel.json", "which is no file of run"),
        ("", "has no runs/run/last.pt"),
    ],
)
def test_an_output_that_is_not_that_of_a_run_is_refused(harness: Harness, name: str, says: str) -> None:
    trained = Trained(harness, f"outside-{len(name)}")

    def foreign(session: Session) -> None:
        trained.session(session)
        written = json.loads(session.output["session.json"])
        if name:
            written["files"][name] = "0" * 64
        else:
            del written["files"]["runs/run/last.pt"]
        session.output["session.json"] = json.dumps(written).encode()

    trained.competition.run = foreign
    result = trained.go()
    assert result.exit_code == 2 and says in result.error and trained.here() == {}
    trained.competition.run = trained.session
    assert trained.go().exit_code == 0 and trained.is_complete(2)


@pytest.mark.parametrize(
    "fault",
    [
        *("push:lost:1", "push:cut:1", "push:503:1", "push:html:1", "push:429:1", "quota:503:1", "quota:html:1"),
        *("status:503:2", "status:html:1", "status:cut:1", "log:503", "output:503:1", "output:cut:1"),
        *("file:503:1", "file:html:1:2", "file:truncated:1", "file:corrupted:1", "pull:503:1, push:lost:1"),
    ],
)
def test_after_a_fault_the_same_command_ends_with_one_session_and_the_whole_run(harness: Harness, fault: str) -> None:
    trained = Trained(harness, re.sub(r"\W+", "-", f"fault-{fault}"), fault)
    for _ in range(4):
        result = trained.go()
        assert result.exit_code == 0 or result.error.count("\n") == 1, result
        assert result.exit_code == 0 or "Traceback" not in result.error
        if result.exit_code == 0:
            break
        assert "submissions/run.json" not in trained.here()
    assert result.exit_code == 0 and trained.is_complete(), result
    assert len(trained.competition.pushes) == 1


def test_a_notebook_that_kaggle_refuses_is_an_error(harness: Harness) -> None:
    trained = Trained(harness, "refused")
    trained.competition.push_error = "Maximum batch GPU session count of 2 reached."
    result = trained.go()
    assert result.exit_code == 2 and "Maximum batch GPU session count of 2 reached." in result.error
    trained.competition.push_error = ""
    assert trained.go().exit_code == 0 and trained.is_complete()


def test_the_training_ends_before_the_weeks_quota_does(harness: Harness) -> None:
    trained = Trained(harness, "quota")
    trained.competition.hours_used = 29.5
    result = trained.go()
    assert result.exit_code == 2 and "only 0.50 hours of GPU time are left" in result.error
    assert trained.competition.pushes == []
    trained.competition.hours_used = 26.0
    assert trained.go().exit_code == 0
    assert "TRAINING_SECONDS = 10800" in trained.pushed().source


@pytest.mark.parametrize("seed", range(13))
def test_a_kill_at_any_moment_leaves_one_session_and_no_half_fetched_run(harness: Harness, seed: int) -> None:
    """Kills during up to three steps, then lets the command end: about 25 kills in all.

    With a slow push, the kill comes before Kaggle has started the session.
    """
    chance = random.Random(seed)
    trained = Trained(harness, f"kill-{seed}", "push:slow" if seed % 2 else "")
    steps = ("quota", "push", "status", "output", "file", "log")
    for number in range(chance.randint(1, 3)):
        step, pause = steps[(seed + number) % len(steps)], chance.random() * 0.3
        before = trained.competition.steps().count(step)

        def reached(process: BaseProcess, step: str = step, before: int = before, pause: float = pause) -> None:
            wait_until(lambda: trained.competition.steps().count(step) > before or not process.is_alive())
            time.sleep(pause)

        harness.kill(trained.workspace, trained.words, reached)
        provenance = trained.here().get("submissions/run.json")
        assert provenance is None or trained.is_complete()
    result = trained.go()
    assert result.exit_code == 0, result
    assert trained.is_complete() and len(trained.competition.pushes) == 1
    assert not (trained.workspace.folder / "kernel/run/output").exists()


def test_a_title_that_is_too_long_for_kaggle_is_refused(harness: Harness) -> None:
    trained = Trained(harness, "title")
    words = ["r" * 60 if word == "run" else word for word in trained.words]
    assert "has 75 characters, Kaggle allows 50" in harness.run(trained.workspace, *words).error


def test_an_untracked_config_is_refused(harness: Harness) -> None:
    trained = Trained(harness, "untracked")
    subprocess.run(["git", "-C", str(trained.workspace.folder), "rm", "-q", "--cached", "configs/run.toml"], check=True)
    assert "configs/run.toml is not tracked by git" in trained.go().error
    subprocess.run(["rm", "-rf", str(trained.workspace.folder / ".git")], check=True)
    assert "git tracks no file of src/ here" in trained.go().error
    assert trained.competition.pushes == [] and not Path(trained.workspace.folder / "runs/run/kernel.json").exists()
