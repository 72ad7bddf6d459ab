"""What Kaggle says of a session with a GPU: the quota before it, its status, and its log."""

import re

from src.base.console import say
from src.base.names import shortened
from src.base.reading import Unreadable, parse_value
from src.competition.client import WaitPolicy, call_client, peek_client
from src.competition.credentials import redact
from src.competition.errors import RUN_AGAIN, KaggleError, KaggleRefusal, KaggleUnavailable

RESERVED_HOURS = 1.0  # of a session: for packing, evaluation, the csv, and the copy of the output
MAX_SHOWN = 500  # characters of an answer of the client
OWN_LINES = re.compile(r"^(epoch \d|session |precision:|runs/|error: )")  # what is shown of a session's log


def session_status(kernel: str, policy: WaitPolicy) -> tuple[str, str]:
    """Returns a session's status, such as RUNNING, and Kaggle's message about a failure."""
    answer = redact(call_client(kernel, "kernels", "status", kernel, policy=policy))
    found = re.search(r'has status "(?:KernelWorkerStatus\.)?(\w+)"', answer)
    if not found:
        raise KaggleUnavailable(f"the status cannot be read ({shortened(answer, MAX_SHOWN)})", RUN_AGAIN)
    message = re.search(r'Failure message: "(.*)"', answer, re.DOTALL)
    return found[1], message[1] if message else ""


def whole_log(kernel: str, policy: WaitPolicy) -> str:
    """Returns the log of a session that has ended; "" if Kaggle does not give it."""
    try:
        return redact(text_of_log(call_client(kernel, "kernels", "logs", kernel, policy=policy)))
    except KaggleError:
        return ""


def log_so_far(kernel: str, policy: WaitPolicy) -> str:
    """Returns the log of a session that runs."""
    return redact(peek_client("kernels", "logs", kernel, "--follow", seconds=max(3.0, policy.poll_first_s)))


def own_lines(log: str) -> list[str]:
    """Returns the lines of a log that say how far the run is."""
    return [line for line in log.splitlines() if OWN_LINES.match(line)]


def reason_in(log: str) -> str:
    """Returns the line of a log that says why the session failed; "" for an empty log."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(\w+\.)*(\w*Error|error): ", line)]
    return (errors or lines[-1:] or [""])[0]


def text_of_log(answer: str) -> str:
    """Returns a session's log as text. Kaggle keeps it as a list of JSON."""
    try:
        events = parse_value(answer.strip(), "the log")
    except Unreadable:
        return answer
    texts = [event.get("data", "") for event in events if isinstance(event, dict)] if isinstance(events, list) else []
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in map(str, texts))


def quota_hours(policy: WaitPolicy) -> float:
    """Returns the hours of GPU that are left this week; UserError if they are too few, infinity if not known."""
    try:
        answer = call_client("", "quota", "--csv", policy=policy)
    except KaggleError as error:
        say(f"it is not known how much GPU time is left ({error.problem}); continuing, Kaggle checks it")
        return float("inf")
    found = re.search(r"^GPU,([\d.]+)h,([\d.]+)h,([\d.]+)h,(\S*)", answer, re.MULTILINE)
    if not found:
        say("it is not known how much GPU time is left; continuing, Kaggle checks it")
        return float("inf")
    say(f"{found[2]} of {found[3]} hours of GPU time are left, until {found[4] or 'next week'}")
    if float(found[2]) < RESERVED_HOURS + 0.1:
        problem = f"only {found[2]} hours of GPU time are left; a session needs more than {RESERVED_HOURS:g}"
        raise KaggleRefusal(problem, f"{RUN_AGAIN} after {found[4] or 'the week has ended'}")
    return float(found[2])
