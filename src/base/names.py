"""Names that people give: of runs, data sets and grids. A name is part of file names, so it must be a plain one."""

import re
from pathlib import Path

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
        shown = text if text.isprintable() else repr(text)
        raise UserError(f"{variable}={shown}; needed: {NEEDED}{near}")
    return name


def is_name(text: str) -> bool:
    """Returns whether a text is the name of a run, a data set or a grid."""
    return NAME.fullmatch(text) is not None
