"""Tests of the ledger: it only appends, several processes can write, and unreadable lines are reported."""

import errno
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.base.console import UserError
from src.base.reading import sealed_line
from src.competition.ledger import Event, Ledger

ROOT = Path(__file__).parents[2]
TAGS = ("0123456789ab", "ba9876543210")


def event(kind: str = "intent", tag: str = TAGS[0], **fields: object) -> Event:
    return Event.model_validate({"event": kind, "competition": "slug", "run": "run", "tag": tag} | fields)


WRITER = """
import sys
from pathlib import Path
from src.competition.ledger import Event, Ledger
for number in range(50):
    tag = f"{int(sys.argv[2]):06d}{number:06d}"
    Ledger(Path(sys.argv[1])).append(Event(event="intent", competition="s", run="r", tag=tag, message="x" * 997))
"""


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n)], cwd=ROOT) for n in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    expected = {f"{writer:06d}{number:06d}" for writer in range(3) for number in range(50)}
    lines = path.read_text().splitlines()
    assert {json.loads(line)["tag"] for line in lines} == expected and len(lines) == len(expected)


def test_appending_never_changes_what_is_there(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "new" / "ledger.jsonl")
    before = b""
    for kind in ("intent", "unknown", "accepted", "scored"):
        ledger.append(event(kind))
        after = ledger.path.read_bytes()
        assert after.startswith(before) and after.endswith(b"}\n") and after.count(b"\n") == before.count(b"\n") + 1
        before = after


CROWDED = """
import resource, sys
from pathlib import Path
from src.competition.ledger import Event, Ledger
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40, resource.RLIM_INFINITY))
try:
    Ledger(path).append(Event(event="intent", competition="s", run="r", tag="t", message="x" * 99))
except OSError as error:
    print(error.errno, error.filename)
"""


def test_a_line_that_does_not_fit_is_an_error_and_not_half_a_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(event())
    before = ledger.path.read_bytes()
    output = subprocess.check_output([sys.executable, "-c", CROWDED, str(ledger.path)], cwd=ROOT, text=True)
    assert output == f"{errno.ENOSPC} {ledger.path}\n"
    assert len(ledger.path.read_bytes()) == len(before) + 40  # the disk was full during the write, not before it
    ledger.append(event(tag=TAGS[1]))
    assert [found.tag for found in ledger.events()] == list(TAGS)


def test_one_csv_in_two_competitions_has_one_tag_and_two_submissions(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for name in ("one", "two"):
        ledger.append(event(competition=name, message=name))
    ledger.append(event("refused", competition="one"))
    assert [entry.state for entry in ledger.submissions()] == ["refused", "intent"]
    assert ledger.submission("two", TAGS[0]).intent.message == "two"


@settings(max_examples=30, deadline=None)
@given(text=st.text(), score=st.floats(allow_nan=False, allow_infinity=False))
def test_an_event_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, text: str, score: float) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.jsonl")
    written = event(message=text, local_score=score, commit=text)
    ledger.append(written)
    ledger.append(event("scored", status="COMPLETE", public_score=score))
    assert ledger.events()[0] == written
    assert ledger.submissions()[0].latest.public_score == score


@pytest.mark.parametrize("cut", [1, 20, 90, -40])
def test_an_incomplete_last_line_is_reported_and_skipped(
    tmp_path: Path, cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(event())
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + sealed_line(event(tag=TAGS[1], message="a}b"))[:cut])
    assert [found.tag for found in ledger.events()] == [TAGS[0]]
    assert "line 2: incomplete, because a crash interrupted its writing" in capsys.readouterr().out
    ledger.append(event("scored", status="COMPLETE"))  # starts a new line
    assert ledger.submission("slug", TAGS[0]).state == "scored"
    assert ledger.path.read_bytes().startswith(whole)


def test_zero_bytes_left_by_a_crash_are_ignored(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(event())
    ledger.path.write_bytes(ledger.path.read_bytes() + bytes(300))
    ledger.append(event(tag=TAGS[1]))
    assert [found.tag for found in ledger.events()] == list(TAGS)


@pytest.mark.parametrize("line", ["<<<<<<< HEAD", '{"event": "intent"}', '{"event": "sold", "tag": "x"}', "7"])
def test_other_lines_that_cannot_be_read_are_errors(tmp_path: Path, line: str) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(event())
    ledger.path.write_text(ledger.path.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"line 2 (is damaged|cannot be read).*; restore the original line"):
        ledger.events()


SENT = {"csv_sha256": f"{TAGS[0]}{'5' * 52}", "message": "a run [run:0123456789ab]", "local_score": 31.25}


def test_no_changed_bit_of_a_ledger_goes_unseen(tmp_path: Path) -> None:
    """A wrong digit would let the same csv be uploaded twice."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(event(**SENT))
    ledger.append(event("accepted", ref="40000"))
    whole, known = ledger.path.read_bytes(), ledger.events()
    for place, bit in itertools.product(range(len(whole)), range(8)):
        ledger.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            assert ledger.events() == known, (place, bit)
        except UserError as error:
            assert "ledger.jsonl" in str(error) and "\n" not in str(error)


def test_a_line_that_lacks_its_last_sign_alone_is_read(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.path.write_bytes(sealed_line(event(**SENT))[:-2])
    assert ledger.events()[0].csv_sha256 == SENT["csv_sha256"]


def test_a_line_of_an_older_version_has_no_checksum(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.path.write_text(f"{event(**SENT).model_dump_json(exclude_none=True)}\n")
    assert ledger.events()[0].csv_sha256 == SENT["csv_sha256"]
    ledger.path.write_text(ledger.path.read_text().replace("555", "655"))
    assert len(ledger.events()) == 1
    ledger.path.write_text(ledger.path.read_text().replace(f'"{TAGS[0]}6', '"0123456789ac6'))
    with pytest.raises(UserError, match="the tag 0123456789ab is not that of a csv with the hash 0123456789ac"):
        ledger.events()


def test_an_infinite_score_comes_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(event(local_score=math.inf))
    assert ledger.events()[0].local_score == math.inf


def test_an_event_without_its_intent_is_an_error(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(event("accepted"))
    with pytest.raises(UserError, match="accepted without an intent line"):
        ledger.submissions()


def test_the_latest_line_gives_the_state(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    assert ledger.submissions() == []
    for kind, tag, fields in (
        ("intent", TAGS[0], {"message": "first"}),
        ("intent", TAGS[1], {"message": "second"}),
        ("accepted", TAGS[0], {"ref": "40000"}),
        ("refused", TAGS[1], {"reason": "no"}),
        ("scored", TAGS[0], {"status": "COMPLETE", "public_score": 31.25}),
    ):
        ledger.append(event(kind, tag, **fields))
    first, second = ledger.submissions()
    assert (first.intent.message, first.state, first.ref, first.latest.public_score) == (
        "first",
        "scored",
        "40000",
        31.25,
    )
    assert (second.intent.message, second.state, second.ref, second.latest.reason) == ("second", "refused", None, "no")


def test_an_incomplete_line_is_reported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.path.write_text('{"event": "int')
    assert ledger.events() == ledger.events() == []
    assert capsys.readouterr().out.count("because a crash interrupted its writing") == 1
