"""A local server that answers like Kaggle. It knows enough of the protocol for the real client, and can play faults.

`LoopbackKaggle.environment` directs the client to this server: KAGGLE_API_ENVIRONMENT=LOCALHOST makes it call
http://localhost/api/v1/..., and the proxy variables send these calls here. The server refuses CONNECT, so no call can
leave the machine. Each competition has its own archive, submissions, calls and faults, so tests can share a server.

To start it by hand:

    python tests/loopback_kaggle.py --competition demo --archive data.zip --fault put:503 --fault list:html:2

It prints the variables to export, then serves until Ctrl-C.
"""

import argparse
import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from loopback_notebooks import Notebooks

USER, KEY = "tester", "right-key-0123456789"  # the only accepted legacy key; tokens are `token.<slug>`
STEPS = {  # method of the service -> name of the step in faults and calls
    "IntrospectToken": "introspect",
    "GenerateAccessToken": "refresh",
    "DownloadDataFiles": "download",
    "GetSubmissionLimits": "limits",
    "StartSubmissionUpload": "start",
    "CreateSubmission": "create",
    "ListSubmissions": "list",
    "GetLeaderboard": "leaderboard",
    "ListCompetitions": "search",
    "SaveKernel": "push",
    "GetKernel": "pull",
    "GetKernelSessionStatus": "status",
    "ListKernelSessionOutput": "output",
    "GetAcceleratorQuotaStatistics": "quota",
}
STORAGE_STEPS = ("archive", "resume", "put", "log", "file")  # GET of the archive, GET with a Range, PUT of a submission
MESSAGES = {
    400: "Your team has used its daily Submission allowance (5) today, please try again tomorrow UTC.",
    401: "Unauthenticated",
    403: "You must accept this competition's rules before you'll be able to continue.",
    404: "Not found",
    429: "Too many requests",
    500: "Internal error",
    503: "Service unavailable",
}
HANG_S = 600.0  # a hanging call ends after this time, or when the server closes
LAST_MODIFIED = "Wed, 01 Jan 2020 00:00:00 GMT"


@dataclass
class Fault:
    """A fault at one step.

    kind: a status ("403", "json 403"), "html", "slow", "hang", "cut", "lost", "truncated" or "corrupted". "cut" drops
    the connection before the request is processed, "lost" after it.
    """

    step: str
    kind: str
    times: int = -1  # number of calls that it affects; -1: all
    after: int = 0  # number of calls that succeed first


