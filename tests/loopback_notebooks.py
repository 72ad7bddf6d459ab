"""The notebooks of the loopback Kaggle: each push starts a session, whose end and output a test decides."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote


@dataclass
class Session:
    """The latest session of a notebook: its script, the statuses that it still shows, its log and its output."""

    source: str
    statuses: list[str]
    log: str = ""
    output: dict[str, bytes] = field(default_factory=dict)


@dataclass(kw_only=True)
class Notebooks:
    """What a competition knows of notebooks. `run` does what a session would do, when it is pushed."""

    notebooks: dict[str, Session] = field(default_factory=dict)
    pushes: list[str] = field(default_factory=list)  # the notebook of each session that was started
    run: Callable[[Session], None] = lambda session: None
    push_error: str = ""  # the error in the answer to a pushed notebook; the status is 200
    hours_used: float = 10.0  # of 30
    page_of_output: int = 20  # most files in one answer

    def answer_push(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.push_error:
            return {"error": self.push_error}
        session = Session(body["text"], ["QUEUED", "RUNNING", "COMPLETE"])
        self.run(session)
        self.notebooks[body["slug"]] = session
        self.pushes.append(body["slug"])
        url = f"https://www.kaggle.com/code/{body['slug']}"
        return {"ref": f"/code/{body['slug']}", "url": url, "versionNumber": self.pushes.count(body["slug"])}

    def _session(self, body: dict[str, Any]) -> Session | None:
        return self.notebooks.get(f"{body['userName']}/{body['kernelSlug']}")

    def answer_pull(self, body: dict[str, Any]) -> dict[str, Any]:
        session = self._session(body)
        if session is None:
            return {"code": 404, "message": "Not found"}
        blob = {"source": session.source, "language": "python", "kernelType": "script", "slug": body["kernelSlug"]}
        return {"metadata": {}, "blob": blob}

    def answer_status(self, body: dict[str, Any]) -> dict[str, Any]:
        session = self._session(body)
        if session is None:
            return {"code": 404, "message": "Not found"}
        status = session.statuses.pop(0) if len(session.statuses) > 1 else session.statuses[0]
        return {"status": status}

    def answer_output(self, body: dict[str, Any]) -> dict[str, Any]:
        session = self._session(body)
        if session is None:
            return {"code": 404, "message": "Not found"}
        place = f"http://localhost/storage/output/{body['userName']}/{body['kernelSlug']}"
        files = [{"fileName": name, "url": f"{place}/{quote(name)}?signature=secret"} for name in session.output]
        first = int(body.get("pageToken") or 0)
        end = first + min(self.page_of_output, body.get("pageSize") or 20)
        following = {"nextPageToken": str(end)} if end < len(files) else {}
        return {"files": files[first:end], "log": session.log, **following}

    def answer_quota(self, body: dict[str, Any]) -> dict[str, Any]:
        quota = {"timeUsed": f"{self.hours_used * 3600:.0f}s", "totalTimeAllowed": "108000s"}
        return {"quotaRefreshTime": "2030-01-05T00:00:00Z", "gpuQuota": quota}
