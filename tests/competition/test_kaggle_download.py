"""Tests of the download, with the real client and the loopback server. After every fault, the archive is complete or
absent.
"""

import io
import os
import random
import re
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from kaggle_workbench import NUM_WORKERS, QUICK_WAITS, Harness, Workspace, leaks, open_harness, wait_until
from loopback_kaggle import read_faults

from src.competition.download import is_complete


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with open_harness(tmp_path_factory.mktemp("download"), forked=True) as harness:
        yield harness


def archive(seed: int, size: int = 5_000_000) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("train/0.png", random.Random(seed).randbytes(size))
        opened.writestr("val/0.png", b"small")
    return buffer.getvalue()


@dataclass(frozen=True)
class Case:
    """Faults, the command's exit code and its message. The same command without faults then gets the archive."""

    faults: str
    exit_code: int
    says: str = "data/.downloads/"
    short_waits: bool = False


TRUNCATED = "archive:truncated:1, "
CASES = [
    Case("", 0),
    Case("download:slow:1, archive:slow:1", 0),
    Case("download:401:1", 2, "does not accept the credentials in"),
    Case("download:403:1", 2, "accept the rules at https://www.kaggle.com/competitions/"),
    Case("download:json 403:1", 2, "accept the rules at https://www.kaggle.com/competitions/"),
    Case("download:404:1", 2, "has no competition named"),
    Case("download:429:1, download:500:1, download:503:1, download:html:1", 0),
    Case("download:cut:1", 0),
    Case("download:503", 2, "the download of .* failed: Kaggle cannot answer now"),
    Case("download:hang:1", 0, short_waits=True),
    Case("archive:403:1, archive:404:1, archive:429:1, archive:503:1", 0),
    *(Case(f"archive:{kind}:1", 0) for kind in ("html", "cut", "truncated", "corrupted")),
    Case("archive:hang:1", 0, short_waits=True),
    Case("archive:corrupted", 2, "not a complete zip and was deleted"),
    *(Case(f"{TRUNCATED}resume:{kind}:1", 0) for kind in ("cut", "truncated", "corrupted")),
    Case(f"{TRUNCATED}resume:403:1, archive:403:1", 0),
    Case(f"{TRUNCATED}resume:hang:1", 0, short_waits=True),
]


def fetched(workspace: Workspace) -> bytes | None:
    path = workspace.folder / "data/.downloads" / f"{workspace.competition.slug}.zip"
    return path.read_bytes() if path.exists() else None


def play(harness: Harness, number: int, case: Case) -> list[str]:
    """Runs the command, and again if it failed. Returns all errors that it finds."""
    workspace = harness.workspace(f"fetch-{number}", case.faults, archive=archive(number))
    words = workspace.command("download", waits=harness.short_waits if case.short_waits else QUICK_WAITS)
    results = [harness.run(workspace, *words)]
    wrong = (
        [] if results[0].exit_code == case.exit_code else [f"exit code {results[0].exit_code}, not {case.exit_code}"]
    )
    if not re.search(case.says, results[0].output + results[0].error):
        wrong.append(f"it does not say {case.says!r}")
    if results[0].exit_code != 0:
        if fetched(workspace) is not None:
            wrong.append("there is an archive after a failure")
        workspace.competition.faults.clear()
        results.append(harness.run(workspace, *words))
    last = results[-1]
    if fetched(workspace) != workspace.competition.archive or last.exit_code != 0:
        wrong.append("in the end the archive is not there")
    elif last.output.splitlines()[-1] != f"data/.downloads/{workspace.competition.slug}.zip":
        wrong.append("the last line is not the path")
    wrong += leaks(workspace, results)
    return [f"{case.faults}: {text}: {[(result.output, result.error) for result in results]}" for text in wrong]


def test_every_fault_at_every_step_ends_with_the_complete_archive_or_none(
    harness: Harness, tell: Callable[[str], None]
) -> None:
    assert harness.short_waits
    with ThreadPoolExecutor(NUM_WORKERS) as threads:
        patient = sorted(range(len(CASES)), key=lambda number: not CASES[number].short_waits)  # slow cases start first
        wrong = list(threads.map(lambda number: play(harness, number, CASES[number]), patient))
    lost = [text for case in wrong for text in case]
    cpu_s = sum(result.cpu_s for result in harness.results)
    tell(f"faults of a download: {len(CASES)} cases, {len(lost)} disagreements, {cpu_s:.0f} s of CPU")
    assert not lost, "\n".join(lost)


