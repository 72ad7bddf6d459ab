"""The credentials that the kaggle client uses. It finds them itself.

They are read here only to name their source, to check who can read the files, and to remove secrets from everything
that is printed or written.
"""

import os
import re
from itertools import chain
from pathlib import Path

from src.base.console import say
from src.base.reading import Unreadable, read_bytes, read_table

MAX_CREDENTIALS_BYTES = 2**20


def credential_files() -> dict[str, list[Path]]:
    """Returns the existing files with credentials: those with a token, and those that the client reads after them."""
    home_folder = _home()
    home = home_folder / ".kaggle"
    settings = os.environ.get("KAGGLE_CONFIG_DIR")
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or home_folder / ".config")
    legacy = Path(settings) if settings else home if home.exists() else config_home / "kaggle"
    named = [Path(os.environ["KAGGLE_API_TOKEN"])] if os.environ.get("KAGGLE_API_TOKEN") else []
    groups = {
        "KAGGLE_API_TOKEN": named,
        "token": [home / "access_token", home / "access_token.txt"],
        "later": [legacy / "kaggle.json", home / "credentials.json"],
    }
    return {group: [path for path in paths if _is_file(path)] for group, paths in groups.items()}


def credential_sources() -> list[str]:
    """Returns the sources of all existing credentials, in the client's order of preference."""
    files = credential_files()
    sources = ["KAGGLE_API_TOKEN"] if os.environ.get("KAGGLE_API_TOKEN") else []
    sources += map(str, files["token"])
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        sources.append("KAGGLE_USERNAME and KAGGLE_KEY")
    return [*sources, *map(str, files["later"])]


def warn_about_readable_credentials() -> None:
    """Prints a warning for each file with credentials that other users of the machine can read."""
    for path in chain.from_iterable(credential_files().values()):
        if path.stat().st_mode & 0o077:
            say(f"warning: other users of this machine can read {path}; run: chmod 600 {path}")


def redact(text: str) -> str:
    """Returns the text without secrets: credentials, authorization headers and the signatures of storage URLs."""
    secrets = [os.environ.get(name, "") for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY")]
    for path in chain.from_iterable(credential_files().values()):
        content = read_bytes(path, MAX_CREDENTIALS_BYTES).decode(errors="replace").strip()
        secrets += re.findall(r'"(?:key|refresh_token|access_token)"\s*:\s*"([^"]+)"', content) or content.split()
    for secret in sorted((secret for secret in secrets if len(secret) > 5), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"\b(Bearer|Basic) [^\s'\"]+", r"\1 ***", text)
    return re.sub(r"(https?://[^\s?'\")]+)\?[^\s'\")]+", r"\1", text)


def _home() -> Path:
    """Returns the user's home folder; the present one for a user without, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return Path.cwd()


def is_json(path: Path) -> bool:
    """Returns whether a file is a JSON table."""
    try:
        read_table(path)
    except Unreadable:
        return False
    return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the value can be a token, which is too long for a file name
        return False
