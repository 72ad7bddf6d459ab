"""Tests of the commands, with the real client and the loopback server: credentials, calls, tables and refusals."""

import ast
import hashlib
import importlib.metadata
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kaggle_workbench import (
    Harness,
    Workspace,
    disagreements,
    environment_of,
    leaks,
    open_harness,
    small_csv,
    write_run,
)
from loopback_kaggle import KEY, USER

from src.base.console import UserError
from src.competition.client import CLIENT_VERSIONS, RECORDER
from src.competition.request import PreparedSubmission, file_to_upload
from src.kaggle_client import read_slug

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with open_harness(tmp_path_factory.mktemp("client"), forked=True) as harness:
        yield harness


def test_the_tested_versions_of_the_client_are_installed_and_pinned() -> None:
    assert {name: importlib.metadata.version(name) for name in CLIENT_VERSIONS} == CLIENT_VERSIONS
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {f"{name}=={CLIENT_VERSIONS[name]}" for name in ("kaggle", "kagglesdk")} <= set(pinned)
    locked = (ROOT / "requirements.lock").read_text()
    assert all(f"\n{name}=={version} \\\n" in locked for name, version in CLIENT_VERSIONS.items())
    assert any(line.startswith("six") for line in pinned)  # the client imports it without declaring it


def test_the_client_is_never_imported(harness: Harness) -> None:
    for path in {*(ROOT / "src").rglob("*.py")} - {RECORDER}:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.partition(".")[0] in ("kaggle", "kagglesdk") for name in names), path
    code = "import sys; from src import kaggle_client as k; k.main(); sys.exit(int('kaggle' in sys.modules))"
    workspace = harness.workspace("imports")
    for words in (["submissions", "--refresh"], ["leaderboard", "--competition", "imports"]):
        environment = environment_of(workspace) | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code, *words], cwd=workspace.folder, env=environment, check=True)
    assert "leaderboard" in workspace.competition.steps()


