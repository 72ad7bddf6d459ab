"""Names of runs, data sets and grids."""

import pytest

from src.base.console import UserError
from src.base.names import checked_name, is_name


@pytest.mark.parametrize("name", ["a", "dance_mini", "dance-mini-s0", "2026.run", "A" * 100])
def test_plain_names_are_taken_with_or_without_the_slash_of_tab_completion(name: str) -> None:
    assert checked_name(name, "RUN") == checked_name(f"{name}/", "RUN") == name
    assert is_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        ".",
        "..",
        ".hidden",
        "-x",
        "a/b",
        "../runs/a",
        "/tmp/a",
        "a b",
        "a\nb",
        "ä",
        "a\0",
        "A" * 101,
        "*",
        "a\udcff",
    ],
)
def test_other_texts_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^RUN=.*; needed: up to 100 letters") as error:
        checked_name(text, "RUN")
    assert text[:80] in str(error.value) or repr(text) in str(error.value)
    assert not is_name(text)


def test_the_name_in_a_path_is_suggested() -> None:
    with pytest.raises(UserError, match=r"; did you mean RUN=demo\?$"):
        checked_name("configs/demo.toml", "RUN")
    with pytest.raises(UserError, match=r"first of them a letter or a digit$"):
        checked_name("runs/..", "RUN")
