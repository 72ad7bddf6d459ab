"""Tests of submitting, with the real client and the loopback server: all faults, kills, Ctrl-C and parallel runs."""

import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess

import pytest
from kaggle_workbench import (
    NUM_WORKERS,
    QUICK_WAITS,
    Harness,
    Result,
    Workspace,
    leaks,
    open_harness,
    unexpected,
    wait_until,
)
from loopback_kaggle import read_faults


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with open_harness(tmp_path_factory.mktemp("submit"), forked=True) as harness:
        yield harness


@dataclass(frozen=True)
class Case:
    """One submit command: its faults, its result, and the number of submissions on the server afterwards."""

    faults: str  # STEP:KIND:TIMES:AFTER, ...
    says: str
    exit_code: int = 2
    submissions: int = 0
    short_waits: bool = False  # whether the case needs short time limits
    options: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)  # new settings of the competition, also for later cases


def submitted(faults: str = "", says: str = "", **more: object) -> Case:
    """Returns a case that ends with the score. `says` is an earlier part of the output."""
    score = "public score 31.25, local score 31.75 dB, difference -0.50 dB"
    return Case(faults, f"(?s){says}.*{score}", exit_code=0, submissions=1, **more)


def waiting(faults: str, says: str, **more: object) -> Case:
    """Returns a case in which the server has the submission, but the command ends without its score."""
    return Case(faults, says, submissions=1, **more)


def chain(step: str, kinds: Iterable[str], says: str) -> list[Case]:
    """Returns one case without a submission for each kind of fault at a step, then a successful case."""
    return [*(Case(f"{step}:{kind}:1", says + WORDS.get(kind, "")) for kind in kinds), submitted()]


WORDS = {  # fault -> the message for it
    "401": "does not accept the credentials in",
    "403": "accept the rules at https://www.kaggle.com/competitions/",
    "json 403": "accept the rules at https://www.kaggle.com/competitions/",
    "404": "has no competition named",
    "429": "asked too often",
    "500": "cannot answer now",
    "json 500": "cannot answer now",
    "503": "cannot answer now",
    "html": "something other than Kaggle answered",
    "cut": "cannot be reached",
    "json 400": "Kaggle refused .*daily Submission allowance",
}
NOT_SENT, REFUSED = "nothing was submitted: .*", "nothing was submitted: Kaggle's storage refused the file"
UNKNOWN, INTERRUPTED = "unknown whether Kaggle has", "nothing was submitted: the upload was interrupted"
NOT_KNOWN = "it is not known how many submissions to .* are left .*continuing"
SLOW = "limits:slow:1, start:slow:1, put:slow:1, create:slow:1, list:slow:1"
UNLISTED, LISTED = {"list_delay_s": 1e9}, {"list_delay_s": 0.0}
CHAINS = [  # the cases of a chain run one after the other, on one csv; the slowest chains are first
    [
        Case("list:hang:1", "nothing was uploaded: Kaggle has not answered", short_waits=True),
        Case("limits:hang:1, start:hang:1", f"(?s){NOT_KNOWN}.*{INTERRUPTED}", short_waits=True),
        submitted(),
    ],
    [Case("put:hang:1", INTERRUPTED, short_waits=True), submitted()],
    [Case("put:cut", INTERRUPTED, short_waits=True)],  # the client repeats the upload until it is stopped
    [Case("create:hang:1", UNKNOWN, short_waits=True)],
    [submitted("list:hang:1:1", short_waits=True)],
    chain("list", [kind for kind in WORDS if kind != "json 400"], "nothing was uploaded: .*"),
    *([submitted(f"limits:{kind}:1", NOT_KNOWN)] for kind in WORDS if kind != "json 400"),
    chain("start", ("401", "403", "404", "429", "500", "503", "html", "cut"), NOT_SENT),
    [*(Case(f"put:{kind}:1", REFUSED) for kind in ("401", "403", "404", "429", "500", "503")), submitted("put:cut:1")],
    [submitted("put:lost:1")],
    [Case("put:html:1", f"{NOT_SENT}file not found"), submitted()],  # the storage reports success and has no file
    chain("create", ("401", "403", "json 403", "429", "json 400"), NOT_SENT),
    [Case("create:404:1", r"nothing was submitted: Kaggle refused \(404: Not found\)"), submitted()],
    [Case("create:500:1", UNKNOWN), Case("", UNKNOWN), submitted(options=("--again",))],
    *([Case(f"create:{kind}:1", UNKNOWN)] for kind in ("json 500", "503", "html", "cut")),
    [submitted("create:lost:1"), submitted()],
    [submitted("create:lost:1, list:503:2:1", options=("--settle", "300"))],
    [waiting("create:lost:1", UNKNOWN, settings=UNLISTED), submitted(settings=LISTED)],
    [
        waiting(
            "list:401:1:1", f"its score is not known: .*{WORDS['401']}"
        ),  # the list is first read before the upload
        *(waiting(f"list:{kind}:1", f"its score is not known: .*{WORDS[kind]}") for kind in ("403", "404")),
        submitted("list:429:1, list:500:1, list:503:1, list:html:1, list:cut:1"),
    ],
    [submitted(SLOW, settings={"pending_lists": 2})],
    [submitted(settings={"list_delay_s": 3.0})],
    [waiting("", "could not score it: it does not say why; see https://.*/submissions", settings={"scoring": "ERROR"})]
    * 2,
    [
        waiting("", "no score after 1 s", settings={"scoring": "PENDING"}, options=("--deadline", "1")),
        submitted(settings={"scoring": "COMPLETE"}),
    ],
    [Case("", "nothing was uploaded: .* accepts no submission from you", settings={"daily_limit": 0})],
]


