"""The kaggle client with a record of its calls to Kaggle. This is a program of its own: no other file imports it.

    python -P src/competition/recorder.py -W competitions submissions slug

A line of JSON goes to the output before each call, and another one after it, with what Kaggle said. Each such line
begins with U+001E, which the client never prints. The line before a call is on the disk before the call is sent. So an
output without the line proves that the call was not sent, also after a power failure.
"""

import json
import os
import stat
import sys

import requests
from kagglesdk.kaggle_http_client import KaggleHttpClient

READ = (  # calls whose answers are read; the other answers can hold secrets
    *("CreateSubmission", "ListSubmissions", "GetSubmissionLimits", "GetLeaderboard", "ListCompetitions"),
    *("SaveKernel", "GetKernelSessionStatus", "GetAcceleratorQuotaStatistics"),
)
MAX_REFUSAL = 4000  # characters of an answer that refuses
OUTPUT = 1

prepare_request = KaggleHttpClient._prepare_request
prepare_response = KaggleHttpClient._prepare_response
sent = ""


def record(**fields: object) -> None:
    """Writes a line and waits until it is on the disk. OSError if the disk is full."""
    line = f"\n\x1e{json.dumps(fields)}\n".encode()
    if os.write(OUTPUT, line) < len(line):
        raise OSError("No space left on device")
    if stat.S_ISREG(os.fstat(OUTPUT).st_mode):
        os.fsync(OUTPUT)


def record_answer(call: str, response: requests.Response) -> None:
    """Writes the status and, where it is safe and of use, the body of an answer."""
    status = response.status_code
    is_page = "html" in response.headers.get("Content-Type", "")  # of a network that wants a login
    body = response.text if status >= 400 or is_page or call in READ else ""
    record(call=call, status=status, body=body if status < 400 else body[:MAX_REFUSAL])


def sending(self: KaggleHttpClient, service: str, name: str, request: object) -> object:
    """Records a call before it is sent."""
    global sent  # noqa: PLW0603  (the client makes one call after the other)
    sent = name
    prepared = prepare_request(self, service, name, request)
    record(call=name)
    return prepared


def answered(self: KaggleHttpClient, response_type: object, response: requests.Response) -> object:
    """Records an answer before the client reads it. One that came after a redirection is the storage's."""
    record_answer("storage" if response.history else sent, response)
    return prepare_response(self, response_type, response)


KaggleHttpClient._prepare_request = sending
KaggleHttpClient._prepare_response = answered

if __name__ == "__main__":
    from kaggle import cli  # this import makes calls

    is_upload_successful = cli.api._is_upload_successful

    def uploaded(response: requests.Response) -> bool:
        """Records what the storage says of an uploaded file."""
        record_answer("storage", response)
        return is_upload_successful(response)

    cli.api._is_upload_successful = uploaded
    if sys.argv[-1].startswith("--page="):  # Kaggle's list of submissions has it, the client's command does not
        number = int(sys.argv.pop().partition("=")[2])
        list_page = cli.api.competition_submissions
        cli.api.competition_submissions = lambda *words, **options: list_page(
            *words, **options | {"page_number": number}
        )
    cli.main()
