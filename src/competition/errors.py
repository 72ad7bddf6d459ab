"""Explains why a call to Kaggle has failed, in one clear line with Kaggle's or the client's own words."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from src.base.console import UserError
from src.base.names import shortened
from src.competition.answers import MAX_WORDS, Answer, answers_in, printed_in
from src.competition.credentials import credential_sources, is_json, redact

NOT_SURE = (408, 499)  # statuses below 500 after which Kaggle may still do what was asked
TOKEN_PAGE = "https://www.kaggle.com/settings/api"
RUN_AGAIN = "run the same command again"


class KaggleError(UserError):
    """A request to Kaggle failed: the problem, what fixes it, and the status of Kaggle's answer if there was one."""

    def __init__(self, problem: str, fix: str, status: int | None = None) -> None:
        super().__init__(f"{problem}; {fix}")
        self.problem = problem
        self.fix = fix
        self.status = status


class KaggleRefusal(KaggleError):
    """Kaggle refused, or the client cannot run. Trying again helps only after the user has fixed something."""


class KaggleUnavailable(KaggleError):
    """No usable answer: a status 5xx or 429, a network failure, a timeout, or unreadable output. Later may help."""


def competition_page(slug: str, page: str = "") -> str:
    """Returns the URL of a competition's page, or of a page below it such as "rules"."""
    return f"https://www.kaggle.com/competitions/{slug}{page and '/' + page}"


CLIENT_FAILURES = (  # what the client prints when Kaggle has not answered
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
)


def code_competition(slug: str, said: str = "") -> KaggleRefusal:
    """Returns the refusal of a csv by a competition that takes notebooks alone."""
    return KaggleRefusal(
        f"{slug} is a code competition: it scores a version of a notebook and takes no uploaded csv{said}",
        f"on the website, open {competition_page(slug, 'code')}, make a notebook that writes the csv, save a version, "
        "and press Submit there",
    )


def explain(output: str, slug: str) -> KaggleError:
    """Returns the error that the output of a failed client stands for. `slug` can also be a notebook, user/name."""
    reason = _reason(redact(printed_in(output)))
    answer = (answers_in(output) or [Answer(call="")])[-1]
    if answer.code and answer.code >= 400:
        return _explain_status(answer, answer.code, slug)
    for pattern, kind, problem, fix in CLIENT_FAILURES:
        if re.search(pattern, reason):
            return kind(f"{problem} ({reason})", fix)
    if "Authentication required to call the Kaggle API." in output and "Traceback" not in output:
        return _explain_credentials("")
    if answer.body and not answer.is_table:
        problem = f"something other than Kaggle answered, perhaps a login page of the network ({answer.words})"
        return KaggleUnavailable(problem, f"open https://www.kaggle.com in a browser, then {RUN_AGAIN}")
    return KaggleUnavailable(f"the kaggle client failed ({reason})", RUN_AGAIN)


@dataclass(frozen=True)
class Verdict:
    """What an upload's record proves: Kaggle has the file, does not have it, or neither.

    ref: Kaggle's number of the submission, if it is accepted. Otherwise the problem and its fix.
    """

    outcome: Literal["accepted", "refused", "unclear"]
    problem: str = ""
    fix: str = RUN_AGAIN
    ref: str | None = None


def judge_upload(output: str, slug: str, *, interrupted: bool) -> Verdict:
    """Returns what the output of a client that has ended proves. `interrupted`: it did not end by itself.

    A submission counts when Kaggle has answered the call CreateSubmission with its number, and not before.
    """
    created = [answer for answer in answers_in(output) if answer.call == "CreateSubmission"]
    stopped = interrupted or "User cancelled" in output
    if not created:
        error = explain(output, slug)
        return (
            Verdict("refused", "the upload was interrupted")
            if stopped
            else Verdict("refused", error.problem, error.fix)
        )
    answer = created[-1]
    if answer.code is None:
        return Verdict("unclear", "the upload was interrupted" if stopped else explain(output, slug).problem)
    if answer.code < 400:
        ref = answer.table.get("ref") if answer.is_table else None
        return Verdict("accepted", ref=str(ref)) if ref else Verdict("unclear", f"Kaggle answered: {answer.words}")
    error = _explain_status(answer, answer.code, slug)
    sure = answer.code < 500 and answer.code not in NOT_SURE
    return Verdict("refused" if sure else "unclear", error.problem, error.fix)


def percent_uploaded(log: str) -> float:
    """Returns the percentage of the file that is uploaded, 0 to 100, read from the client's progress bar."""
    found = re.findall(r"\b(\d{1,3})%\|", log)
    return min(100.0, float(found[-1])) if found else 0.0


def _reason(printed: str) -> str:
    """Returns the line that states the reason: the last one, without the client's warnings and hints."""
    text = printed.partition("\n\nIf this is unexpected")[0]
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Warning:", "Could not submit"))]
    return shortened((lines or ["it printed nothing"])[-1].removeprefix("requests.exceptions."), MAX_WORDS)


def _explain_status(answer: Answer, status: int, slug: str) -> KaggleError:
    said = f"({status}: {answer.words})" if answer.words else f"({status})"
    if answer.call == "storage" or status in (408, 429) or status >= 500:
        unusual = {429: f"Kaggle was asked too often {said}"}
        problem = unusual.get(status, f"Kaggle cannot answer now {said}")
        problem = f"Kaggle's storage refused the file {said}" if answer.call == "storage" else problem
        return KaggleUnavailable(problem, f"{RUN_AGAIN} in a few minutes", status)
    if status == 401:
        return _explain_credentials(f" {said}")
    if "/" in slug:
        return KaggleRefusal(f"Kaggle refused {said}", f"see https://www.kaggle.com/code/{slug}", status)
    if re.search(r"\bnotebooks?\b|\bkernels?\b|code competition", answer.words, re.IGNORECASE):
        return code_competition(slug, f" {said}")
    rules = competition_page(slug, "rules")
    explained = {
        403: (
            f"Kaggle denies access to {slug} {said}",
            f"accept the rules at {rules} if you have not, and check the slug: a wrong one is denied as well",
        ),
        404: (
            f"Kaggle has no competition named {slug} {said}",
            "the slug is the last part of the competition's address, see https://www.kaggle.com/competitions",
        ),
    }
    if answer.call == "CreateSubmission":  # Kaggle has found the competition by then
        del explained[404]
    problem, fix = explained.get(status, (f"Kaggle refused {said}", f"see {competition_page(slug)}"))
    return KaggleRefusal(problem, fix, status)


def _explain_credentials(said: str) -> KaggleRefusal:
    sources = credential_sources()
    if not sources:
        fix = f"make a token at {TOKEN_PAGE} and save it as ~/.kaggle/access_token (chmod 600), or set KAGGLE_API_TOKEN"
        return KaggleRefusal("no Kaggle credentials were found", fix)
    if sources[0].endswith(".json") and not is_json(Path(sources[0])):
        return KaggleRefusal(f"{sources[0]} is not valid JSON", f"make a new one at {TOKEN_PAGE}")
    unused = f"; they are used instead of those in {', '.join(sources[1:])}" if len(sources) > 1 else ""
    problem = f"Kaggle does not accept the credentials in {sources[0]}: they are wrong or expired{unused}{said}"
    return KaggleRefusal(problem, f"make new ones at {TOKEN_PAGE}, or run `kaggle auth login`", 401)