def play(harness: Harness, number: int) -> list[str]:
    """Runs the commands of a chain. Returns all errors that it finds."""
    workspace, wrong = harness.workspace(f"chain-{number}"), []
    for case in CHAINS[number]:
        workspace.competition.faults[:] = read_faults(case.faults.split(", ")) if case.faults else []
        for name, value in case.settings.items():
            setattr(workspace.competition, name, value)
        result = harness.run(
            workspace,
            *workspace.command("submit", *case.options, waits=harness.short_waits if case.short_waits else QUICK_WAITS),
        )
        here = unexpected(workspace, result, case.exit_code, case.submissions) + leaks(workspace, [result])
        if not re.search(case.says, result.output + result.error):
            here.append(f"it says {result.error or result.output!r} and not {case.says!r}")
        wrong += [f"{case.faults} {case.settings}: {text}" for text in here]
    return wrong


def test_every_fault_at_every_step_leaves_one_submission_or_none(harness: Harness, tell: Callable[[str], None]) -> None:
    assert harness.short_waits
    with ThreadPoolExecutor(NUM_WORKERS) as threads:
        lost = [
            text for wrong in threads.map(lambda number: play(harness, number), range(len(CHAINS))) for text in wrong
        ]
    num_cases = sum(map(len, CHAINS))
    cpu_s = sum(result.cpu_s for result in harness.results)
    tell(f"faults of a submit: {num_cases} cases, {len(lost)} disagreements, {cpu_s:.0f} s of CPU")
    assert num_cases >= 40
    assert not lost, "\n".join(lost)


MOMENTS = 20


def kill_and_rerun(harness: Harness, number: int) -> tuple[str, list[str]]:
    """Kills a submit at a random moment and runs it again. Returns the step that it reached, and the errors found."""
    workspace = harness.workspace(
        f"kill-{number}", "limits:slow, start:slow, put:slow, create:slow, list:slow", pending_lists=number % 2
    )
    moment = random.Random(number).uniform(0, 1.0)  # seconds after the awaited call
    calls = number % 7  # an upload makes six calls, then polling starts

    def at_that_moment(process: BaseProcess) -> None:
        wait_until(lambda: len(workspace.competition.calls) >= calls or not process.is_alive())
        time.sleep(moment)

    alive = harness.kill(workspace, workspace.command("submit"), at_that_moment)
    reached = ["start of the command", *workspace.competition.steps()][-1] if alive else "the end"
    result = harness.run(workspace, *workspace.command("submit"))
    wrong = unexpected(workspace, result, 0, 1) + leaks(workspace, [result])
    return reached, [f"killed at {reached}: {text}" for text in wrong]


