"""Tests of the explanations of what Kaggle answers and what the client prints."""

import json

import pytest

from src.base.console import UserError
from src.competition.errors import KaggleRefusal, KaggleUnavailable, explain, judge_upload


def recorded(call: str, status: int | None = None, body: str = "") -> str:
    """Returns the lines of a call and, with a status, of its answer."""
    lines = [{"call": call}] + ([{"call": call, "status": status, "body": body}] if status else [])
    return "".join(f"\n\x1e{json.dumps(line)}\n" for line in lines)


def said(status: int, body: str = "") -> str:
    return recorded("ListSubmissions", status, body)


@pytest.mark.parametrize(
    ("output", "kind", "words"),
    [
        (said(403, "Forbidden"), KaggleRefusal, r"\(403: Forbidden\); accept the rules at .*/s/rules if you have not"),
        (said(400, '{"message": "Any new words"}'), KaggleRefusal, r"refused \(400: Any new words\)"),
        (said(200, '{"code": 400, "message": "Any"}'), KaggleRefusal, r"refused \(400: Any\)"),
        (said(404), KaggleRefusal, "has no competition named s"),
        (said(429, "Too Many"), KaggleUnavailable, r"asked too often \(429: Too Many\)"),
        (said(502, "<h1>Bad Gateway</h1>"), KaggleUnavailable, r"cannot answer now \(502: Bad Gateway\)"),
        (said(200, "<html>Please log in</html>"), KaggleUnavailable, r"something other than Kaggle .*Please log in"),
        (recorded("storage", 403, "Denied"), KaggleUnavailable, r"storage refused the file \(403: Denied\)"),
        (recorded("CreateSubmission", 404, "No file"), KaggleRefusal, r"Kaggle refused \(404: No file\)"),
        (
            said(400, "only from Notebooks"),
            KaggleRefusal,
            "s is a code competition: .*only from Notebooks.* press Submit",
        ),
        (
            "Traceback (most recent call last):\nrequests.exceptions.ConnectionError: Name",
            KaggleUnavailable,
            "be reached",
        ),
        ("[Errno 28] No space left on device", KaggleRefusal, "the disk is full"),
        ("PermissionError: [Errno 13] Permission denied: '/.config'", KaggleRefusal, "this machine refuses a file"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", KaggleRefusal, "does not trust"),
        ("Missing dependencies for SOCKS support.", KaggleRefusal, "SOCKS proxy"),
        ("ConnectionError: NameResolutionError: Failed to resolve", KaggleUnavailable, "cannot find Kaggle's address"),
        ("ModuleNotFoundError: No module named 'six'", KaggleRefusal, "make setup"),
        ("Invalid header value: 'Bearer abc\\ndef' https://x.y/z?token=abc", KaggleUnavailable, "Bearer \\*\\*\\*"),
        ("something new", KaggleUnavailable, "something new"),
        (
            "KeyError: 'x'\n\nIf this is unexpected, you can re-run",
            KaggleUnavailable,
            r"client failed \(KeyError: 'x'\)",
        ),
        ("", KaggleUnavailable, "printed nothing"),
    ],
)
def test_failures_are_explained(output: str, kind: type[UserError], words: str) -> None:
    problem = explain(output, "s")
    assert type(problem) is kind and "abc" not in str(problem)
    with pytest.raises(kind, match=words):
        raise problem


START = recorded("StartSubmissionUpload", 200)


@pytest.mark.parametrize(
    ("calls", "outcome"),
    [
        ("", "refused"),
        (START, "refused"),
        (START + recorded("storage", 403), "refused"),
        (START + "Could not submit to competition", "refused"),
        (START + recorded("CreateSubmission"), "unclear"),
        (START + recorded("CreateSubmission")[:-3], "refused"),  # the client sends it only after the whole line
        (START + recorded("CreateSubmission", 200, '{"message": "Successfully submitted", "ref": 5}'), "accepted"),
        (START + recorded("CreateSubmission", 200, '{"message": "Successfully submitted"}'), "unclear"),
        (START + recorded("CreateSubmission", 200, "<html>"), "unclear"),
        (START + recorded("CreateSubmission", 200, '{"code": 400, "message": "no"}'), "refused"),
        *((START + recorded("CreateSubmission", status), "refused") for status in (400, 401, 403, 404, 409, 413, 429)),
        *((START + recorded("CreateSubmission", status), "unclear") for status in (408, 499, 500, 502, 503, 504)),
    ],
)
@pytest.mark.parametrize("interrupted", [False, True])
def test_the_record_of_an_upload_gives_the_right_verdict(calls: str, outcome: str, interrupted: bool) -> None:
    verdict = judge_upload(calls, "s", interrupted=interrupted)
    assert verdict.outcome == outcome
    assert verdict.ref == ("5" if outcome == "accepted" else None)
