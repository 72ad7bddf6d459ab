"""Waiting for scores and bringing the ledger up to date, on the real client against the loopback server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kaggle_workbench import QUICK, Desk, losses, open_desk, wait_until
from loopback_kaggle import Fault

from src.competition.ledger import Event, Ledger


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with open_desk(tmp_path_factory.mktemp("scores"), forked=True) as desk:
        yield desk


def test_complete_without_a_score_is_not_the_end(desk: Desk) -> None:
    bench = desk.bench("scoreless", public_score="")
    result = desk.run(bench, *bench.command("submit", "--deadline", "0.3"))
    assert result.exit_code == 2 and "has no score after 0 s (Kaggle shows no score for it)" in result.error
    assert "https://www.kaggle.com/competitions/scoreless/submissions" in result.error
    bench.competition.public_score = "30.5"
    assert "public score 30.50" in desk.run(bench, *bench.command("submit")).output and losses(bench) == []


def test_a_csv_that_could_not_be_scored_is_sent_to_the_page_that_says_why(desk: Desk) -> None:
    bench = desk.bench("unscored", scoring="ERROR")
    for _ in range(2):
        result = desk.run(bench, *bench.command("submit"))
        page = "https://www.kaggle.com/competitions/unscored/submissions"
        assert result.exit_code == 2 and f"Kaggle could not score it, {page} shows why" in result.error
    assert losses(bench) == []


def test_a_competition_that_is_gone_does_not_stop_the_others(desk: Desk) -> None:
    bench = desk.bench("stays", scoring="PENDING")
    ledger = Ledger(bench.folder / "submissions/ledger.jsonl")
    ledger.append(Event(event="intent", competition="gone", run="run", tag="f" * 12, message="m", csv_sha256="0" * 64))
    assert desk.run(bench, *bench.command("submit", "--deadline", "0")).exit_code == 2
    bench.competition.scoring = "COMPLETE"
    result = desk.run(bench, "submissions", "--refresh")
    assert result.exit_code == 0 and "gone: nothing new, its list cannot be read: Kaggle knows no" in result.output
    assert [entry.state for entry in bench.submissions] == ["intent", "scored"] and "31.25" in result.output


def test_refreshing_waits_for_a_submit_under_way(desk: Desk) -> None:
    bench = desk.bench("race", pending_lists=3)
    bench.competition.faults[:] = [Fault("limits", "hang", 1, after=1)]  # the last call of the client
    with ThreadPoolExecutor(1) as threads:
        words = bench.command("submit", patience={**QUICK, "--stall": 5})
        submit = threads.submit(desk.run, bench, *words)
        wait_until(lambda: bench.competition.steps().count("limits") == 2)
        assert "waiting for it" in desk.run(bench, "submissions", "--refresh").output
        result = submit.result()
    assert result.exit_code == 0 and "public score 31.25" in result.output and losses(bench) == []
    assert len(bench.competition.submissions) == 1
