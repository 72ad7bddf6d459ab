"""Submitting, on the real client against the loopback server: every fault at every step, kills, interrupts, twins."""

import dataclasses
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kaggle_workbench import (
    FORKS,
    QUICK,
    Bench,
    Result,
    environment_of,
    leaks,
    losses,
    run_and_die,
    run_command,
    set_up,
    workers,
)
from loopback_kaggle import LoopbackKaggle, read_faults

AT_ONCE = 6  # commands; most of their time is waiting


@dataclass(frozen=True)
class Desk:
    """The server, the worker processes, and a folder for the benches."""

    server: LoopbackKaggle
    pool: ProcessPoolExecutor
    folder: Path
    hasty: tuple[str, ...]  # patience that is short, and long enough for this machine as busy as it is

    def bench(self, slug: str, **settings: object) -> Bench:
        return set_up(self.server, self.folder / slug, slug, **settings)

    def run(self, bench: Bench, *words: str, **environment: str) -> Result:
        return self.pool.submit(run_command, bench.folder, environment_of(bench, **environment), list(words)).result()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with workers(AT_ONCE) as pool, LoopbackKaggle() as server:
        desk = Desk(server, pool, tmp_path_factory.mktemp("desk"), ())
        desk.run(desk.bench("first"), "submissions")  # a worker's start is not the client's
        started = time.monotonic()
        desk.run(desk.bench("second"), "leaderboard", "--competition", "second")
        limit = str(round(5 + 6 * (time.monotonic() - started)))
        hasty = (*QUICK[:-4], "--call-timeout", limit, "--stall", limit)
        yield dataclasses.replace(desk, hasty=hasty)
        assert server.strangers == []  # nothing went anywhere but to localhost


@dataclass(frozen=True)
class Case:
    """Faults, how the first command ends, and what the same command does afterwards, when the faults are over."""

    faults: str  # STEP:KIND:TIMES, STEP:KIND:TIMES, ...
    exit_code: int
    says: str
    submissions: int  # on the server after the first command
    hasty: bool = False  # whether the case is about running out of patience
    settings: dict[str, object] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    afterwards: tuple[int, int] | None = None  # exit code, submissions; None: not run again


SUBMITTED = {"exit_code": 0, "says": "public score 31.25, local score 31.75 dB, difference -0.50 dB", "submissions": 1}
NOT_SENT = {"exit_code": 2, "submissions": 0}
UNKNOWN = {"exit_code": 2, "says": "unknown whether Kaggle has", "submissions": 0, "afterwards": (2, 0)}
WORDS = {  # what each fault of a call is called
    "401": "does not accept the credentials in",
    "403": "accept the rules at https://www.kaggle.com/competitions/",
    "json 403": "accept the rules at https://www.kaggle.com/competitions/",
    "404": "knows no competition",
    "429": "asked too often",
    "500": "out of order",
    "json 500": "out of order",
    "503": "out of order",
    "html": "something other than Kaggle answered",
    "cut": "cannot be reached",
}
MENDED = ("403", "429", "html", "cut")  # the same command is run again after these; the others end in the same way
CASES = [
    Case("", **SUBMITTED, afterwards=(0, 1)),
    *(Case(f"limits:{kind}:1", says=f"nothing was uploaded: .*{words}", **NOT_SENT) for kind, words in WORDS.items()),
    Case("limits:hang:1", says="has not answered within", hasty=True, **NOT_SENT, afterwards=(0, 1)),
    Case("limits:slow:1, start:slow:1, put:slow:1, create:slow:1, list:slow:1", **SUBMITTED),
    *(
        Case(
            f"start:{kind}:1",
            says=f"nothing was submitted: .*{words}",
            **NOT_SENT,
            afterwards=(0, 1) if kind in MENDED else None,
        )
        for kind, words in WORDS.items()
    ),
    Case(
        "start:hang:1",
        says="nothing was submitted: the upload was interrupted",
        hasty=True,
        **NOT_SENT,
        afterwards=(0, 1),
    ),
    *(
        Case(f"put:{kind}:1", says="the storage did not take the file", **NOT_SENT)
        for kind in ("401", "404", "429", "500")
    ),
    *(
        Case(f"put:{kind}:1", says="the storage did not take the file", **NOT_SENT, afterwards=(0, 1))
        for kind in ("403", "503")
    ),
    Case("put:html:1", says="nothing was submitted: Kaggle refused", **NOT_SENT, afterwards=(0, 1)),
    Case("put:cut:1", **SUBMITTED),  # the client itself tries again
    Case("put:lost:1", **SUBMITTED),
    Case("put:cut", says="nothing was submitted: the upload was interrupted", hasty=True, **NOT_SENT),
    Case(
        "put:hang:1",
        says="nothing was submitted: the upload was interrupted",
        hasty=True,
        **NOT_SENT,
        afterwards=(0, 1),
    ),
    *(
        Case(f"create:{kind}:1", says=f"nothing was submitted: .*{WORDS[kind]}", **NOT_SENT, afterwards=(0, 1))
        for kind in ("401", "403", "json 403", "404", "429")
    ),
    Case("create:json 400:1", says="nothing was submitted: Kaggle refused .*daily Submission allowance", **NOT_SENT),
    *(Case(f"create:{kind}:1", **UNKNOWN) for kind in ("500", "json 500", "503", "html", "cut")),
    Case("create:hang:1", hasty=True, **UNKNOWN),
    Case("create:lost:1", **SUBMITTED, afterwards=(0, 1)),
    Case("create:lost:1, list:503:2", **SUBMITTED, options=("--settle", "100")),
    Case(
        "create:lost:1",
        exit_code=2,
        says="unknown whether Kaggle has",
        submissions=1,
        settings={"list_delay_s": 1e9},
        afterwards=(0, 1),
    ),
    *(
        Case(f"list:{kind}:1", 2, f"was submitted as .*its score is not known: .*{WORDS[kind]}", 1)
        for kind in ("401", "403", "404")
    ),
    *(Case(f"list:{kind}:1", **SUBMITTED) for kind in ("429", "500", "503", "html", "cut")),
    Case("list:hang:1", **SUBMITTED, hasty=True),
    Case("", **SUBMITTED, settings={"pending_lists": 2}),
    Case("", **SUBMITTED, settings={"list_delay_s": 3.0}),
    Case(
        "",
        2,
        "could not score it, https://www.kaggle.com/.*/submissions shows why",
        1,
        settings={"scoring": "ERROR"},
        afterwards=(2, 1),
    ),
    Case(
        "",
        2,
        "no score after 1 s .PENDING.; the same command goes on",
        1,
        settings={"scoring": "PENDING"},
        options=("--deadline", "1"),
    ),
    Case("", 2, "nothing was uploaded: .* takes no submission from you", 0, settings={"daily_limit": 0}),
]


