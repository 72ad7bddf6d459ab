"""Tests of recovery: after a power failure, on another machine, after more training, after a submission by hand."""

import hashlib
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest
from kaggle_workbench import (
    FORKS,
    Harness,
    Workspace,
    environment_of,
    open_harness,
    run_command,
    small_csv,
    unexpected,
    write_run,
)
from loopback_kaggle import read_faults

from src.base.reading import parse_sealed, sealed_line
from src.competition.ledger import Event, Ledger


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with open_harness(tmp_path_factory.mktemp("recovery"), forked=True) as harness:
        yield harness


def lose_power(workspace: Workspace, *, record: str) -> str:
    """Leaves the ledger as after a power failure during the upload: with the intent alone. Returns the tag.

    record: what is left of the record of the calls: all of it, what was there when the submission was "sent", what was
    there "before" that, or "none".
    """
    path = workspace.folder / "submissions/ledger.jsonl"
    intent = parse_sealed(path.read_bytes().splitlines()[0], Event, "the ledger")
    path.write_bytes(sealed_line(intent))
    calls = workspace.folder / f"submissions/.uploads/{workspace.competition.slug}.{intent.tag}.calls"
    text = calls.read_text()
    call = '\n\x1e{"call": "CreateSubmission"}\n'
    assert text.count(call) == 1
    before = text.partition(call)[0]
    calls.write_text({"all": text, "sent": before + call + "\n\x1e{", "before": before}.get(record, ""))
    if record == "none":
        calls.unlink()
    return intent.tag


@pytest.mark.parametrize("record", ["sent", "none"])
def test_after_a_power_failure_an_unreadable_list_proves_nothing(harness: Harness, record: str) -> None:
    workspace = harness.workspace(f"power-{record}")
    assert harness.run(workspace, *workspace.command("submit")).exit_code == 0
    tag = lose_power(workspace, record=record)
    for fault in ("list:503:1", "list:429:1", "list:cut:1"):
        workspace.competition.faults[:] = read_faults([fault])
        result = harness.run(workspace, *workspace.command("submit", "--settle", "0"))
        assert result.exit_code == 2 and f"cannot tell whether [run:{tag}] arrived" in result.error
        assert f"`make submit RUN=run COMPETITION=power-{record}` checks again" in result.error
    assert unexpected(workspace, harness.run(workspace, *workspace.command("submit")), 0, 1) == []
    assert workspace.competition.steps().count("put") == 1


@pytest.mark.parametrize("record", ["sent", "none"])
def test_after_a_power_failure_a_list_that_lags_proves_nothing(harness: Harness, record: str) -> None:
    workspace = harness.workspace(f"lag-{record}")
    assert harness.run(workspace, *workspace.command("submit")).exit_code == 0
    lose_power(workspace, record=record)
    workspace.competition.list_delay_s = 1e9  # Kaggle has the submission and does not list it yet
    for _ in range(2):
        assert unexpected(workspace, harness.run(workspace, *workspace.command("submit")), 2, 1) == []
        assert workspace.submissions[0].state == "unknown"
    workspace.competition.list_delay_s = 0.0
    assert unexpected(workspace, harness.run(workspace, *workspace.command("submit")), 0, 1) == []


def test_a_record_without_the_call_that_submits_proves_that_nothing_was_sent(harness: Harness) -> None:
    workspace = harness.workspace("unsent")
    assert harness.run(workspace, *workspace.command("submit")).exit_code == 0
    lose_power(workspace, record="before")
    workspace.competition.submissions.clear()
    result = harness.run(workspace, *workspace.command("submit"))
    assert "never reached unsent" in result.output and unexpected(workspace, result, 0, 1) == []


@pytest.mark.parametrize("record", ["all", "sent"])
def test_without_the_ledger_the_record_tells_what_this_folder_has_submitted(harness: Harness, record: str) -> None:
    workspace = harness.workspace(f"amnesia-{record}")
    assert harness.run(workspace, *workspace.command("submit")).exit_code == 0
    lose_power(workspace, record=record)
    (workspace.folder / "submissions/ledger.jsonl").unlink()
    workspace.competition.list_delay_s = 1e9
    result = harness.run(workspace, *workspace.command("submit", "--deadline", "0"))
    assert result.exit_code == 2 and ("has no score" if record == "all" else "unknown whether") in result.error
    assert len(workspace.competition.submissions) == 1
    workspace.competition.list_delay_s = 0.0
    assert unexpected(workspace, harness.run(workspace, *workspace.command("submit")), 0, 1) == []


