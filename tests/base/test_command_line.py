"""Options of commands: one line for a mistake, bounds for numbers, and words that no shell has seen."""

from pathlib import Path

import pytest

from src.base.command_line import Parser, given_path, path_option, seconds, whole, with_more
from src.base.console import UserError


@pytest.mark.parametrize("text", ["0", "5", "9"])
def test_a_number_within_its_bounds(text: str) -> None:
    parser = Parser(prog="command")
    parser.add_argument("--count", type=whole(0, 9))
    assert parser.parse_args(["--count", text]).count == int(text)


@pytest.mark.parametrize("text", ["-1", "10", "1.0", "1e0", "1_0", " 1", "", "a", "٣", "9" * 5000, "nan"])
def test_another_number_is_one_line(text: str) -> None:
    parser = Parser(prog="command")
    parser.add_argument("--count", type=whole(0, 9))
    with pytest.raises(UserError, match=r"--count: .*; needed: a whole number from 0 to 9; `command --help` lists"):
        parser.parse_args([f"--count={text}"])


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e400", "a", "3e6"])
def test_a_time_without_end_is_refused(text: str) -> None:
    parser = Parser(prog="command")
    parser.add_argument("--deadline", type=seconds)
    with pytest.raises(UserError, match=r"needed: seconds, from 0 to 2,700,000"):
        parser.parse_args([f"--deadline={text}"])
    assert parser.parse_args(["--deadline=1.5"]).deadline == 1.5


def test_further_options_are_split_as_a_shell_splits_them() -> None:
    words = ["submit", "--run", "a", "--args=--team 'My team' --again $(x) `y` ; z > w"]
    expected = ["submit", "--run", "a", "--team", "My team", "--again", "$(x)", "`y`", ";", "z", ">", "w"]
    assert with_more(words) == expected
    assert with_more(["--args="]) == []
    with pytest.raises(UserError, match=r"^ARGS=it's cannot be read: No closing quotation"):
        with_more(["--args=it's"])


def test_a_path_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ä b")
    parser = Parser(prog="command")
    parser.add_argument("--out", type=path_option)
    assert parser.parse_args(["--out", "~/x y.gif"]).out == Path("/home/ä b/x y.gif")
    assert given_path("a~/b/") == Path("a~/b")
    with pytest.raises(UserError, match=r"--out: '' is no path; needed: a file or a folder; `command --help`"):
        parser.parse_args(["--out", ""])
    with pytest.raises(UserError, match=r"this user has no home folder; needed: the whole path"):
        given_path("~nobody-of-this-name/x")