def play(desk: Desk, number: int, case: Case) -> list[str]:
    """Runs the commands of a case; returns everything that went wrong."""
    faults = read_faults(case.faults.split(", ")) if case.faults else []
    bench = desk.bench(f"case-{number}", faults=faults, **case.settings)
    patience = desk.hasty if case.hasty else QUICK
    results = [desk.run(bench, *bench.command("submit", *case.options, patience=patience))]
    wrong = ended_otherwise(bench, results[0], case.exit_code, case.submissions)
    if not re.search(case.says, results[0].output + results[0].error):
        wrong.append(f"it says {results[0].error or results[0].output!r} and not {case.says!r}")
    if case.afterwards:
        bench.competition.list_delay_s = 0.0
        results.append(desk.run(bench, *bench.command("submit")))
        wrong += ended_otherwise(bench, results[1], *case.afterwards)
    return [f"{case.faults} {case.settings}: {text}" for text in wrong + leaks(bench, results)]


def ended_otherwise(bench: Bench, result: Result, exit_code: int, submissions: int) -> list[str]:
    """Returns how the end of a command differs from the one expected, and every disagreement of ledger and server."""
    wrong = losses(bench)
    if result.exit_code != exit_code:
        wrong.append(f"exit code {result.exit_code}, not {exit_code}: {result.error} {result.output}")
    if len(bench.competition.submissions) != submissions:
        wrong.append(f"{len(bench.competition.submissions)} submissions, not {submissions}")
    if result.exit_code == 2 and (result.error.count("\n") != 1 or not result.error.startswith("error: ")):
        wrong.append(f"not one line of error: {result.error}")
    return wrong