def kill_and_rerun(harness: Harness, number: int) -> list[str]:
    """Kills a download at a random moment and runs it again. Returns the errors that it finds."""
    workspace = harness.workspace(
        f"torn-{number}", "download:slow:1, archive:truncated:1, resume:slow:1", archive=archive(number)
    )
    moment, calls = random.Random(number).uniform(0, 1.0), number % 4

    def at_that_moment(process: BaseProcess) -> None:
        wait_until(lambda: len(workspace.competition.calls) >= calls or not process.is_alive())
        time.sleep(moment)

    harness.kill(workspace, workspace.command("download"), at_that_moment)
    assert fetched(workspace) in (None, workspace.competition.archive)
    result = harness.run(workspace, *workspace.command("download"))
    whole = result.exit_code == 0 and fetched(workspace) == workspace.competition.archive
    return [] if whole else [f"{number}: {result.output} {result.error}"]


def test_a_download_killed_at_any_moment_continues_to_the_complete_archive(harness: Harness) -> None:
    with ThreadPoolExecutor(NUM_WORKERS) as threads:
        lost = [
            text for wrong in threads.map(lambda number: kill_and_rerun(harness, number), range(6)) for text in wrong
        ]
    assert not lost, "\n".join(lost)


def test_a_damaged_archive_is_never_called_complete_and_gives_no_traceback(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for number in range(30):
            opened.writestr(f"train/{number}.png", random.Random(number).randbytes(200) + b"a" * 200)
    good = buffer.getvalue()
    path.write_bytes(good)
    assert is_complete(path)
    for seed in range(800):
        chance = random.Random(seed)
        data = bytearray(good)
        first = chance.randrange(len(data))
        if seed % 2:
            data[first] ^= 1 << chance.randrange(8)
        else:
            data[first : first + chance.randrange(1, 600)] = chance.randbytes(300)
        path.write_bytes(data)
        if is_complete(path):  # the damage is outside the contents: in a date, a flag or a comment
            with zipfile.ZipFile(path) as opened, zipfile.ZipFile(buffer) as truth:
                contents = [truth.read(name) for name in truth.namelist()]
                assert all(opened.read(name) in contents for name in opened.namelist()), seed


def test_an_archive_that_seems_encrypted_is_downloaded_again(harness: Harness) -> None:
    data = bytearray(archive(101, size=1000))
    data[data.rfind(b"PK\x01\x02") + 8] ^= 1  # the encryption flag of one file in the central directory
    workspace = harness.workspace("odd", archive=bytes(data))
    assert "not a complete zip and was deleted" in harness.run(workspace, *workspace.command("download")).error
    workspace.competition.archive = archive(101, size=1000)
    assert harness.run(workspace, *workspace.command("download")).exit_code == 0


def test_the_signed_url_of_the_archive_stays_in_no_file(harness: Harness) -> None:
    workspace = harness.workspace("address", "archive:403", archive=archive(102, size=1000))
    result = harness.run(workspace, *workspace.command("download"))
    assert result.exit_code == 2 and "archive" in workspace.competition.steps() and leaks(workspace, [result]) == []
    workspace.competition.faults[:] = read_faults(["archive:hang:1"])

    def while_it_comes(_: BaseProcess) -> None:
        wait_until((workspace.folder / "data/.downloads/address.part/client.log").exists)

    harness.kill(workspace, workspace.command("download"), while_it_comes)
    assert (workspace.folder / "data/.downloads/address.part/client.log").stat().st_mode & 0o777 == 0o600


def test_a_download_resumes_from_the_bytes_on_disk(harness: Harness) -> None:
    workspace = harness.workspace("partial", "archive:truncated:1, resume:hang:1", archive=archive(99))

    def at_the_resume(process: BaseProcess) -> None:
        wait_until(lambda: "resume" in workspace.competition.steps())
        os.kill(process.pid, signal.SIGINT)  # Ctrl-C
        process.join(60)

    assert not harness.kill(workspace, workspace.command("download"), at_the_resume)
    assert harness.run(workspace, *workspace.command("download")).exit_code == 0
    assert fetched(workspace) == workspace.competition.archive
    resumed = [call["body"]["first"] for call in workspace.competition.calls if call["step"] == "resume"]
    assert resumed == [2 * 2**20] * 2  # the client writes blocks of 1 MiB
    assert workspace.competition.steps().count("archive") == 2  # the first one, and one that only reads the headers


def test_a_complete_archive_is_not_downloaded_again_and_a_damaged_one_is(harness: Harness) -> None:
    workspace = harness.workspace("twice", archive=archive(100))
    path = workspace.folder / "data/.downloads/twice.zip"
    assert [harness.run(workspace, *workspace.command("download")).exit_code for _ in range(2)] == [0, 0]
    assert workspace.competition.steps() == ["download", "archive"]
    damaged = bytearray(path.read_bytes())
    damaged[1000] ^= 1
    path.write_bytes(damaged)
    path.with_name("twice.zip.kaggle-partial").write_text("{}")
    result = harness.run(workspace, *workspace.command("download"))
    assert "twice.zip is damaged; downloading it again" in result.output
    assert sorted(found.name for found in path.parent.iterdir()) == ["twice.lock", "twice.zip"]
    assert fetched(workspace) == workspace.competition.archive