def test_a_ledger_that_cannot_be_written_stops_before_the_upload(harness: Harness) -> None:
    workspace = harness.workspace("crowded")
    ledger = Ledger(workspace.folder / "submissions/ledger.jsonl")
    for number in range(9):
        ledger.append(Event(event="intent", competition="other", run="r", tag=f"{number:012}", message="x" * 400))
    limit = ledger.path.stat().st_size + 60  # space for 60 bytes of the intent
    with ProcessPoolExecutor(
        1, FORKS, initializer=resource.setrlimit, initargs=(resource.RLIMIT_FSIZE, (limit, limit))
    ) as pool:
        words = workspace.command("submit")
        result = pool.submit(run_command, workspace.folder, environment_of(workspace), words, True).result()
    assert result.exit_code == 2 and "ledger.jsonl: the disk is full" in result.error
    assert "start" not in workspace.competition.steps()
    assert unexpected(workspace, harness.run(workspace, *words), 0, 1) == []


def test_a_submission_of_another_machine_is_found_in_kaggles_list(harness: Harness) -> None:
    first = harness.workspace("machines")
    second = harness.other_machine(first)
    assert harness.run(first, *first.command("submit")).exit_code == 0
    for options in ((), ("--again",)):
        result = harness.run(second, *second.command("submit", *options))
        if not options:
            assert unexpected(second, result, 0, 1) == []
            assert "machines has this csv since" in result.output and "local score 31.75" in result.output
    tags = [entry["description"].partition("[run:")[2].partition("]")[0] for entry in first.competition.submissions]
    assert [entry.intent.tag for entry in second.submissions] == tags == [tags[0], f"{tags[0]}-2"]


def test_a_submission_by_hand_with_the_tag_is_not_repeated(harness: Harness) -> None:
    workspace = harness.workspace("hand")
    csv = workspace.folder / "submissions/run.csv"
    message = f"""-x "it's" $5 `b` [run:{hashlib.sha256(csv.read_bytes()).hexdigest()[:12]}]"""
    words = ["competitions", "submit", "hand", "--file", str(csv), f"--message={message}"]
    command = [sys.executable, "-P", "-m", "kaggle", *words]
    subprocess.run(command, cwd=workspace.folder, env=environment_of(workspace), check=True, capture_output=True)
    result = harness.run(workspace, *workspace.command("submit"))
    assert unexpected(workspace, result, 0, 1) == [] and f"as {message}" in result.output


@pytest.mark.parametrize("tokens", [True, False])
def test_a_submission_below_the_first_pages_of_the_list_is_found(harness: Harness, tokens: bool) -> None:
    workspace = harness.workspace(f"long-{tokens}".lower(), page_cap=50, page_tokens=tokens, daily_limit=999)
    other = harness.other_machine(workspace)
    assert harness.run(workspace, *workspace.command("submit")).exit_code == 0
    listed = workspace.competition.submissions
    listed += [{**listed[0], "ref": 50_000 + number, "description": f"newer {number}"} for number in range(150)]
    result = harness.run(other, *other.command("submit"))
    assert result.exit_code == 0 and "has this csv since" in result.output, result
    assert len(listed) == 151


@pytest.mark.parametrize("settings", [{"scoring": "PENDING"}, {"list_delay_s": 1e9}])
def test_the_command_that_a_message_promises_uploads_nothing(harness: Harness, settings: dict[str, object]) -> None:
    """A message of a command with --again names the command without it."""
    fault = "create:lost" if "list_delay_s" in settings else ""
    workspace = harness.workspace(f"promise-{len(fault)}", fault, **settings)
    for number in (1, 2):
        result = harness.run(workspace, *workspace.command("submit", "--again", "--deadline", "0"))
        assert result.exit_code == 2 and len(workspace.competition.submissions) == number, result
        words = re.search(r"`make submit RUN=run COMPETITION=\S+` [^;]*uploads nothing", result.error)
        assert words, result.error
        harness.run(workspace, *workspace.command("submit", "--deadline", "0"))
        assert len(workspace.competition.submissions) == number


