"""Tests of the explanations of the client's output. The texts are those of client version 2.2.4 and of the service."""

import pytest

from src.base.console import UserError
from src.competition.errors import KaggleRateLimit, KaggleRefusal, KaggleUnavailable, explain, judge_upload

BAR = "\r  0%|          | 0.00/215 [00:00<?, ?B/s]"
WHOLE = f"{BAR}\r100%|##########| 215/215 [00:00<00:00, 45.4kB/s]\n"
URL = "for url: https://api.kaggle.com/v1/competitions.CompetitionApiService/ListSubmissions"


@pytest.mark.parametrize(
    ("output", "kind", "words"),
    [
        (
            f"403 Client Error: Forbidden {URL}",
            KaggleRefusal,
            "accept the rules at https://www.kaggle.com/competitions/s",
        ),
        ("You must accept this competition's rules before continuing", KaggleRefusal, "accept the rules"),
        ("Permission 'competitions.participate' was denied", KaggleRefusal, "check the slug"),
        (f"404 Client Error: Not Found {URL}", KaggleRefusal, "has no competition named s"),
        (f"429 Client Error: Too Many Requests {URL}", KaggleRateLimit, "asked too often"),
        (f"502 Server Error: Bad Gateway {URL}", KaggleUnavailable, "cannot answer now"),
        (
            "Traceback (most recent call last):\nrequests.exceptions.ConnectionError: Name",
            KaggleUnavailable,
            "be reached",
        ),
        (
            "403 Client Error: Forbidden for url: https://storage.x/y?Signature=S3",
            KaggleUnavailable,
            "storage refused",
        ),
        ("[Errno 28] No space left on device", KaggleRefusal, "the disk is full"),
        (
            "PermissionError: [Errno 13] Permission denied: '/.config'",
            KaggleRefusal,
            "this machine refuses a file or folder",
        ),
        ("OSError: [Errno 30] Read-only file system: '/403'", KaggleRefusal, "this machine refuses a file or folder"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", KaggleRefusal, "does not trust"),
        ("Missing dependencies for SOCKS support.", KaggleRefusal, "SOCKS proxy"),
        ("ConnectionError: NameResolutionError: Failed to resolve", KaggleUnavailable, "cannot find Kaggle's address"),
        ("ModuleNotFoundError: No module named 'six'", KaggleRefusal, "make setup"),
        ("Invalid header value: 'Bearer abc\\ndef' https://x.y/z?token=abc", KaggleRefusal, "Bearer \\*\\*\\*"),
        ("something new", KaggleUnavailable, "something new"),
        ("Service unavailable", KaggleUnavailable, r"cannot answer now \(Service unavailable\)"),
        (
            "Traceback (most recent call last):\nPermissionError: [Errno 13] Permission denied: '/nobody/.kaggle'",
            KaggleRefusal,
            r"this machine refuses .*\(PermissionError: \[Errno 13\] Permission denied",
        ),
        ("Traceback (most recent call last):\nKeyError: 'Forbidden'", KaggleUnavailable, "client failed"),
        (
            "Traceback (most recent call last):\nrequests.exceptions.SSLError: certificate verify failed",
            KaggleUnavailable,
            r"cannot be reached \(SSLError: certificate verify failed\)",
        ),
        ("", KaggleUnavailable, "printed nothing"),
    ],
)
def test_failures_are_explained(output: str, kind: type[UserError], words: str) -> None:
    problem = explain(output, "s")
    assert type(problem) is kind and "abc" not in str(problem) and "S3" not in str(problem)
    with pytest.raises(kind, match=words):
        raise problem


@pytest.mark.parametrize(
    ("log", "exit_code", "outcome"),
    [
        (f"{WHOLE}4 submissions remaining today.\nSuccessfully submitted to s", 0, "accepted"),
        (
            f"{WHOLE}4 submissions remaining today.\nSuccessfully submitted to s",
            None,
            "accepted",
        ),  # nobody saw the client end
        (f"{WHOLE}Could not submit to competition", 0, "refused"),
        (f"{WHOLE}User cancelled operation", 0, "unclear"),
        (f"{BAR}User cancelled operation", 0, "refused"),
        (WHOLE, None, "unclear"),
        (WHOLE, -9, "unclear"),
        (f"{WHOLE}500 Server Error: Internal {URL}", 1, "unclear"),
        (f"{WHOLE}403 Client Error: Forbidden {URL}", 1, "refused"),
        (f"{WHOLE}429 Client Error: Too Many Requests {URL}", 1, "refused"),
        (f"{WHOLE}Authentication required to call the Kaggle API.\n\nFirst, you will need", 1, "refused"),
        (f"{WHOLE}Your team has used its daily Submission allowance (5) today, please try again", 1, "refused"),
        (f"{WHOLE}You must accept this competition's rules before you'll be able to continue.", 1, "refused"),
        (f"{WHOLE}408 Client Error: Request Timeout {URL}", 1, "unclear"),
        (f"{WHOLE}409 Client Error: Conflict {URL}", 1, "unclear"),
        (f"{WHOLE}403 Client Error: Forbidden for url: https://proxy.x/login", 1, "unclear"),
        (f"{WHOLE}Invalid response from the proxy", 1, "unclear"),  # the same word in another message is a refusal
        (f"{WHOLE}requests.exceptions.ConnectionError: Connection closed", 1, "unclear"),
        (f"{WHOLE}Submission not found", 1, "unclear"),
        (f"{WHOLE}This competition only accepts submissions from notebooks", 1, "refused"),
        (f"{WHOLE}Traceback (most recent call last):\nPermissionError: permission to x was denied", 1, "unclear"),
        (f"{WHOLE}4 submissions remaining today.\nSomething else", 0, "unclear"),
        (f"{WHOLE}OSError: [Errno 28] No space left on device", 120, "unclear"),
        (f"{WHOLE}403 Client Error: Forbidden {URL}", 120, "unclear"),
        (f"{BAR}OSError: [Errno 28] No space left on device", 1, "refused"),
        (BAR, None, "refused"),
        (f"{BAR}\r5.74MB [00:03, 1.71MB/s]", None, "refused"),  # the client repeats the upload
        ("4 submissions remaining today.\nSuccessfully submitted to s", 0, "unclear"),  # there is no progress bar
        ("4 submissions remaining today.\nSuccessfully submitted to s", None, "unclear"),
        ("Successfully submitted to s", -9, "unclear"),
        ("", None, "refused"),
        ("", 1, "refused"),
        ("", 0, "unclear"),
    ],
)
def test_the_log_of_an_upload_gives_the_right_verdict(log: str, exit_code: int | None, outcome: str) -> None:
    assert judge_upload(log, exit_code, "s").outcome == outcome
    if not log.startswith(WHOLE) and outcome == "refused":  # missing lines prove nothing in an incomplete log
        assert judge_upload(log, exit_code, "s", complete=False).outcome == "unclear"