def test_download_submit_and_leaderboard_make_exactly_the_expected_calls(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("train/0.png", b"picture")
    with open_harness(tmp_path) as harness:  # not forked: the clients start as they do for users
        workspace = harness.workspace("calls", archive=buffer.getvalue())
        assert harness.run(workspace, *workspace.command("download")).exit_code == 0
        assert harness.run(workspace, *workspace.command("submit")).exit_code == 0
        assert harness.run(workspace, "leaderboard", "--competition", "calls", "--team", "ada").exit_code == 0
    api = "competitions.CompetitionApiService"
    expected = [
        (f"{api}/DownloadDataFiles", {"competitionName"}),
        ("GET", {"first"}),
        (f"{api}/ListSubmissions", {"competitionName", "page", "pageSize", "pageToken"}),
        (f"{api}/ListCompetitions", {"category", "group", "page", "pageToken", "search", "sortBy"}),
        (f"{api}/GetSubmissionLimits", {"competitionName"}),
        (
            f"{api}/StartSubmissionUpload",
            {"competitionName", "contentLength", "fileName", "lastModifiedEpochSeconds"},
        ),
        ("PUT", {"bytes"}),
        (f"{api}/CreateSubmission", {"blobFileTokens", "competitionName", "submissionDescription"}),
        (f"{api}/GetSubmissionLimits", {"competitionName"}),  # the client calls this itself after a submission
        (f"{api}/ListSubmissions", {"competitionName", "page", "pageSize", "pageToken"}),
        (f"{api}/GetLeaderboard", {"competitionName", "pageSize", "pageToken"}),
    ]
    assert [(call["method"], set(call["body"])) for call in workspace.competition.calls] == expected
    (submission,) = workspace.competition.submissions
    sha256 = hashlib.sha256((workspace.folder / "submissions/run.csv").read_bytes()).hexdigest()
    assert submission["description"] == f'[run:{sha256[:12]}] first "try"'


def install(workspace: Workspace, form: str) -> dict[str, str]:
    """Writes correct credentials in the place that `form` names, and only there. Returns the variables they need."""
    token = f"token.{workspace.competition.slug}"
    legacy = json.dumps({"username": USER, "key": KEY})
    oauth = {"refresh_token": f"refresh.{workspace.competition.slug}", "access_token": "", "username": USER}
    (workspace.home / ".kaggle/kaggle.json").unlink()
    if "~/.config" in form:
        (workspace.home / ".kaggle").rmdir()
    files = {
        "KAGGLE_API_TOKEN, a file": ("token.txt", token),
        "~/.kaggle/access_token": (".kaggle/access_token", token),
        "~/.kaggle/kaggle.json": (".kaggle/kaggle.json", legacy),
        "~/.config/kaggle/kaggle.json": (".config/kaggle/kaggle.json", legacy),
        "XDG_CONFIG_HOME, ~/.config": ("settings/kaggle/kaggle.json", legacy),
        "KAGGLE_CONFIG_DIR": ("elsewhere/kaggle.json", legacy),
        "~/.kaggle/credentials.json": (".kaggle/credentials.json", json.dumps(oauth)),
    }
    if form in files:
        path = workspace.home / files[form][0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[form][1])
        path.chmod(0o600)
    return {
        "KAGGLE_API_TOKEN, a value": {"KAGGLE_API_TOKEN": token},
        "KAGGLE_API_TOKEN, a file": {"KAGGLE_API_TOKEN": str(workspace.home / "token.txt")},
        "KAGGLE_USERNAME and KAGGLE_KEY": {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY},
        "XDG_CONFIG_HOME, ~/.config": {"XDG_CONFIG_HOME": str(workspace.home / "settings")},
        "KAGGLE_CONFIG_DIR": {"KAGGLE_CONFIG_DIR": str(workspace.home / "elsewhere")},
    }.get(form, {})


FORMS = (
    "KAGGLE_API_TOKEN, a value",
    "KAGGLE_API_TOKEN, a file",
    "~/.kaggle/access_token",
    "KAGGLE_USERNAME and KAGGLE_KEY",
    "~/.kaggle/kaggle.json",
    "~/.config/kaggle/kaggle.json",
    "XDG_CONFIG_HOME, ~/.config",
    "KAGGLE_CONFIG_DIR",
    "~/.kaggle/credentials.json",
)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_credentials_is_accepted(harness: Harness, form: str) -> None:
    workspace = harness.workspace(f"form-{FORMS.index(form)}")
    variables = install(workspace, form)
    result = harness.run(workspace, "leaderboard", "--competition", workspace.competition.slug, **variables)
    assert result.exit_code == 0 and "a team named tester is at place 2 (35.0)" in result.output, result
    assert leaks(workspace, [result]) == []


def test_a_key_file_that_is_not_json_is_reported(harness: Harness) -> None:
    workspace = harness.workspace("json")
    path = workspace.home / ".kaggle/kaggle.json"
    path.write_text(path.read_text()[:-1])
    result = harness.run(workspace, *workspace.command("submit"))
    assert result.exit_code == 2 and f"{path} is not valid JSON; make a new one at https://www" in result.error
    assert leaks(workspace, [result]) == []


def test_missing_wrong_and_unused_credentials_have_different_messages(harness: Harness) -> None:
    workspace = harness.workspace("credentials")
    words = workspace.command("submit")
    wrong = harness.run(workspace, *words, KAGGLE_USERNAME=USER, KAGGLE_KEY="wrong-key-9876543210")
    assert "does not accept the credentials in KAGGLE_USERNAME and KAGGLE_KEY: they are wrong or expired" in wrong.error
    unused = harness.run(workspace, *words, KAGGLE_API_TOKEN="expired.credentials")
    assert "in KAGGLE_API_TOKEN: they are wrong or expired; they are used instead of " in unused.error
    assert "kaggle.json" in unused.error and "https://www.kaggle.com/settings/api" in unused.error
    (workspace.home / ".kaggle/kaggle.json").unlink()
    none = harness.run(workspace, *words)
    assert "no Kaggle credentials were found; make a token at https://www.kaggle.com/settings/api" in none.error
    for result in (wrong, unused, none):
        assert result.exit_code == 2 and result.error.count("\n") == 1
        assert "wrong-key" not in result.output + result.error
    assert workspace.competition.submissions == [] and workspace.submissions == []


def test_without_a_network_nothing_is_uploaded(harness: Harness) -> None:
    workspace = harness.workspace("offline")
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    for credentials in ({}, {"KAGGLE_API_TOKEN": "token.offline"}):
        result = harness.run(workspace, *workspace.command("submit"), **nowhere, **credentials)
        assert result.exit_code == 2 and result.error.startswith(
            "error: nothing was uploaded: Kaggle cannot be reached"
        )
    assert (workspace.folder / "submissions/run.csv").exists() and workspace.submissions == []


def test_readable_credential_files_are_named_and_no_secret_is_printed(harness: Harness) -> None:
    workspace = harness.workspace("open")
    path = workspace.home / ".kaggle/kaggle.json"
    path.chmod(0o644)
    result = harness.run(workspace, *workspace.command("submit"), VERBOSE="1", VERBOSE_OUTPUT="1")
    assert result.exit_code == 0 and f"run: chmod 600 {path}\n" in result.output
    assert leaks(workspace, [result]) == [] and disagreements(workspace) == []


def test_the_leaderboard_shows_the_top_and_our_place_below_it(harness: Harness) -> None:
    teams = [(f"team {number}", str(50 - number / 10)) for number in range(150)]
    workspace = harness.workspace("board", teams=teams)
    ours = harness.run(workspace, "leaderboard", "--competition", "board", "--rows", "3", "--team", "TEAM 120")
    assert "our place: 121 (team 120, 38.0)" in ours.output
    assert "100 places of the leaderboard read" in ours.output
    assert "team 2 " in ours.output and "team 3 " not in ours.output and "│ 121 " in ours.output
    unknown = harness.run(workspace, "leaderboard", "--competition", "board", "--rows", "3")
    assert "our place is not known: no team 'tester' among the first 150; add ARGS='--team NAME'" in unknown.output


def test_the_ledger_shows_the_rank_and_refreshed_private_scores(harness: Harness) -> None:
    workspace = harness.workspace("table")
    assert "place 2 on the public" in harness.run(workspace, *workspace.command("submit", "--team", "Tester")).output
    workspace.competition.private_score = "29.5"
    result = harness.run(workspace, "submissions", "--refresh")
    row = next(line for line in result.output.splitlines() if "first" in line)
    for cell in ("table", "run", "0123456789ab", "31.75", "31.25", "29.50", "2", "[run:"):
        assert f"│ {cell}" in row
    environment = environment_of(workspace) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "src.kaggle_client", "submissions"]
    shown = subprocess.run(command, cwd=workspace.folder, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout == result.output


def test_the_same_csv_is_submitted_once_without_the_option_again(harness: Harness) -> None:
    workspace = harness.workspace("same")
    first, second = (harness.run(workspace, *workspace.command("submit")) for _ in range(2))
    assert "has this csv since" in second.output and "public score 31.25" in second.output
    assert len(workspace.competition.submissions) == 1 and first.exit_code == second.exit_code == 0
    third = harness.run(workspace, *workspace.command("submit", "--again"))
    assert third.exit_code == 0 and len(workspace.competition.submissions) == 2
    assert [submission.state for submission in workspace.submissions] == ["scored", "scored"]


@pytest.mark.parametrize("name", ["submissions/run.csv", "runs/run/best.pt", "runs/run/config.json"])
def test_a_file_that_changed_since_the_csv_was_written_is_refused_unless_forced(harness: Harness, name: str) -> None:
    workspace = harness.workspace(f"stale-{Path(name).stem}")
    path = workspace.folder / name
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") if path.suffix == ".csv" else b"changed")
    result = harness.run(workspace, *workspace.command("submit"))
    assert result.exit_code == 2 and f"error: {name}: not as it was when the csv was written" in result.error
    assert "make submission RUN=run" in result.error and workspace.competition.calls == []
    if path.suffix == ".csv":
        forced = harness.run(workspace, *workspace.command("submit", "--force-stale"))
        assert forced.exit_code == 0 and "no local score" in forced.output  # the known score belongs to another csv
        assert workspace.submissions[0].intent.csv_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_invalid_csv_is_refused_before_any_call(harness: Harness) -> None:
    workspace = harness.workspace("broken")
    write_run(workspace.folder, b"id,0\n0,300\n")
    result = harness.run(workspace, *workspace.command("submit"))
    assert result.exit_code == 2 and "submissions/run.csv" in result.error and workspace.competition.calls == []


def test_a_csv_of_synthetic_data_is_refused_before_any_call(harness: Harness) -> None:
    workspace = harness.workspace("rehearsal")
    write_run(workspace.folder, small_csv("rehearsal"), synthetic=True)
    for options in ((), ("--again",), ("--force-stale",)):
        result = harness.run(workspace, *workspace.command("submit", *options))
        assert result.exit_code == 2 and result.error.count("\n") == 1
        assert "submissions/run.csv is a rehearsal: its data set dance is synthetic" in result.error
    assert workspace.competition.calls == [] and workspace.submissions == []


def test_a_csv_of_full_size_is_uploaded_as_a_zip(harness: Harness) -> None:
    header = ",".join(["id", *map(str, range(6144))])
    content = "\n".join([header, *(f"{row}" + ",127" * 6144 for row in range(630))]).encode() + b"\n"
    workspace = harness.workspace("full")
    write_run(workspace.folder, content, num_rows=630, frame_size=(32, 64))
    assert harness.run(workspace, *workspace.command("submit")).exit_code == 0
    left = [".gitignore", f"full.{hashlib.sha256(content).hexdigest()[:12]}.calls", "lock"]
    assert sorted(path.name for path in (workspace.folder / "submissions/.uploads").iterdir()) == left
    (submission,) = workspace.competition.submissions
    assert submission["fileName"] == "run.zip" and len(submission["blob"]) < len(content) / 10
    with zipfile.ZipFile(io.BytesIO(submission["blob"])) as opened:
        assert opened.namelist() == ["run.csv"] and opened.read("run.csv") == content


def prepared(path: Path, content: bytes) -> PreparedSubmission:
    path.write_bytes(content)
    return PreparedSubmission("run", "slug", "message", path, hashlib.sha256(content).hexdigest(), None, None)


def test_a_zip_is_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.competition.request.UPLOADS", tmp_path)
    zips = []
    for seconds in (1e9, 2e9):
        submission = prepared(tmp_path / "run.csv", b"1," * 10_000)
        os.utime(submission.csv, (seconds, seconds))
        zips.append(file_to_upload(submission).read_bytes())
    assert zips[0] == zips[1] and len(zips[0]) < 1000
    (tmp_path / "run.csv").write_bytes(b"2," * 10_000)
    with pytest.raises(UserError, match="was changed while it was being submitted"):
        file_to_upload(submission)


def test_a_csv_that_a_zip_does_not_make_smaller_is_uploaded_as_it_is(tmp_path: Path) -> None:
    assert file_to_upload(prepared(tmp_path / "run.csv", os.urandom(1000))) == tmp_path / "run.csv"


def test_a_slug_is_read_from_a_url_too() -> None:
    assert read_slug("my-slug") == "my-slug"
    assert read_slug("https://www.kaggle.com/competitions/my-slug/overview?x=1") == "my-slug"
    assert read_slug("https://www.kaggle.com/c/my-slug") == "my-slug"
    for text in ("", "My Slug", "--force", "https://www.kaggle.com/competitions"):
        with pytest.raises(UserError, match="is not a competition's slug"):
            read_slug(text)


SHOW_WORDS = "import json, sys; print(json.dumps(sys.argv[1:]))"
TRICKY = (
    "costs $5",
    "it's `touch ran`",
    '"$(touch ran)"',
    "$(shell touch ran)",
    "-x # \\ ; touch ran",
    "$$HOME $(RUN)",
)


@pytest.mark.parametrize("text", TRICKY)
def test_make_passes_every_text_as_it_is(tmp_path: Path, text: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name, script in (
        (".ci/setup", ""),
        (".venv/bin/python", f'exec {shlex.quote(sys.executable)} -c "{SHOW_WORDS}" "$@"'),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    shutil.copy(ROOT / ".ci/variables.py", tmp_path / ".ci")

    def words(target: str, *variables: str) -> list[str]:
        command = ["make", "-s", "-C", str(tmp_path), target, *variables]
        return json.loads(subprocess.check_output(command, text=True).splitlines()[-1])

    submit = words("submit", f"MESSAGE={text}", f"RUN={text}", "ARGS=--team 'My team' --again")
    assert submit[submit.index("--run") + 1] == text and f"--message={text}" in submit
    assert submit[-1] == "--args=--team 'My team' --again"
    assert words("submit", f"ARGS={text}")[-1] == f"--args={text}"
    data = words("data", f"SOURCE={text}", f"DATASET={text}")
    assert [data[data.index(option) + 1] for option in ("--source", "--dataset")] == [text] * 2
    assert words("train", f"SET={text}")[-1] == text
    predict = words("predict", *(f"{name}={text}" for name in ("FRAME", "POSES", "OUT", "SET")))
    assert [predict[predict.index(option) + 1] for option in ("--frame", "--poses", "--out", "--set")] == [text] * 4
    listed = subprocess.check_output(["make", "-s", "-C", str(tmp_path), f"MESSAGE={text}"], text=True)
    assert re.search(rf"^  MESSAGE +{re.escape(text)}$", listed, re.MULTILINE)
    assert not (tmp_path / "ran").exists()
