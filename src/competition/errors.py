"""Explains the client's output: one clear line for each way in which it fails, and the credentials that it used.

The client finds the credentials itself. They are read here only to name their source, to check who can read the files,
and to remove secrets from everything that is printed or written.
"""

import os
import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from src.base.console import UserError, say
from src.base.names import shortened
from src.base.reading import Unreadable, read_bytes, read_table

SUBMITTED = re.compile(r"^Successfully submitted", re.MULTILINE)  # any other answer is looked up in Kaggle's list
UPLOAD_ENDED = re.compile(
    r"\[[\d:]+[<,][^\]\n]*\] *\r?\n"
)  # the client ends its progress bar's line when the upload ends
FINAL_REFUSAL = re.compile(  # only the service prints these, when it does not register an uploaded file
    r"^4(?!08|09|99)\d\d Client Error: .* for url: \S*Service/|^Authentication required$"
    r"|used its daily submission allowance|must accept this competition's rules"
    r"|^(?!Invalid response)[^\[\]]*\b(only accepts?|from notebooks?|code competition|(has|have) (ended|closed|passed)"
    r"|no longer accept\w*|not accepting|too many (pending|submissions)|pending submissions|not allowed|not eligible"
    r"|not permitted|permission\b.* denied|too large|must (first )?join)\b",
    re.I,
)
MAX_CREDENTIALS_BYTES = 2**20
MAX_REASON = 300  # characters of the client's own words in a message
TOKEN_PAGE = "https://www.kaggle.com/settings/api"
STATUS_OF_MESSAGE = (  # the service can answer with a sentence and no status code
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
    """A request to Kaggle failed: the problem, and what fixes it."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}; {fix}")
        self.problem = problem
        self.fix = fix


class KaggleRefusal(KaggleError):
    """Kaggle refused, or the client cannot run. Trying again helps only after the user has fixed something."""


class KaggleUnavailable(KaggleError):
    """No usable answer: a status 5xx, a network failure, a timeout, or unreadable output. Trying later may help."""


class KaggleRateLimit(KaggleUnavailable):
    """Status 429: Kaggle rejected the request without processing it."""


def competition_page(slug: str, page: str = "") -> str:
    """Returns the URL of a competition's page, or of a page below it such as "rules"."""
    return f"https://www.kaggle.com/competitions/{slug}{page and '/' + page}"


RUN_AGAIN = "run the same command again"
CLIENT_FAILURES = (  # what the client prints when the service has not answered
    (r"No space left on device", KaggleRefusal, "the disk is full", f"free some space and {RUN_AGAIN}"),
    (r"No module named", KaggleRefusal, "the kaggle client's installation is incomplete", "run `make setup`"),
    (
        r"^(PermissionError|FileNotFoundError|NotADirectoryError|IsADirectoryError|OSError)\b|^\[Errno",
        KaggleRefusal,
        "this machine refuses a file or folder that the kaggle client needs",
        f"set HOME, or KAGGLE_CONFIG_DIR, to a folder that can be written, then {RUN_AGAIN}",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError",
        KaggleRefusal,
        "this machine does not trust the certificate of the answer, as behind a company's proxy",
        f"set REQUESTS_CA_BUNDLE to the file with the proxy's certificate, then {RUN_AGAIN}",
    ),
    (
        r"Missing dependencies for SOCKS support",
        KaggleRefusal,
        "the kaggle client cannot use a SOCKS proxy",
        f"set HTTPS_PROXY to an http proxy, then {RUN_AGAIN}",
    ),
    (
        r"NameResolutionError|Temporary failure in name resolution|Name or service not known|getaddrinfo failed",
        KaggleUnavailable,
        "this machine cannot find Kaggle's address",
        f"check the network and its name server, then {RUN_AGAIN}",
    ),
    (
        r"ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Max retries exceeded|Connection aborted"
        r"|ConnectionReset|RemoteDisconnected|ProtocolError|IncompleteRead|timed out",
        KaggleUnavailable,
        "Kaggle cannot be reached",
        f"check the network and the proxy settings, then {RUN_AGAIN}",
    ),
    (
        r"JSONDecodeError|Expecting value",
        KaggleUnavailable,
        "something other than Kaggle answered, perhaps a login page of the network",
        f"open https://www.kaggle.com in a browser, then {RUN_AGAIN}",
    ),
    (
        r"Error: .*for url: (?!\S*Service/)",
        KaggleUnavailable,
        "Kaggle's storage refused the request",
        f"{RUN_AGAIN}; it requests a new storage URL",
    ),
)


def explain(output: str, slug: str) -> KaggleError:
    """Returns the error that the output of a failed client stands for."""
    reason = _reason(redact(output))
    for pattern, kind, problem, fix in CLIENT_FAILURES:
        if re.search(pattern, reason):
            return kind(f"{problem} ({shortened(reason, MAX_REASON)})", fix)
    if "Traceback (most recent call last)" in output:  # an error of the client, never an answer of Kaggle
        return KaggleUnavailable(f"the kaggle client failed ({shortened(reason, MAX_REASON)})", RUN_AGAIN)
    if status := re.search(r"\b([45]\d\d) (?:Client|Server) Error", reason):
        return _explain_status(int(status[1]), reason, slug)
    for status_code, message in STATUS_OF_MESSAGE:
        if message.search(reason):
            return _explain_status(status_code, reason, slug)
    return KaggleUnavailable(f"the kaggle client failed ({shortened(reason, MAX_REASON)})", RUN_AGAIN)


@dataclass(frozen=True)
class Verdict:
    """What an upload's log proves: Kaggle has the file, does not have it, or neither. Also the problem and its fix."""

    outcome: Literal["accepted", "refused", "unclear"]
    problem: str = ""
    fix: str = RUN_AGAIN


def judge_upload(log: str, exit_code: int | None, slug: str, *, complete: bool = True) -> Verdict:
    """Returns what an upload's log proves.

    exit_code: the client's, or None if this process has not seen the client end.
    complete: whether the log is known to be complete. Only then does an unfinished progress bar prove that the upload
    did not finish.
    """
    cancelled = "User cancelled" in log
    ended = UPLOAD_ENDED.search(log)
    finished = SUBMITTED.search(log)
    if "Could not submit" in log:  # the client's exit code is 0 then
        return Verdict("refused", "Kaggle's storage did not accept the file")
    if finished and ended:
        return Verdict("accepted")
    may_have_arrived = ended or finished or (exit_code == 0 and not cancelled) or not complete
    if exit_code is None or exit_code < 0 or cancelled:
        return Verdict("unclear" if may_have_arrived else "refused", "the upload was interrupted")
    if exit_code == 0:
        return Verdict("unclear", f"Kaggle answered: {shortened(_reason(redact(log)), MAX_REASON)}")
    error = explain(log, slug)
    final = "Traceback" not in log and FINAL_REFUSAL.search(_reason(log))
    refused = exit_code == 1 and (final or not may_have_arrived)
    return Verdict("refused" if refused else "unclear", error.problem, error.fix)


def percent_uploaded(log: str) -> float:
    """Returns the percentage of the file that is uploaded, 0 to 100, read from the client's progress bar."""
    found = re.findall(r"\b(\d{1,3})%\|", log)
    return min(100.0, float(found[-1])) if found else 0.0


def _reason(output: str) -> str:
    """Returns the output line that states the reason.

    It is the last line, except after a 401 or missing credentials, where the client prints help text last.
    """
    lines = [line.strip() for line in output.splitlines()]
    lines = [line for line in lines if line and not line.startswith("Warning:")] or ["it printed nothing"]
    asks_for_login = lines.count("Authentication required to call the Kaggle API.") > 0 and "Traceback" not in output
    return "Authentication required" if asks_for_login else lines[-1].removeprefix("requests.exceptions.")


def _explain_status(status: int, reason: str, slug: str) -> KaggleError:
    if status == 429:
        return KaggleRateLimit("Kaggle was asked too often (429)", f"{RUN_AGAIN} in a few minutes")
    if status == 408 or status >= 500:
        return KaggleUnavailable(f"Kaggle cannot answer now ({reason})", f"{RUN_AGAIN} in a few minutes")
    if status == 401:
        return _explain_credentials()
    if status == 403:
        rules = competition_page(slug, "rules")
        fix = f"accept the rules at {rules} and check the slug; Kaggle also denies access to a wrong slug"
        return KaggleRefusal(f"Kaggle denies access to {slug} ({reason})", fix)
    if status == 404:
        fix = "the slug is the last part of the competition's address, see https://www.kaggle.com/competitions"
        return KaggleRefusal(f"Kaggle has no competition named {slug} ({reason})", fix)
    return KaggleRefusal(f"Kaggle refused ({reason})", f"see {competition_page(slug)}")


def _explain_credentials() -> KaggleRefusal:
    sources = credential_sources()
    if not sources:
        fix = f"make a token at {TOKEN_PAGE} and save it as ~/.kaggle/access_token (chmod 600), or set KAGGLE_API_TOKEN"
        return KaggleRefusal("no Kaggle credentials were found", fix)
    if sources[0].endswith(".json") and not _is_json(Path(sources[0])):
        return KaggleRefusal(f"{sources[0]} is not valid JSON", f"make a new one at {TOKEN_PAGE}")
    unused = f"; they are used instead of those in {', '.join(sources[1:])}" if len(sources) > 1 else ""
    problem = f"Kaggle does not accept the credentials in {sources[0]}: they are wrong or expired{unused}"
    return KaggleRefusal(problem, f"make new ones at {TOKEN_PAGE}, or run `kaggle auth login`")


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


def _is_json(path: Path) -> bool:
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
