"""What the client's words mean: which credentials it used, and one clear line for every way in which it fails.

The client finds credentials by itself. They are read here only to name them, to guard them and to keep them out of
whatever is printed or written.
"""

import json
import os
import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from src.base.console import UserError, say

SUBMITTED = re.compile(r"^(\d+ submissions remaining today|Successfully submitted)", re.MULTILINE)
UPLOAD_ENDED = re.compile(r"\[[\d:]+[<,][^\]\n]*\] *\r?\n")  # the client's bar gets its line's end when the upload ends
REFUSED_AT_LAST = re.compile(  # what the service alone says, when it does not register a file that it has
    r"^4(?!08|09|99)\d\d Client Error: .* for url: \S*Service/|^Authentication required$"
    r"|used its daily submission allowance|must accept this competition's rules",
    re.I,
)
TOKEN_PAGE = "https://www.kaggle.com/settings/api"
WORDS = (  # the service may answer with a sentence alone, without its status
    (401, re.compile(r"authentication required|unauthenticated|unauthorized|invalid credentials", re.I)),
    (429, re.compile(r"too many requests|rate.?limit", re.I)),
    (500, re.compile(r"internal|unavailable|an error occurred|deadline exceeded|time.?out", re.I)),
    (403, re.compile(r"accept\b.*\brules|denied|forbidden|not permitted", re.I)),
    (404, re.compile(r"^(404\W*)?not found|competition not found|could not find", re.I)),
    (
        400,
        re.compile(r"allowance|not found|not allowed|too large|deadline has passed|\b(closed|ended)\b|invalid", re.I),
    ),
)


class KaggleError(UserError):
    """Kaggle did not do what it was asked: what happened, and what mends it."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what}; {mend}")
        self.what, self.mend = what, mend


class KaggleRefusal(KaggleError):
    """Kaggle said no, or cannot be asked at all: asking again helps only after the user has mended something."""


class KaggleSilence(KaggleError):
    """No usable answer: 5xx, the network, a time-out, nonsense. Waiting may help."""


class KaggleBusy(KaggleSilence):
    """Status 429: the request was turned away unread."""


def competition_page(slug: str, page: str = "") -> str:
    """Returns the address of a competition's page, or of one below it such as "rules"."""
    return f"https://www.kaggle.com/competitions/{slug}{page and '/' + page}"


AGAIN = "run the same command again"
PLAIN = (  # what the client says when the service said nothing
    (r"No space left on device", KaggleRefusal, "the disk is full", f"free some space and {AGAIN}"),
    (r"No module named", KaggleRefusal, "the kaggle client is not whole", "run `make setup`"),
    (
        r"ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Max retries exceeded|Connection aborted"
        r"|ConnectionReset|RemoteDisconnected|ProtocolError|IncompleteRead|timed out",
        KaggleSilence,
        "Kaggle cannot be reached",
        f"check the network and the proxy settings, then {AGAIN}",
    ),
    (
        r"JSONDecodeError|Expecting value",
        KaggleSilence,
        "something other than Kaggle answered, perhaps a login page of the network",
        f"open https://www.kaggle.com in a browser, then {AGAIN}",
    ),
    (r"Error: .*for url: (?!\S*Service/)", KaggleSilence, "Kaggle's storage refused", f"{AGAIN}, for addresses change"),
)


def explain(output: str, slug: str) -> KaggleError:
    """Returns the error for what a failed client printed."""
    reason = _reason(redact(output))
    for pattern, kind, what, mend in PLAIN:
        if re.search(pattern, reason):
            return kind(what, mend)
    if status := re.search(r"\b([45]\d\d) (?:Client|Server) Error", reason):
        return _explain_status(int(status[1]), reason, slug)
    for number, words in WORDS:
        if words.search(reason):
            return _explain_status(number, reason, slug)
    return KaggleSilence(f"the kaggle client failed ({reason})", AGAIN)


@dataclass(frozen=True)
class Verdict:
    """What an upload's log proves: Kaggle has it, Kaggle does not have it, or neither; why, and what mends it."""

    outcome: Literal["accepted", "refused", "unclear"]
    what: str = ""
    mend: str = AGAIN


def judge_upload(log: str, exit_code: int | None, slug: str, *, whole: bool = True) -> Verdict:
    """Returns what an upload's log proves.

    exit_code: None where another process saw the end, or nobody. whole: whether nothing of the log can be lost; only
    then the missing end of the bar proves that the upload never came to it.
    """
    cancelled, ended = "User cancelled" in log, UPLOAD_ENDED.search(log)
    finished = (exit_code == 0 and not cancelled) or SUBMITTED.search(log)
    if "Could not submit" in log:  # with exit code 0
        return Verdict("refused", "the storage did not take the file")
    if finished and ended:
        return Verdict("accepted")
    may_have_arrived = ended or finished or not whole
    if exit_code is None or exit_code < 0 or cancelled:
        return Verdict("unclear" if may_have_arrived else "refused", "the upload was interrupted")
    problem = explain(log, slug)
    refused = exit_code == 1 and (not may_have_arrived or REFUSED_AT_LAST.search(_reason(log)))
    return Verdict("refused" if refused else "unclear", problem.what, problem.mend)