@pytest.mark.parametrize(
    "text",
    [
        "This competition only accepts submissions from notebooks.",
        "The competition deadline has passed.",
        "You have too many pending submissions.",
        "You are not allowed to take part in this competition.",
    ],
)
def test_a_refusal_in_words_is_said_in_these_words(harness: Harness, text: str) -> None:
    workspace = harness.workspace(f"words-{len(text)}", create_refusal=text)
    result = harness.run(workspace, *workspace.command("submit"))
    assert unexpected(workspace, result, 2, 0) == [] and "nothing was submitted" in result.error
    assert text in result.error
    workspace.competition.create_refusal = ""
    assert unexpected(workspace, harness.run(workspace, *workspace.command("submit")), 0, 1) == []


def test_an_answer_that_registers_nothing_is_not_believed(harness: Harness) -> None:
    workspace = harness.workspace("polite", create_answer="Submission not allowed: your team has no members left.")
    for _ in range(2):
        result = harness.run(workspace, *workspace.command("submit"))
        assert unexpected(workspace, result, 2, 0) == []
        assert "unknown whether Kaggle has" in result.error and "your team has no members left" in result.error


def test_a_tag_in_the_users_message_is_refused_and_a_tag_inside_a_message_is_ignored(harness: Harness) -> None:
    workspace = harness.workspace("tagged")
    result = harness.run(workspace, *workspace.command("submit", "--message", "again [run:0123456789ab]"))
    assert result.exit_code == 2 and "the message contains `[run:`" in result.error
    assert workspace.competition.calls == []
    assert harness.run(workspace, *workspace.command("submit")).exit_code == 0
    tag = workspace.submissions[0].intent.tag
    workspace.competition.submissions[0]["description"] = f"not ours [run:{tag}] but about it"
    other = harness.other_machine(workspace)
    harness.run(other, *other.command("submit"))
    assert len(workspace.competition.submissions) == 2


def test_the_score_of_an_accepted_submission_is_awaited_although_training_continued(harness: Harness) -> None:
    workspace = harness.workspace("moved", scoring="PENDING")
    assert "no score after 0 s" in harness.run(workspace, *workspace.command("submit", "--deadline", "0")).error
    workspace.competition.scoring = "COMPLETE"
    (workspace.folder / "runs/run/best.pt").write_bytes(b"newer")
    (workspace.folder / "submissions/run.json").unlink()
    result = harness.run(workspace, *workspace.command("submit"))
    assert unexpected(workspace, result, 0, 1) == [] and "public score 31.25, local score 31.75 dB" in result.output


def test_reading_the_list_also_updates_open_submissions_of_other_csvs(harness: Harness) -> None:
    workspace = harness.workspace("dangling", "create:lost:1", list_delay_s=1e9)
    assert "unknown" in harness.run(workspace, *workspace.command("submit")).error
    workspace.competition.list_delay_s = 0.0
    write_run(workspace.folder, small_csv("another"))
    assert harness.run(workspace, *workspace.command("submit")).exit_code == 0
    assert [entry.state for entry in workspace.submissions] == ["scored", "scored"]
    assert len(workspace.competition.submissions) == 2


@pytest.mark.parametrize(("total", "says"), [(False, "today's 1 submissions"), (True, "all 1 submissions that used-1")])
def test_the_submission_limit_is_checked_before_the_upload(harness: Harness, total: bool, says: str) -> None:
    workspace = harness.workspace(f"used-{total:d}", daily_limit=1, limited_by_total=total)
    assert harness.run(workspace, *workspace.command("submit")).exit_code == 0
    write_run(workspace.folder, small_csv("more"))
    result = harness.run(workspace, *workspace.command("submit"))
    assert result.exit_code == 2 and f"nothing was uploaded: {says}" in result.error
    assert ("after 00:00 UTC, in" in result.error) != total
    assert workspace.competition.steps().count("start") == 1
