"""The command line of every command: one line for a mistake, and bounds for numbers."""

import argparse
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from src.base.console import UserError

MORE = "--args="  # an option whose text holds further options; make passes ARGS with it


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{message}; `{self.prog} --help` lists the options")


def given_path(text: str) -> Path:
    """Returns the path that a person has written; "~" stands for the home folder, as in a shell. UserError for none."""
    if not text or "\0" in text or "\n" in text:
        raise UserError(f"{text!r} is no path; needed: a file or a folder")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: this user has no home folder; needed: the whole path, without ~") from None


def path_option(text: str) -> Path:
    """Returns the path that an option takes, as `given_path` does."""
    try:
        return given_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def whole(low: int, high: int) -> Callable[[str], int]:
    """Returns the type of an option that takes a whole number from `low` to `high`."""

    def number(text: str) -> int:
        if not (text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 20 and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"{text!r}; needed: a whole number from {low} to {high}")
        return int(text)

    return number


def seconds(text: str) -> float:
    """Returns the seconds that an option takes, up to a month."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 2_700_000:
        raise argparse.ArgumentTypeError(f"{text!r}; needed: seconds, from 0 to 2,700,000")
    return value


def with_more(words: list[str]) -> list[str]:
    """Returns the words of a command line; the text of `--args=` is split into words as a shell splits it.

    Nothing in that text is run: a shell never sees it.
    """
    split: list[str] = []
    for word in words:
        if not word.startswith(MORE):
            split.append(word)
            continue
        try:
            split += shlex.split(word.removeprefix(MORE))
        except ValueError as error:
            raise UserError(f"ARGS={word.removeprefix(MORE)} cannot be read: {error}") from None
    return split
