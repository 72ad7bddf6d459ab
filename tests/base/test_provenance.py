"""The commit of the code, and what git says against it."""

from pathlib import Path

import pytest

from src.base import provenance


def test_a_checkout_of_another_user_is_named_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git itself then behaves so
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    provenance._say_once.cache_clear()
    assert provenance.commit() is None and provenance.commit() is None
    said = capsys.readouterr().out
    assert said.count("git does not trust a checkout of another user; to mend it: git config --global --add") == 1


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None


def test_code_that_was_carried_to_another_machine_knows_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = tmp_path / ".commit"
    monkeypatch.setattr(provenance, "CARRIED", carried)
    for text, expected in (("0123456789ab", "0123456789ab"), ("", None)):
        carried.write_text(text)
        assert provenance.commit() == expected
