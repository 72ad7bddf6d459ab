"""Reading JSON and TOML: the right table, or one line; never another error."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from src.base import reading
from src.base.console import UserError
from src.base.reading import (
    Unreadable,
    parse_json,
    parse_table,
    parse_toml,
    read_bytes,
    read_json,
    read_text,
    sealed_json,
)


class Point(BaseModel):
    """Something to read."""

    x: int
    y: float = 0.0


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_json_agrees_with_the_standard_library(table: dict[str, object]) -> None:
    text = json.dumps(table)
    assert parse_table(text.encode(), "file") == json.loads(text)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[1]", b"3", b"null", b"\xff", b"\0" * 9, b'{"a": nan}'),
        b"[" * 100_000,
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\\ud800"}',
    ],
)
def test_what_is_no_table_is_one_line(data: bytes) -> None:
    with pytest.raises(Unreadable, match=r"^config.json is damaged: [^\n]*$"):
        parse_table(data, "config.json")


@pytest.mark.parametrize("text", ["a", "a = ", "a = 1\na = 2", "a = " + "[" * 9000, "a = " + "9" * 5000, "a = '\udcff"])
def test_what_is_no_toml_is_one_line(text: str) -> None:
    with pytest.raises(Unreadable, match=r"^run.toml is not valid TOML: "):
        parse_toml(text, "run.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"y": 1}', "x: field required"), ('{"x": "a"}', "x: input should be a valid integer"), ('{"x": 1.5}', "x: ")],
)
def test_another_shape_names_the_key(text: str, words: str) -> None:
    with pytest.raises(Unreadable, match=r"^file cannot be read \(") as error:
        parse_json(text, Point, "file")
    assert words in str(error.value)
    assert parse_json('{"x": 3}', Point, "file") == Point(x=3)


def test_files_that_are_no_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, latin = tmp_path / "pipe", tmp_path / "latin"
    os.mkfifo(pipe)
    latin.write_bytes(b"caf\xe9")
    for path, words in (
        (tmp_path / "absent", "does not exist"),
        (tmp_path, "is no plain file"),
        (pipe, "is no plain file"),
        (Path("/dev/zero"), "is no plain file"),
        (latin, "is no text in UTF-8 .* at byte 3"),
        (Path("a\0b"), "is no name of a file"),
    ):
        with pytest.raises(Unreadable, match=words):
            read_text(path)
    monkeypatch.setattr(reading, "MAX_TEXT_BYTES", 3)
    with pytest.raises(Unreadable, match="has 4 bytes; at most 3 are read"):
        read_json(latin, Point)
    assert read_bytes(latin) == b"caf\xe9"


class Measured(BaseModel):
    score: float
    name: str


def test_a_changed_byte_of_a_sealed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    content = sealed_json(Measured(score=24.5, name="a"))
    assert json.loads(content).keys() == {"score", "name", "checksum"}
    path.write_bytes(content)
    assert read_json(path, Measured) == Measured(score=24.5, name="a")
    for place in range(len(content) - 1):  # the line break at the end is no content
        for bit in (1, 4):
            changed = bytearray(content)
            changed[place] ^= bit
            path.write_bytes(changed)
            try:
                found = read_json(path, Measured)
            except UserError:
                continue
            assert found == Measured(score=24.5, name="a"), bytes(changed)  # only the name of the checksum has changed
    path.write_text('{"score": 24.5, "name": "a"}')
    assert read_json(path, Measured).score == 24.5  # of an older version