def percent_uploaded(log: str) -> float:
    """Returns how much of the file is uploaded, 0 to 100, from the client's bar."""
    found = re.findall(r"(\d+)%\|", log)
    return float(found[-1]) if found else 0.0


def _reason(output: str) -> str:
    """Returns the line that says why: the last one, but for the help that follows a 401 and missing credentials."""
    lines = [line.strip() for line in output.splitlines()]
    lines = [line for line in lines if line and not line.startswith("Warning:")] or ["it printed nothing"]
    asks_for_login = lines.count("Authentication required to call the Kaggle API.") > 0 and "Traceback" not in output
    return "Authentication required" if asks_for_login else lines[-1].removeprefix("requests.exceptions.")


def _explain_status(status: int, reason: str, slug: str) -> KaggleError:
    if status == 429:
        return KaggleBusy("Kaggle was asked too often (429)", f"{AGAIN} in a few minutes")
    if status == 408 or status >= 500:
        return KaggleSilence(f"Kaggle is out of order ({status}: {reason})", f"{AGAIN} in a few minutes")
    if status == 401:
        return _explain_credentials()
    if status == 403:
        mend = (
            f"accept the rules at {competition_page(slug, 'rules')} and check the slug, a wrong one is denied as well"
        )
        return KaggleRefusal(f"Kaggle denies access to {slug} (403: {reason})", mend)
    if status == 404:
        mend = "the slug is the last part of the competition's address, see https://www.kaggle.com/competitions"
        return KaggleRefusal(f"Kaggle knows no competition {slug} (404: {reason})", mend)
    return KaggleRefusal(f"Kaggle refused ({reason})", f"see {competition_page(slug)}")


def _explain_credentials() -> KaggleRefusal:
    sources = credential_sources()
    if not sources:
        mend = (
            f"make a token at {TOKEN_PAGE} and save it as ~/.kaggle/access_token (chmod 600), or set KAGGLE_API_TOKEN"
        )
        return KaggleRefusal("no Kaggle credentials were found", mend)
    if sources[0].endswith(".json") and not _is_json(Path(sources[0])):
        return KaggleRefusal(f"{sources[0]} is not valid JSON", f"make a new one at {TOKEN_PAGE}")
    hidden = f", and used before {', '.join(sources[1:])}" if len(sources) > 1 else ""
    what = f"Kaggle does not accept the credentials in {sources[0]}: wrong or expired{hidden}"
    return KaggleRefusal(what, f"make new ones at {TOKEN_PAGE}, or `kaggle auth login`")


def credential_files() -> dict[str, list[Path]]:
    """Returns the files with credentials that exist: those with a token, and those that the client tries later."""
    home, settings = Path.home() / ".kaggle", os.environ.get("KAGGLE_CONFIG_DIR")
    config_home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    legacy = Path(settings) if settings else home if home.exists() else config_home / "kaggle"
    named = [Path(os.environ["KAGGLE_API_TOKEN"])] if os.environ.get("KAGGLE_API_TOKEN") else []
    groups = {
        "KAGGLE_API_TOKEN": named,
        "token": [home / "access_token", home / "access_token.txt"],
        "later": [legacy / "kaggle.json", home / "credentials.json"],
    }
    return {group: [path for path in paths if _is_file(path)] for group, paths in groups.items()}


def credential_sources() -> list[str]:
    """Returns the names of all credentials that exist, those that the client prefers first."""
    files = credential_files()
    sources = ["KAGGLE_API_TOKEN"] if os.environ.get("KAGGLE_API_TOKEN") else []
    sources += map(str, files["token"])
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        sources.append("KAGGLE_USERNAME and KAGGLE_KEY")
    return [*sources, *map(str, files["later"])]


def warn_of_open_files() -> None:
    """Says which files with credentials other users of the machine can read."""
    for path in chain.from_iterable(credential_files().values()):
        if path.stat().st_mode & 0o077:
            say(f"warning: other users of this machine can read {path}; run: chmod 600 {path}")


def redact(text: str) -> str:
    """Returns the text without any secret: credentials, authorization headers, the signatures of storage addresses."""
    secrets = [os.environ.get(name, "") for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY")]
    for path in chain.from_iterable(credential_files().values()):
        content = path.read_text(encoding="utf-8", errors="replace").strip()
        secrets += re.findall(r'"(?:key|refresh_token|access_token)"\s*:\s*"([^"]+)"', content) or content.split()
    for secret in sorted((secret for secret in secrets if len(secret) > 5), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"\b(Bearer|Basic) [^\s'\"]+", r"\1 ***", text)
    return re.sub(r"(https?://[^\s?'\")]+)\?[^\s'\")]+", r"\1", text)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:  # of the text or of its encoding
        return False
    return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a token can be too long for a file's name
        return False
