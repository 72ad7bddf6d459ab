"""The commands, on the real client against the loopback server: credentials, calls, tables, and what is refused."""

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
from kaggle_workbench import Bench, Desk, environment_of, leaks, losses, open_desk, write_run
from loopback_kaggle import KEY, USER

from src.base.console import UserError
from src.competition.client import CLIENT_VERSIONS
from src.competition.order import Order, packed
from src.kaggle_client import read_slug

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with open_desk(tmp_path_factory.mktemp("client"), forked=True) as desk:
        yield desk


def test_the_versions_that_everything_here_was_found_with_are_installed_and_pinned() -> None:
    assert {name: importlib.metadata.version(name) for name in CLIENT_VERSIONS} == CLIENT_VERSIONS
    pinned = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {f"{name}=={CLIENT_VERSIONS[name]}" for name in ("kaggle", "kagglesdk")} <= set(pinned)
    locked = (ROOT / "requirements.lock").read_text()
    assert all(f"\n{name}=={version} \\\n" in locked for name, version in CLIENT_VERSIONS.items())
    assert any(line.startswith("six") for line in pinned)  # the client imports it without declaring it


def test_the_client_is_never_imported(desk: Desk) -> None:
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.partition(".")[0] in ("kaggle", "kagglesdk") for name in names), path
    code = "import sys; from src import kaggle_client as k; k.main(); sys.exit(int('kaggle' in sys.modules))"
    bench = desk.bench("imports")
    for words in (["submissions", "--refresh"], ["leaderboard", "--competition", "imports"]):
        environment = environment_of(bench) | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code, *words], cwd=bench.folder, env=environment, check=True)
    assert "leaderboard" in bench.competition.steps()


