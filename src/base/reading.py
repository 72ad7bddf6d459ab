"""Reading files: the one place where bytes of the disk become JSON or TOML. Sizes, nesting and numbers have bounds.

A reader gives the file's content in the shape that its caller names, or raises `Unreadable` in one line. The caller
adds what helps.
"""

import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from src.base.console import UserError

MAX_TEXT_BYTES = 2**26  # of a JSON, JSONL or TOML file
MAX_BYTES = 2**35  # of any file that is read whole
SEALED = re.compile(rb'(\{.*),"checksum":"([0-9a-f]{16})".?', re.DOTALL)  # a line of `sealed_line`
SEALED_FILE = re.compile(rb'(\{.*),\n "checksum": "([0-9a-f]{16})"\n\}\n', re.DOTALL)  # a file of `sealed_json`

Schema = TypeVar("Schema", bound=BaseModel)


class Unreadable(UserError):
    """A file that is missing, too large, damaged, or of another shape than needed."""


def open_plain(path: Path) -> BufferedReader:
    """Opens a plain file for reading; Unreadable if it is missing or no plain file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a named pipe would wait for ever
    except FileNotFoundError:
        raise Unreadable(f"{path} does not exist") from None
    except ValueError:  # a zero byte in the name
        raise Unreadable(f"{str(path)!r} is no name of a file") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unreadable(f"{path} is no plain file")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Returns the content of a plain file; Unreadable if it is missing, no plain file, or larger than `limit` bytes."""
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise Unreadable(f"{path} has {size:,} bytes; at most {limit:,} are read")
        return file.read(size)


def read_text(path: Path) -> str:
    """Returns the content of a text file in UTF-8; Unreadable if it is none."""
    try:
        return read_bytes(path, MAX_TEXT_BYTES).decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start})") from None


def read_json(path: Path, schema: type[Schema]) -> Schema:
    """Returns the content of a JSON file in the class that writes it; Unreadable if it does not have its shape."""
    return read_chosen(path, lambda table: schema)


def read_chosen(path: Path, choose: Callable[[dict[str, Any]], type[Schema]]) -> Schema:
    """Returns the content of a JSON file in the class that `choose` returns for its table; Unreadable as `read_json`.

    A file of `sealed_json` is compared with its checksum. Files of older versions have none.
    """
    data = read_bytes(path, MAX_TEXT_BYTES)
    if sealed := SEALED_FILE.fullmatch(data):
        data = sealed[1] + b"\n}\n"
        if _checksum(data) != sealed[2]:
            raise Unreadable(f"{path} is damaged: it does not match its checksum")
    elif b'"checksum":' in data[-40:]:
        raise Unreadable(f"{path} is damaged: its checksum cannot be read")
    table = parse_table(data, str(path))
    return _in_shape(table, choose(table), str(path))


def sealed_json(record: BaseModel) -> bytes:
    """Returns a record as the content of a JSON file whose last key is a checksum of the others."""
    text = record.model_dump_json(indent=1).encode() + b"\n"
    return text.removesuffix(b"\n}\n") + b',\n "checksum": "' + _checksum(text) + b'"\n}\n'


def parse_json(data: bytes | str, schema: type[Schema], origin: str) -> Schema:
    """Returns JSON text in the class that writes it; Unreadable, which names `origin`, if it has another shape."""
    return _in_shape(parse_table(data, origin), schema, origin)


def _in_shape(table: dict[str, Any], schema: type[Schema], origin: str) -> Schema:
    try:
        return schema.model_validate(table)
    except ValidationError as error:
        raise Unreadable(f"{origin} {reason_of(error)}") from None


def sealed_line(record: BaseModel, *, with_none: bool = False) -> bytes:
    """Returns a record as one line of JSON whose last key is a checksum of the others. None is left out by default."""
    return seal(record.model_dump_json(exclude_none=not with_none).encode())


def seal(table: bytes) -> bytes:
    """Returns a table, JSON without spaces in one line, with a checksum of it as its last key, and a line break."""
    return table[:-1] + b',"checksum":"' + _checksum(table) + b'"}\n'


def unseal(line: bytes) -> bytes | None:
    """Returns the table that was given to `seal`; None if it does not match its checksum.

    A line without a checksum is returned as it is: older versions have written such lines.
    """
    if not (sealed := SEALED.fullmatch(line)):
        return line
    table = sealed[1] + b"}"
    return table if _checksum(table) == sealed[2] else None


def parse_sealed(line: bytes, schema: type[Schema], origin: str) -> Schema:
    """Returns the record of a line of `sealed_line`; Unreadable, which names `origin`, if it is damaged."""
    table = unseal(line)
    if table is None:
        raise Unreadable(f"{origin} is damaged: it does not match its checksum")
    return parse_json(table, schema, origin)


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()


def read_table(path: Path) -> dict[str, Any]:
    """Returns the table in a JSON file; Unreadable if it is none."""
    return parse_table(read_bytes(path, MAX_TEXT_BYTES), str(path))


def parse_table(data: bytes | str, origin: str) -> dict[str, Any]:
    """Returns a table from JSON text; Unreadable, which names `origin`, if it is none."""
    table = parse_value(data, origin)
    if not isinstance(table, dict):
        raise Unreadable(f"{origin} is damaged: it holds no table")
    return table


def parse_value(data: bytes | str, origin: str) -> Any:
    """Returns what JSON text says; Unreadable, which names `origin`, if it is no JSON."""
    if not data.strip():
        raise Unreadable(f"{origin} is damaged: it is empty")
    try:
        return from_json(data)  # it bounds the nesting and the digits of a number
    except ValueError as error:
        raise Unreadable(f"{origin} is damaged: {error}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the table in a TOML file; Unreadable if it is none."""
    return parse_toml(read_text(path), str(path))


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """Returns a table from TOML text; Unreadable, which names `origin`, if it is none."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # damaged, too many digits, too deeply nested
        raise Unreadable(f"{origin} is not valid TOML: {error}") from None


def reason_of(error: ValidationError) -> str:
    """Returns the first mistake that pydantic has found, as the end of a sentence: "cannot be read (key: reason)"."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    words = f"{first['msg'][0].lower()}{first['msg'][1:]}"
    return f"cannot be read ({place + ': ' if place else ''}{words})"