def test_every_fault_at_every_step_leaves_one_submission_or_none(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        patient = sorted(range(len(CASES)), key=lambda number: not CASES[number].hasty)  # those that wait begin
        wrong = list(threads.map(lambda number: play(desk, number, CASES[number]), patient))
    lost = [text for case in wrong for text in case]
    with capsys.disabled():
        print(f"\nfaults of a submit: {len(CASES)} cases, {len(lost)} losses")
    assert len(CASES) >= 40
    assert not lost, "\n".join(lost)


MOMENTS = 20


def kill_and_go_on(desk: Desk, number: int) -> tuple[str, list[str]]:
    """Kills a submit at a random moment and runs it again; returns the step it had reached, and what went wrong."""
    chance = random.Random(number)
    slow = "limits:slow:1, start:slow:1, put:slow:1, create:slow:1, list:slow:1"
    bench = desk.bench(f"kill-{number}", faults=read_faults(slow.split(", ")), pending_lists=1)
    words = bench.command("submit")
    process = FORKS.Process(target=run_and_die, args=(bench.folder, environment_of(bench), words))
    process.start()
    calls = number % 7  # of the six of a submit, and the first of the polling; then up to a second more
    wait_until(lambda: len(bench.competition.calls) >= calls or not process.is_alive())
    time.sleep(chance.uniform(0, 1.0))
    alive, reached = process.is_alive(), (["start of the command", *bench.competition.steps()])[-1]
    process.kill()
    process.join()
    result = desk.run(bench, *words)
    wrong = [f"killed at {reached}: {text}" for text in ended_otherwise(bench, result, 0, 1) + leaks(bench, [result])]
    return reached if alive else "the end", wrong


def wait_until(happened: Callable[[], bool], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_killed_at_any_moment_it_goes_on_to_exactly_one_submission(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(4) as threads:
        ends = list(threads.map(lambda number: kill_and_go_on(desk, number), range(MOMENTS)))
    lost = [text for _, wrong in ends for text in wrong]
    with capsys.disabled():
        print(f"\nkilled at {MOMENTS} moments ({dict(Counter(step for step, _ in ends))}): {len(lost)} losses")
    assert not lost, "\n".join(lost)
    assert sum(step != "the end" for step, _ in ends) > MOMENTS // 2


def kill_with_its_client(desk: Desk, step: str) -> tuple[Bench, Result]:
    """Kills a submit together with its client, which hangs at `step`; returns what the same command says afterwards."""
    bench = desk.bench(f"all-{step}", faults=read_faults([f"{step}:hang:1"]))
    process = FORKS.Process(target=run_and_die, args=(bench.folder, environment_of(bench), bench.command("submit")))
    process.start()
    wait_until(lambda: step in bench.competition.steps())
    time.sleep(0.3)  # for the client's bar, which ends before the call that hangs
    process.kill()
    os.kill(int((bench.folder / "submissions/.uploads/lock").read_text()), signal.SIGKILL)
    process.join()
    return bench, desk.run(bench, *bench.command("submit"))


def test_what_was_never_uploaded_is_uploaded_after_a_crash_of_everything(desk: Desk) -> None:
    with ThreadPoolExecutor() as threads:
        for bench, result in threads.map(lambda step: kill_with_its_client(desk, step), ("start", "put")):
            assert "never reached" in result.output
            assert ended_otherwise(bench, result, 0, 1) == []
            assert [submission.state for submission in bench.submissions] == ["refused", "scored"]


def test_what_may_have_arrived_is_not_uploaded_again_unasked(desk: Desk) -> None:
    bench, result = kill_with_its_client(desk, "create")
    assert "unknown whether Kaggle has" in result.error and "--again" in result.error
    assert ended_otherwise(bench, result, 2, 0) == []
    again = desk.run(bench, *bench.command("submit", "--again"))
    assert ended_otherwise(bench, again, 0, 1) == []
    assert [submission.state for submission in bench.submissions] == ["unknown", "scored"]


def test_an_unknown_submission_that_turns_up_is_adopted_even_with_again(desk: Desk) -> None:
    bench = desk.bench("late", faults=read_faults(["create:lost:1"]), list_delay_s=1e9)
    assert "unknown" in desk.run(bench, *bench.command("submit")).error
    bench.competition.list_delay_s = 0.0
    result = desk.run(bench, *bench.command("submit", "--again"))
    assert ended_otherwise(bench, result, 0, 1) == []


def test_ctrl_c_stops_the_upload_and_the_same_command_goes_on(desk: Desk) -> None:
    bench = desk.bench("ctrl-c", faults=read_faults(["put:hang:1"]))
    process = FORKS.Process(target=run_and_die, args=(bench.folder, environment_of(bench), bench.command("submit")))
    process.start()
    wait_until(lambda: "put" in bench.competition.steps())
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert process.exitcode == 0  # run_and_die swallows the 130
    result = desk.run(bench, *bench.command("submit"))
    assert ended_otherwise(bench, result, 0, 1) == []


def test_two_at_once_upload_one(desk: Desk) -> None:
    bench = desk.bench("twins", faults=read_faults(["limits:slow", "put:slow"]))
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda _: desk.run(bench, *bench.command("submit")), range(2)))
    assert [ended_otherwise(bench, result, 0, 1) for result in results] == [[], []]
    assert sum("waiting for it" in result.output for result in results) == 1
    assert bench.competition.steps().count("create") == 1