def test_a_round_trip_makes_exactly_the_calls_that_are_relied_on(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("train/0.png", b"picture")
    with open_desk(tmp_path) as desk:  # whose clients start as they do for everyone
        bench = desk.bench("calls", archive=buffer.getvalue())
        assert desk.run(bench, *bench.command("download")).exit_code == 0
        assert desk.run(bench, *bench.command("submit")).exit_code == 0
        assert desk.run(bench, "leaderboard", "--competition", "calls", "--team", "ada").exit_code == 0
    api = "competitions.CompetitionApiService"
    expected = [
        (f"{api}/DownloadDataFiles", {"competitionName"}),
        ("GET", {"first"}),
        (f"{api}/ListSubmissions", {"competitionName", "page", "pageSize", "pageToken"}),
        (f"{api}/GetSubmissionLimits", {"competitionName"}),
        (
            f"{api}/StartSubmissionUpload",
            {"competitionName", "contentLength", "fileName", "lastModifiedEpochSeconds"},
        ),
        ("PUT", {"bytes"}),
        (f"{api}/CreateSubmission", {"blobFileTokens", "competitionName", "submissionDescription"}),
        (f"{api}/GetSubmissionLimits", {"competitionName"}),  # the client's own, after a submission
        (f"{api}/ListSubmissions", {"competitionName", "page", "pageSize", "pageToken"}),
        (f"{api}/GetLeaderboard", {"competitionName", "pageSize", "pageToken"}),
    ]
    assert [(call["method"], set(call["body"])) for call in bench.competition.calls] == expected
    (submission,) = bench.competition.submissions
    sha256 = hashlib.sha256((bench.folder / "submissions/run.csv").read_bytes()).hexdigest()
    assert submission["description"] == f'first "try" [run:{sha256[:12]}]'


def install(bench: Bench, form: str) -> dict[str, str]:
    """Puts the right credentials where `form` says and nowhere else; returns the variables that belong to them."""
    token, legacy = f"token.{bench.competition.slug}", json.dumps({"username": USER, "key": KEY})
    oauth = {"refresh_token": f"refresh.{bench.competition.slug}", "access_token": "", "username": USER}
    (bench.home / ".kaggle/kaggle.json").unlink()
    if "~/.config" in form:
        (bench.home / ".kaggle").rmdir()
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
        path = bench.home / files[form][0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[form][1])
        path.chmod(0o600)
    return {
        "KAGGLE_API_TOKEN, a value": {"KAGGLE_API_TOKEN": token},
        "KAGGLE_API_TOKEN, a file": {"KAGGLE_API_TOKEN": str(bench.home / "token.txt")},
        "KAGGLE_USERNAME and KAGGLE_KEY": {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY},
        "XDG_CONFIG_HOME, ~/.config": {"XDG_CONFIG_HOME": str(bench.home / "settings")},
        "KAGGLE_CONFIG_DIR": {"KAGGLE_CONFIG_DIR": str(bench.home / "elsewhere")},
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
def test_every_form_of_credentials_is_taken(desk: Desk, form: str) -> None:
    bench = desk.bench(f"form-{FORMS.index(form)}")
    variables = install(bench, form)
    result = desk.run(bench, "leaderboard", "--competition", bench.competition.slug, **variables)
    assert result.exit_code == 0 and "a team named tester is at place 2 (35.0)" in result.output, result
    assert leaks(bench, [result]) == []


def by_hand(output: str) -> list[str]:
    """Returns the words of the line that submits by hand."""
    return shlex.split(output.partition("by hand:\n")[2].partition("\n")[0])


def test_a_key_file_that_is_no_json_is_called_so(desk: Desk) -> None:
    bench = desk.bench("json")
    path = bench.home / ".kaggle/kaggle.json"
    path.write_text(path.read_text()[:-1])
    result = desk.run(bench, *bench.command("submit"))
    assert result.exit_code == 2 and f"{path} is not valid JSON; make a new one at https://www" in result.error
    assert leaks(bench, [result]) == []


def test_no_wrong_expired_and_hidden_credentials_are_told_apart(desk: Desk) -> None:
    bench = desk.bench("credentials")
    words = bench.command("submit")
    wrong = desk.run(bench, *words, KAGGLE_USERNAME=USER, KAGGLE_KEY="wrong-key-9876543210")
    assert "does not accept the credentials in KAGGLE_USERNAME and KAGGLE_KEY: wrong or expired" in wrong.error
    hidden = desk.run(bench, *words, KAGGLE_API_TOKEN="expired.credentials")
    assert "in KAGGLE_API_TOKEN: wrong or expired, and used before " in hidden.error
    assert "kaggle.json" in hidden.error and "https://www.kaggle.com/settings/api" in hidden.error
    (bench.home / ".kaggle/kaggle.json").unlink()
    none = desk.run(bench, *words)
    assert "no Kaggle credentials were found; make a token at https://www.kaggle.com/settings/api" in none.error
    for result in (wrong, hidden, none):
        assert result.exit_code == 2 and result.error.count("\n") == 1
        assert "wrong-key" not in result.output + result.error
        assert by_hand(result.output)[:4] == [".venv/bin/kaggle", "competitions", "submit", "credentials"]
    assert bench.competition.submissions == [] and bench.submissions == []


def test_without_a_network_the_line_to_submit_by_hand_is_printed(desk: Desk) -> None:
    bench = desk.bench("offline")
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    for credentials in ({}, {"KAGGLE_API_TOKEN": "token.offline"}):
        result = desk.run(bench, *bench.command("submit"), **nowhere, **credentials)
        assert result.exit_code == 2 and result.error.startswith(
            "error: nothing was uploaded: Kaggle cannot be reached"
        )
        assert by_hand(result.output)[:4] == [".venv/bin/kaggle", "competitions", "submit", "offline"]
    assert (bench.folder / "submissions/run.csv").exists() and bench.submissions == []


def test_files_that_others_can_read_are_named_and_nothing_secret_is_printed(desk: Desk) -> None:
    bench = desk.bench("open")
    path = bench.home / ".kaggle/kaggle.json"
    path.chmod(0o644)
    result = desk.run(bench, *bench.command("submit"), VERBOSE="1", VERBOSE_OUTPUT="1")
    assert result.exit_code == 0 and f"run: chmod 600 {path}\n" in result.output
    assert leaks(bench, [result]) == [] and losses(bench) == []


def test_the_leaderboard_shows_the_top_and_our_place_further_down(desk: Desk) -> None:
    teams = [(f"team {number}", str(50 - number / 10)) for number in range(150)]
    bench = desk.bench("board", teams=teams)
    ours = desk.run(bench, "leaderboard", "--competition", "board", "--rows", "3", "--team", "TEAM 120")
    assert "our place: 121 (team 120, 38.0)" in ours.output
    assert "100 places of the leaderboard read" in ours.output
    assert "team 2 " in ours.output and "team 3 " not in ours.output and "│ 121 " in ours.output
    unknown = desk.run(bench, "leaderboard", "--competition", "board", "--rows", "3")
    assert "our place is not known: no team 'tester' among the first 150; ARGS='--team NAME'" in unknown.output


def test_the_ledger_is_shown_with_rank_and_refreshed_with_private_scores(desk: Desk) -> None:
    bench = desk.bench("table")
    assert "place 2 on the public" in desk.run(bench, *bench.command("submit", "--team", "Tester")).output
    bench.competition.private_score = "29.5"
    result = desk.run(bench, "submissions", "--refresh")
    row = next(line for line in result.output.splitlines() if "first" in line)
    for cell in ("table", "run", "0123456789ab", "31.75", "31.25", "29.50", "2", 'first "try" [run:'):
        assert f"│ {cell}" in row
    environment = environment_of(bench) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "src.kaggle_client", "submissions"]
    shown = subprocess.run(command, cwd=bench.folder, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout == result.output


def test_the_same_csv_is_submitted_once_unless_asked_again(desk: Desk) -> None:
    bench = desk.bench("same")
    first, second = (desk.run(bench, *bench.command("submit")) for _ in range(2))
    assert "has this csv since" in second.output and "public score 31.25" in second.output
    assert len(bench.competition.submissions) == 1 and first.exit_code == second.exit_code == 0
    third = desk.run(bench, *bench.command("submit", "--again"))
    assert third.exit_code == 0 and len(bench.competition.submissions) == 2
    assert [submission.state for submission in bench.submissions] == ["scored", "scored"]


@pytest.mark.parametrize("name", ["submissions/run.csv", "runs/run/best.pt", "runs/run/config.json"])
def test_what_changed_since_the_csv_was_written_is_refused_unless_forced(desk: Desk, name: str) -> None:
    bench = desk.bench(f"stale-{Path(name).stem}")
    path = bench.folder / name
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") if path.suffix == ".csv" else b"changed")
    result = desk.run(bench, *bench.command("submit"))
    assert result.exit_code == 2 and f"error: {name}: changed or gone since" in result.error
    assert "make submission RUN=run" in result.error and bench.competition.calls == []
    if path.suffix == ".csv":
        forced = desk.run(bench, *bench.command("submit", "--force-stale"))
        assert forced.exit_code == 0 and "no local score beside it" in forced.output  # that of another csv is none
        assert bench.submissions[0].intent.csv_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_broken_csv_is_refused_before_anything_is_asked(desk: Desk) -> None:
    bench = desk.bench("broken")
    write_run(bench.folder, b"id,0\n0,300\n")
    result = desk.run(bench, *bench.command("submit"))
    assert result.exit_code == 2 and "submissions/run.csv" in result.error and bench.competition.calls == []


def test_a_csv_of_full_size_travels_as_a_zip(desk: Desk) -> None:
    header = ",".join(["id", *map(str, range(6144))])
    content = "\n".join([header, *(f"{row}" + ",127" * 6144 for row in range(630))]).encode() + b"\n"
    bench = desk.bench("full")
    write_run(bench.folder, content, num_rows=630)
    assert desk.run(bench, *bench.command("submit"), small=False).exit_code == 0
    assert sorted(path.name for path in (bench.folder / "submissions/.uploads").iterdir()) == [".gitignore", "lock"]
    (submission,) = bench.competition.submissions
    assert submission["fileName"] == "run.zip" and len(submission["blob"]) < len(content) / 10
    with zipfile.ZipFile(io.BytesIO(submission["blob"])) as opened:
        assert opened.namelist() == ["run.csv"] and opened.read("run.csv") == content


def order(path: Path, content: bytes) -> Order:
    path.write_bytes(content)
    return Order("run", "slug", "message", path, hashlib.sha256(content).hexdigest(), None, None)


def test_a_zip_is_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.competition.order.UPLOADS", tmp_path)
    zips = []
    for seconds in (1e9, 2e9):
        ordered = order(tmp_path / "run.csv", b"1," * 10_000)
        os.utime(ordered.csv, (seconds, seconds))
        zips.append(packed(ordered).read_bytes())
    assert zips[0] == zips[1] and len(zips[0]) < 1000
    (tmp_path / "run.csv").write_bytes(b"2," * 10_000)
    with pytest.raises(UserError, match="was changed while it was being submitted"):
        packed(ordered)


def test_a_csv_that_no_zip_makes_smaller_travels_as_it_is(tmp_path: Path) -> None:
    assert packed(order(tmp_path / "run.csv", os.urandom(1000))) == tmp_path / "run.csv"


def test_a_slug_is_read_from_an_address_too() -> None:
    assert read_slug("my-slug") == "my-slug"
    assert read_slug("https://www.kaggle.com/competitions/my-slug/overview?x=1") == "my-slug"
    assert read_slug("https://www.kaggle.com/c/my-slug") == "my-slug"
    for text in ("", "My Slug", "--force", "https://www.kaggle.com/competitions"):
        with pytest.raises(UserError, match="is no competition's slug"):
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
    for name, script in ((".ci/setup", ""), (".venv/bin/python", f'exec {sys.executable} -c "{SHOW_WORDS}" "$@"')):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    shutil.copy(ROOT / ".ci/variables.py", tmp_path / ".ci")

    def words(target: str, *variables: str) -> list[str]:
        command = ["make", "-s", "-C", str(tmp_path), target, *variables]
        return json.loads(subprocess.check_output(command, text=True).splitlines()[-1])

    submit = words("submit", f"MESSAGE={text}", f"RUN={text}", "ARGS=--team 'My team' --again")
    assert submit[submit.index("--run") + 1] == text and f"--message={text}" in submit
    assert submit[-3:] == ["--team", "My team", "--again"]
    data = words("data", f"SOURCE={text}", f"DATASET={text}")
    assert data[3] == data[5] == text
    assert words("train", f"SET={text}")[-1] == text
    predict = words("predict", *(f"{name}={text}" for name in ("FRAME", "POSES", "OUT", "SET")))
    assert [predict[predict.index(option) + 1] for option in ("--frame", "--poses", "--out", "--set")] == [text] * 4
    listed = subprocess.check_output(["make", "-s", "-C", str(tmp_path), f"MESSAGE={text}"], text=True)
    assert re.search(rf"^  MESSAGE +{re.escape(text)}$", listed, re.MULTILINE)
    assert not (tmp_path / "ran").exists()
