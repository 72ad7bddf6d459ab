"""Whatever the Kaggle client prints is read, or refused in one line with its own words; never another error."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.base.console import UserError
from src.competition import client, queries
from src.competition.client import WaitPolicy
from src.competition.errors import KaggleError, KaggleUnavailable
from src.competition.ledger import Event, Ledger
from src.competition.queries import check_submissions_left, leaderboard, list_submissions, number_of

POLICY = WaitPolicy()
ROWS = [
    {"ref": 17, "description": "[run:0123456789ab] first", "status": "COMPLETE", "publicScore": "31.25"},
    {"ref": 18, "description": "second [run:0123456789ac]"},  # as older versions have written it; PENDING is left out
]
SUBMISSIONS = json.dumps({"submissions": ROWS})
LIMITS = '{"numAllowedNow": 3, "numTotal": 9, "numToday": 5, "limitedByTotal": false}'
PLACES = '{"submissions": [{"teamName": "Our team", "score": "31.2"}], "nextPageToken": "abc"}'
ANSWERS = [SUBMISSIONS, LIMITS, PLACES, "{}", ""]
CUTS = st.tuples(st.sampled_from(ANSWERS), st.integers(0, 300), st.text(max_size=12), st.integers(0, 40))
ODD = st.sampled_from(
    ["null", "{}", "[]", "{" * 900, '{"numAllowedNow": "x"}', '{"numAllowedNow": [1]}', "9" * 5000, "<html>"]
)


def mutated(cut: tuple[str, int, str, int]) -> str:
    text, place, inserted, removed = cut
    return text[:place] + inserted + text[place + removed :]


def answered(body: str) -> Callable[..., tuple[int, str]]:
    """Returns a stand-in for the client, which records one call with this answer."""

    def run(words: tuple[str, ...], policy: WaitPolicy) -> tuple[int, str]:
        call = {"submissions": "ListSubmissions", "submission-limits": "GetSubmissionLimits"}.get(words[1])
        answer = {"call": call or "GetLeaderboard", "status": 200, "body": body}
        return 0, f"\n\x1e{json.dumps(answer)}\n"

    return run


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=st.one_of(CUTS.map(mutated), ODD, st.text(max_size=60)))
def test_every_answer_is_read_or_refused(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(client, "_run_client", answered(answer))
    monkeypatch.setattr(queries, "MAX_PLACES", 3)
    for ask in (list_submissions, check_submissions_left, leaderboard):
        try:
            ask("slug", POLICY)
        except KaggleError as error:
            assert "\n" not in str(error)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets what Kaggle answers."""
    return lambda text: monkeypatch.setattr(client, "_run_client", answered(text))


def test_the_usual_answers_are_read(answer: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    answer(SUBMISSIONS)
    first, second = list_submissions("slug", POLICY).values()
    assert (first.ref, first.status, first.public_score, first.private_score) == ("17", "COMPLETE", 31.25, None)
    assert (second.status, second.public_score) == ("PENDING", None)
    answer(LIMITS)
    check_submissions_left("slug", POLICY)
    assert capsys.readouterr().out == "3 submissions to slug are left today\n"


@pytest.mark.parametrize("score", ["abc", "nan", "inf", "1e999", "31,234", "<b>", "n/a", ["3"], {"value": 3}])
def test_a_score_that_is_no_number_is_kept_as_text(answer: Callable[[str], None], score: object) -> None:
    """The submission is listed all the same. Without it, the csv would be uploaded a second time."""
    answer(json.dumps({"submissions": [{**ROWS[0], "publicScore": score}, ROWS[1]]}))
    first, second = list_submissions("slug", POLICY).values()
    assert (first.public_score, first.odd_score, first.is_final) == (None, str(score), True)
    assert not second.is_final


@pytest.mark.parametrize("name", ["ref", "description", "status", "publicScore", "date"])
@pytest.mark.parametrize("value", [None, 7, "", "strange", [1]])
def test_an_odd_row_hides_no_other(answer: Callable[[str], None], name: str, value: object) -> None:
    answer(json.dumps({"submissions": [{**ROWS[0], name: value}, ROWS[1]]}))
    assert "0123456789ac" in list_submissions("slug", POLICY)


def test_a_status_that_is_not_known_is_final_with_a_score(answer: Callable[[str], None]) -> None:
    answer(json.dumps({"submissions": [{**ROWS[0], "status": "SCORED"}, {**ROWS[1], "status": "SCORED"}]}))
    first, second = list_submissions("slug", POLICY).values()
    assert (first.is_final, second.is_final, second.state) == (True, False, "SCORED")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("31.25", 31.25),
        ("1,234.5", 1234.5),
        ("18,12", 18.12),
        ("35.1 dB", 35.1),
        ("-3", -3.0),
        ("2e1", 20.0),
        ("٣", None),
    ],
)
def test_a_score_is_any_text_that_certainly_means_a_number(text: str, number: float | None) -> None:
    assert number_of(text) == number


@pytest.mark.parametrize("cut", [1, 40, 100, 150])
def test_a_list_that_is_cut_off_is_no_shorter_list(answer: Callable[[str], None], cut: int) -> None:
    answer(SUBMISSIONS[:-cut])
    with pytest.raises(KaggleUnavailable):
        list_submissions("slug", POLICY)


def test_an_empty_list_is_empty(answer: Callable[[str], None]) -> None:
    answer("{}")
    assert list_submissions("slug", POLICY) == {}


def test_limits_that_cannot_be_read_are_left_to_kaggle(
    answer: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("no number", '{"numAllowedNow": "many"}', '{"numToday": 2}', "{}", "{" * 900 + "}"):
        answer(text)
        check_submissions_left("slug", POLICY)
        assert "it is not known how many submissions to slug are left" in capsys.readouterr().out


def test_a_bad_line_of_the_ledger_hides_no_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(Event(event="intent", competition="slug", run="a", tag="1"))
    with ledger.path.open("a") as file:
        file.write(json.dumps({"event": "scored", "competition": "slug", "run": "x", "tag": "9"}) + "\n[1]\n")
    ledger.append(Event(event="intent", competition="slug", run="b", tag="2"))
    submissions, notes = ledger.readable()
    assert [each.intent.run for each in submissions] == ["a", "b"]
    assert len(notes) == 2 and "is scored without an intent line" in notes[0] and "line 3 is damaged" in notes[1]
    with pytest.raises(UserError), contextlib.nullcontext():
        ledger.submissions()
