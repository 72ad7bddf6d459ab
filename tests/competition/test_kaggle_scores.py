"""Tests of waiting for scores and updating the ledger, with the real client and the loopback server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kaggle_workbench import QUICK_WAITS, Harness, disagreements, open_harness, wait_until
from loopback_kaggle import Fault

from src.competition.ledger import Event, Ledger


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with open_harness(tmp_path_factory.mktemp("scores"), forked=True) as harness:
        yield harness


def test_the_status_complete_without_a_score_is_not_final(harness: Harness) -> None:
    workspace = harness.workspace("scoreless", public_score="")
    result = harness.run(workspace, *workspace.command("submit", "--deadline", "0.3"))
    assert result.exit_code == 2 and "has no score after 0 s (Kaggle shows no score for it)" in result.error
    assert "https://www.kaggle.com/competitions/scoreless/submissions" in result.error
    workspace.competition.public_score = "30.5"
    assert (
        "public score 30.50" in harness.run(workspace, *workspace.command("submit")).output
        and disagreements(workspace) == []
    )


def test_for_a_csv_without_a_score_the_message_names_the_page_with_the_reason(harness: Harness) -> None:
    workspace = harness.workspace("unscored", scoring="ERROR", error_description="3 ids are missing")
    for _ in range(2):
        result = harness.run(workspace, *workspace.command("submit"))
        page = "https://www.kaggle.com/competitions/unscored/submissions"
        assert result.exit_code == 2 and f"could not score it: 3 ids are missing; see {page}" in result.error
    assert disagreements(workspace) == []


def test_a_competition_that_does_not_exist_any_more_does_not_stop_the_others(harness: Harness) -> None:
    workspace = harness.workspace("stays", scoring="PENDING")
    ledger = Ledger(workspace.folder / "submissions/ledger.jsonl")
    ledger.append(Event(event="intent", competition="gone", run="run", tag="f" * 12, message="m", csv_sha256="f" * 64))
    assert harness.run(workspace, *workspace.command("submit", "--deadline", "0")).exit_code == 2
    workspace.competition.scoring = "COMPLETE"
    result = harness.run(workspace, "submissions", "--refresh")
    assert (
        result.exit_code == 0 and "gone: not updated, because its list cannot be read: Kaggle has no" in result.output
    )
    assert [entry.state for entry in workspace.submissions] == ["intent", "scored"] and "31.25" in result.output


def test_refreshing_waits_for_a_running_submit(harness: Harness) -> None:
    workspace = harness.workspace("race", pending_lists=3)
    workspace.competition.faults[:] = [Fault("limits", "hang", 1, after=1)]  # the client's last call
    with ThreadPoolExecutor(1) as threads:
        words = workspace.command("submit", waits={**QUICK_WAITS, "--stall": 5})
        submit = threads.submit(harness.run, workspace, *words)
        wait_until(lambda: workspace.competition.steps().count("limits") == 2)
        assert "waiting for it" in harness.run(workspace, "submissions", "--refresh").output
        result = submit.result()
    assert result.exit_code == 0 and "public score 31.25" in result.output and disagreements(workspace) == []
    assert len(workspace.competition.submissions) == 1
