"""Names that people give: of runs, data sets and grids. A name is part of file names, so it must be a plain one."""

import difflib
import re
from pathlib import Path

from src.base.command_line import given_path
from src.base.console import UserError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
NEEDED = "up to 100 letters, digits, '.', '_' and '-', the first of them a letter or a digit"


def checked_name(text: str, variable: str) -> str:
    """Returns the name that a variable of Make gives, without the slash of tab completion.

    UserError for a text that is no name, such as a path, a hidden file or an empty text.
    """
    name = text.rstrip("/")
    if not NAME.fullmatch(name):
        inner = Path(name).name.removesuffix(".toml")
        near = f"; did you mean {variable}={inner}?" if "/" in name and NAME.fullmatch(inner) else ""
        raise UserError(f"{variable}={shortened(printable(text))}; needed: {NEEDED}{near}")
    return name


def shortened(text: str, length: int = 80) -> str:
    """Returns a text, or its beginning, for a message."""
    return text if len(text) <= length else f"{text[:length]}..."


def printable(text: str) -> str:
    """Returns a text for a message in one line: if it holds characters that cannot be printed, they are escaped."""
    return text if text.isprintable() else repr(text)


def toml_file(text: str, folder: Path, variable: str) -> Path:
    """Returns the TOML file that a variable of Make means: the name of a file in `folder`, or a path.

    The stem of the file is a name; UserError if it is none.
    """
    path = given_path(text) if text.endswith(".toml") else folder / f"{checked_name(text, variable)}.toml"
    checked_name(path.stem, variable)
    return path


def existing_toml(path: Path, variable: str) -> Path:
    """Returns the path of a TOML file; UserError, which names the nearest file beside it, if it does not exist."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; needed: a TOML file")
    if not path.is_file():
        known = sorted(found.stem for found in path.parent.glob("*.toml"))
        raise UserError(f"{path} does not exist; {nearest(path.stem, known, variable)}")
    return path


def nearest(name: str, known: list[str], variable: str) -> str:
    """Returns a question with the known name that is most similar to a mistyped one, or the list of all."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {variable}={close[0]}?" if close else f"there are: {', '.join(known) or 'none'}"


def is_name(text: str) -> bool:
    """Returns whether a text is the name of a run, a data set or a grid."""
    return NAME.fullmatch(text) is not None