def test_a_submit_killed_at_any_moment_continues_to_exactly_one_submission(
    harness: Harness, tell: Callable[[str], None]
) -> None:
    with ThreadPoolExecutor(NUM_WORKERS) as threads:
        ends = list(threads.map(lambda number: kill_and_rerun(harness, number), range(MOMENTS)))
    lost = [text for _, wrong in ends for text in wrong]
    tell(f"killed at {MOMENTS} moments ({dict(Counter(step for step, _ in ends))}): {len(lost)} disagreements")
    assert not lost, "\n".join(lost)
    assert sum(step != "the end" for step, _ in ends) > MOMENTS // 2


def kill_with_its_client(harness: Harness, step: str) -> tuple[Workspace, Result]:
    """Kills a submit and its client, which hangs at `step`. Returns the result of the same command afterwards."""
    workspace = harness.workspace(f"all-{step}", f"{step}:hang:1")

    def at_that_step(_: BaseProcess) -> None:
        wait_until(lambda: step in workspace.competition.steps())
        os.kill(int((workspace.folder / "submissions/.uploads/lock").read_text()), signal.SIGKILL)

    harness.kill(workspace, workspace.command("submit"), at_that_step)
    return workspace, harness.run(workspace, *workspace.command("submit"))


def test_after_a_crash_a_csv_that_was_not_uploaded_is_uploaded(harness: Harness) -> None:
    with ThreadPoolExecutor() as threads:
        for workspace, result in threads.map(lambda step: kill_with_its_client(harness, step), ("start", "put")):
            assert "nothing was submitted" in result.error or "never reached" in result.output
            assert unexpected(workspace, harness.run(workspace, *workspace.command("submit")), 0, 1) == []
            assert [submission.state for submission in workspace.submissions] == ["refused", "scored"]


def test_after_a_crash_a_csv_that_may_have_arrived_is_uploaded_only_with_again(harness: Harness) -> None:
    workspace, result = kill_with_its_client(harness, "create")
    assert "unknown whether Kaggle has" in result.error and "--again" in result.error
    assert unexpected(workspace, result, 2, 0) == []
    again = harness.run(workspace, *workspace.command("submit", "--again"))
    assert unexpected(workspace, again, 0, 1) == []
    assert [submission.state for submission in workspace.submissions] == ["unknown", "scored"]


def test_an_unknown_submission_that_is_listed_later_is_not_repeated_even_with_again(harness: Harness) -> None:
    workspace = harness.workspace("late", "create:lost:1", list_delay_s=1e9)
    assert "unknown" in harness.run(workspace, *workspace.command("submit")).error
    workspace.competition.list_delay_s = 0.0
    assert unexpected(workspace, harness.run(workspace, *workspace.command("submit", "--again")), 0, 1) == []


def test_ctrl_c_stops_the_upload_and_the_same_command_continues(harness: Harness) -> None:
    workspace = harness.workspace("ctrl-c", "put:hang:1")

    def at_the_upload(process: BaseProcess) -> None:
        wait_until(lambda: "put" in workspace.competition.steps())
        os.kill(process.pid, signal.SIGINT)
        process.join(60)

    assert not harness.kill(workspace, workspace.command("submit"), at_the_upload)
    assert unexpected(workspace, harness.run(workspace, *workspace.command("submit")), 0, 1) == []


def test_two_submits_at_the_same_time_upload_once(harness: Harness) -> None:
    workspace = harness.workspace("twins", "limits:slow, put:slow")
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda _: harness.run(workspace, *workspace.command("submit")), range(2)))
    assert [unexpected(workspace, result, 0, 1) for result in results] == [[], []]
    assert sum("waiting for it" in result.output for result in results) == 1
    assert workspace.competition.steps().count("create") == 1