@dataclass
class Competition(Notebooks):
    """One competition: its archive, settings and faults, the submissions it has received, and all calls."""

    slug: str
    archive: bytes = b""
    faults: list[Fault] = field(default_factory=list)
    scoring: str = "COMPLETE"  # or ERROR, or PENDING, which never changes
    error_description: str = ""  # why a submission with the status ERROR has no score
    public_score: str = "31.25"
    private_score: str = ""
    pending_lists: int = 0  # number of lists that show a new submission as PENDING
    list_delay_s: float = 0.0  # time before a new submission is in the list
    daily_limit: int = 5
    limited_by_total: bool = False  # whether the limit is for the whole competition instead of a day
    teams: list[tuple[str, str]] = field(
        default_factory=lambda: [("Ada", "37.1"), ("tester", "35.0"), ("Grace", "30.2")]
    )
    page_cap: int = 200  # most rows of one page of the list of submissions
    page_tokens: bool = True  # whether a page says where the next one is; otherwise pages have numbers
    notebooks_only: bool = False  # whether it is a code competition
    create_answer: str = ""  # a message that registers nothing; the status is 200
    create_refusal: str = ""  # a message with the status 400
    calls: list[dict[str, Any]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    submissions: list[dict[str, Any]] = field(default_factory=list)

    def steps(self) -> list[str]:
        """Returns the step of each call, in order."""
        return [call["step"] for call in self.calls]

    def fault(self, step: str) -> str:
        """Returns the kind of fault for this call of the step, or ""."""
        for fault in self.faults:
            if fault.step == step and fault.after > 0:
                fault.after -= 1
            elif fault.step == step and fault.times != 0:
                fault.times -= 1
                return fault.kind
        return ""

    def answer_introspect(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"active": str(body["token"]).startswith("token."), "username": USER}

    def answer_refresh(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"token": f"token.{self.slug}", "expiresIn": 43200, "userName": USER}

    def answer_limits(self, body: dict[str, Any]) -> dict[str, Any]:
        count = len(self.submissions)
        limits = {"numToday": count, "numTotal": count, "numAllowedNow": max(0, self.daily_limit - count)}
        return limits | ({"limitedByTotal": True} if self.limited_by_total else {})

    def answer_start(self, body: dict[str, Any]) -> dict[str, Any]:
        token = f"blob-{len(self.calls)}"
        return {"token": token, "createUrl": f"http://localhost/storage/{self.slug}/{token}?signature=secret"}

    def answer_create(self, body: dict[str, Any]) -> dict[str, Any]:
        blob = self.blobs.get(body["blobFileTokens"])
        if blob is None:
            return {"code": 400, "message": "Submission file not found"}
        if self.create_answer:
            return {"message": self.create_answer}
        if len(self.submissions) >= self.daily_limit or self.create_refusal:
            return {"code": 400, "message": self.create_refusal or MESSAGES[400]}
        started = next(call["body"] for call in reversed(self.calls) if call["step"] == "start")
        self.submissions.append(
            {
                "ref": 40000 + len(self.submissions),
                "date": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
                "description": body.get("submissionDescription", ""),
                "fileName": started["fileName"],
                "totalBytes": len(blob),
                "blob": blob,
                "created": time.monotonic(),
                "pending": self.pending_lists,
            }
        )
        return {"message": f"Successfully submitted to {self.slug}", "ref": self.submissions[-1]["ref"]}

    def answer_list(self, body: dict[str, Any]) -> dict[str, Any]:
        rows = []
        for entry in reversed(self.submissions):
            if time.monotonic() - entry["created"] < self.list_delay_s:
                continue
            status = "PENDING" if entry["pending"] > 0 else self.scoring
            entry["pending"] -= 1
            row = {key: entry[key] for key in ("ref", "date", "description", "fileName", "totalBytes")} | {
                "status": status
            }
            if status == "ERROR" and self.error_description:
                row["errorDescription"] = self.error_description
            if status not in ("PENDING", "ERROR"):
                row |= {"publicScore": self.public_score, "privateScore": self.private_score}
            rows.append(row)
        size = min(self.page_cap, body.get("pageSize", 20))
        first = int(body.get("pageToken") or 0) if self.page_tokens else size * (body.get("page", 1) - 1)
        following = {"nextPageToken": str(first + size)} if self.page_tokens and first + size < len(rows) else {}
        return {"submissions": rows[first : first + size], **following}

    def answer_search(self, body: dict[str, Any]) -> dict[str, Any]:
        place = f"https://www.kaggle.com/competitions/{self.slug}"
        found = [{"id": 1, "ref": f"{place}-more"}, {"id": 2, "ref": place}]
        if self.notebooks_only:
            found[1]["isKernelsSubmissionsOnly"] = True
        return {"competitions": found}

    def answer_leaderboard(self, body: dict[str, Any]) -> dict[str, Any]:
        first, size = int(body.get("pageToken") or 0), body.get("pageSize", 20)
        rows = [
            {"teamId": number, "teamName": name, "submissionDate": "2024-05-01T10:00:00.000Z", "score": score}
            for number, (name, score) in enumerate(self.teams)
        ]
        following = {"nextPageToken": str(first + size)} if first + size < len(rows) else {}
        return {"submissions": rows[first : first + size], **following}


class LoopbackKaggle(ThreadingHTTPServer):
    """The server. As a context manager it serves in its own thread."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.competitions: dict[str, Competition] = {}
        self.outside_calls: list[str] = []  # CONNECT attempts and calls to any host but localhost
        self.state = threading.RLock()
        self.closing = threading.Event()

    def add(self, slug: str, **settings: Any) -> Competition:
        """Adds a new competition and returns it."""
        self.competitions[slug] = Competition(slug, **settings)
        return self.competitions[slug]

    def competition_of(self, notebook: str) -> str:
        """Returns the slug of the competition that has a notebook; of the newest competition if none has it."""
        known = [slug for slug, competition in self.competitions.items() if notebook in competition.notebooks]
        return (known or list(self.competitions))[-1]

    @property
    def environment(self) -> dict[str, str]:
        """Returns the variables that direct the client to this server. no_proxy and NO_PROXY must not be set."""
        proxy = f"http://127.0.0.1:{self.server_port}"
        return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": proxy, "https_proxy": proxy}

    def __enter__(self) -> "LoopbackKaggle":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints nothing. The tests kill clients during calls, so broken connections are expected."""


class Handler(BaseHTTPRequestHandler):
    """Passes one proxied request to its competition and applies the fault of its step."""

    protocol_version = "HTTP/1.1"
    server: LoopbackKaggle

    def log_message(self, format: str, *args: Any) -> None:
        """Writes no log. `Competition.calls` records the calls."""

    def do_CONNECT(self) -> None:
        self.server.outside_calls.append(f"CONNECT {self.path}")
        self.send(403, b"refused", "text/plain")

    def do_POST(self) -> None:
        service, _, method = urlsplit(self.path).path.removeprefix("/api/v1/").partition("/")
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(raw or b"{}")
        step = STEPS.get(method, method)
        named = body.get("competitionName") or body.get("search") or ",".join(body.get("competitionDataSources", []))
        named = named or str(body.get("token") or body.get("refreshToken") or "").partition(".")[2]
        if not named and (step == "quota" or "kernelSlug" in body):
            named = self.server.competition_of(f"{body.get('userName')}/{body.get('kernelSlug')}")
        competition = self.server.competitions.get(named)
        if urlsplit(self.path).hostname != "localhost" or not self.path.startswith("http://localhost/api/v1/"):
            self.server.outside_calls.append(self.path)
        if competition is None:
            self.send_status(404 if self.authorized() else 401, as_json=True)
            return
        call = {"step": step, "method": f"{service}/{method}", "body": body, "agent": self.headers.get("User-Agent")}
        with self.server.state:
            competition.calls.append(call)
            kind = competition.fault(step)
        if self.fails_before(kind):
            return
        if step not in ("introspect", "refresh") and not self.authorized():
            self.send_status(401, as_json=True)
            return
        if step == "download":
            self.send(
                302, b"", "text/plain", Location=f"http://localhost/storage/{competition.slug}.zip?signature=secret"
            )
            return
        with self.server.state:
            answer = getattr(competition, f"answer_{step}")(body)
        if kind == "lost":
            self.cut()
            return
        self.send(answer.get("code", 200), json.dumps(answer).encode(), "application/json")

    def do_PUT(self) -> None:
        slug, token = urlsplit(self.path).path.removeprefix("/storage/").split("/")
        competition = self.server.competitions[slug]
        length = int(self.headers["Content-Length"])
        with self.server.state:
            competition.calls.append({"step": "put", "method": "PUT", "body": {"bytes": length}})
            kind = competition.fault("put")
        if kind == "cut":
            self.rfile.read(length // 2)
        elif kind != "hang":
            data = self.rfile.read(length)
            if kind in ("", "slow", "lost"):
                competition.blobs[token] = data
        if self.fails_before(kind):
            return
        if kind == "lost":
            self.cut()
            return
        self.send(200, b"", "text/plain")

    def do_GET(self) -> None:
        kind, _, name = urlsplit(self.path).path.partition("/logs/stream/")
        if name or "/output/" in kind:
            self.send_of_notebook(name or unquote(kind).partition("/output/")[2], is_log=bool(name))
            return
        competition = self.server.competitions[urlsplit(self.path).path.removeprefix("/storage/").removesuffix(".zip")]
        data, wanted = competition.archive, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        step, first = ("resume", int(wanted[1])) if wanted else ("archive", 0)
        with self.server.state:
            competition.calls.append({"step": step, "method": "GET", "body": {"first": first}})
            kind = competition.fault(step)
        if self.fails_before(kind):
            return
        if kind == "corrupted":
            middle = len(data) // 2
            data = data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 64]) + data[middle + 64 :]
        self.send(
            206 if wanted else 200,
            data[first:],
            "application/zip",
            stop_after=len(data[first:]) // 2 if kind == "truncated" else None,
            **{
                "Accept-Ranges": "bytes",
                "ETag": f'"{hashlib.md5(competition.archive).hexdigest()}"',
                "Last-Modified": LAST_MODIFIED,
                **({"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"} if wanted else {}),
            },
        )

    def send_of_notebook(self, name: str, *, is_log: bool) -> None:
        """Sends the log of a session, or a file of its output: user/notebook/file."""
        user, notebook, *file = name.split("/", 2)
        competition = self.server.competitions[self.server.competition_of(f"{user}/{notebook}")]
        step = "log" if is_log else "file"
        with self.server.state:
            competition.calls.append({"step": step, "method": "GET", "body": {"name": name}})
            kind = competition.fault(step)
            session = competition.notebooks[f"{user}/{notebook}"]
        if self.fails_before(kind):
            return
        data = session.log.encode() if is_log else session.output[file[0]]
        if kind == "corrupted":
            data = bytes(byte ^ 0xFF for byte in data)
        self.send(200, data, "text/plain", stop_after=len(data) // 2 if kind == "truncated" else None)

    def fails_before(self, kind: str) -> bool:
        """Applies a fault that comes before the request is processed. Returns whether it has ended the request."""
        if kind == "slow":
            time.sleep(0.5)
            return False
        if kind == "hang":
            self.server.closing.wait(HANG_S)
        if kind in ("hang", "cut"):
            self.cut()
        elif kind == "html":
            self.send(200, b"<html><body>Please log in to the network</body></html>", "text/html")
        elif status := re.fullmatch(r"(json )?(\d{3})", kind):
            self.send_status(int(status[2]), as_json=bool(status[1]))
        else:
            return False
        return True

    def authorized(self) -> bool:
        """Returns whether the call has the legacy key, or a token of one of this server's competitions."""
        scheme, _, value = (self.headers.get("Authorization") or "").partition(" ")
        if scheme == "Basic":
            return base64.b64decode(value).decode() == f"{USER}:{KEY}"
        return scheme == "Bearer" and value.removeprefix("token.") in self.server.competitions

    def send_status(self, status: int, *, as_json: bool) -> None:
        message = MESSAGES.get(status, "Bad request")
        if as_json:
            self.send(status, json.dumps({"code": status, "message": message}).encode(), "application/json")
        else:
            self.send(status, message.encode(), "text/plain")

    def send(self, status: int, data: bytes, kind: str, *, stop_after: int | None = None, **headers: str) -> None:
        """Sends an answer. Content-Length is that of `data`, even if the answer stops after `stop_after` bytes."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:stop_after])
        if stop_after is not None:
            self.cut()

    def cut(self) -> None:
        """Closes the connection without an answer."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.close()


def read_faults(texts: Iterable[str]) -> list[Fault]:
    """Returns faults from texts of the form STEP:KIND, STEP:KIND:TIMES or STEP:KIND:TIMES:AFTER."""
    return [Fault(step, kind, *map(int, numbers)) for step, kind, *numbers in (text.split(":") for text in texts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--competition", required=True, help="the slug to serve")
    parser.add_argument("--archive", type=Path, help="the zip that `download` hands out")
    steps = ", ".join([*STEPS.values(), *STORAGE_STEPS])
    parser.add_argument("--fault", action="append", default=[], help=f"STEP:KIND[:TIMES[:AFTER]]; steps: {steps}")
    parser.add_argument("--scoring", choices=("COMPLETE", "ERROR", "PENDING"), default="COMPLETE")
    arguments = parser.parse_args()
    with LoopbackKaggle(arguments.port) as server:
        archive = arguments.archive.read_bytes() if arguments.archive else b""
        server.add(
            arguments.competition, archive=archive, faults=read_faults(arguments.fault), scoring=arguments.scoring
        )
        settings = {**server.environment, "KAGGLE_API_TOKEN": f"token.{arguments.competition}"}
        print(
            "unset no_proxy NO_PROXY",
            *(f"export {name}={value}" for name, value in settings.items()),
            sep="\n",
            flush=True,
        )
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(json.dumps(server.competitions[arguments.competition].steps()))


if __name__ == "__main__":
    main()
