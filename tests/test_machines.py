"""Machines as people have them: no home, no user, few programs, other Pythons, old make, paths with any letter."""

import ctypes
import errno
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import synchronize
from pathlib import Path

import pytest

from src.base import ownership
from src.base.devices import NO_LIMIT, container_memory
from src.base.system_errors import COMPILER, WORDS, explained
from src.competition.ledger import Event, Ledger
from tests.conftest import ROOT

TOOLS = ("bash", "sh", "make", "env", "cat", "cp", "mkdir", "rm", "chmod")  # no awk, git, cmp, df, g++
PYTHON_STUB = f"""#!/bin/sh
case "$*" in
"-m venv"*) mkdir -p .venv/bin; for name in python pip uv; do cp installer .venv/bin/$name; done;;
*) exec {shlex.quote(sys.executable)} "$@";;
esac
"""
INSTALLER = """#!/bin/sh
printf '%s\\n' "${0##*/} $*" >> calls
env > "environment.${0##*/}"
case "$*" in *"$FAIL"*) [ -z "$FAIL" ] || { echo "cause" >&2; exit 1; };; esac
"""
HASHES = " \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n"
LOCK = f"absl==1{HASHES}uv==0.1{HASHES}zoo==1{HASHES}"
EVENT = Event(event="intent", competition="slug", run="r", tag="0" * 12, message="m", csv_sha256="0" * 64)
Make = Callable[..., "subprocess.CompletedProcess[str]"]


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in a folder with a space, a tilde and an umlaut, with an installer that only writes down its calls."""
    folder = tmp_path / "a b~ü"
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.lock").write_text(LOCK)
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found, name
        (tmp_path / "bin" / name).symlink_to(found)
    executable(tmp_path / "bin" / "python3", PYTHON_STUB)
    executable(folder / "installer", INSTALLER)
    return folder


@pytest.fixture
def make(checkout: Path) -> Make:
    """Runs make with an environment that has nothing but PATH, the paths of those few programs, and what is given."""

    def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["make", "--no-print-directory", *words],
            env={"PATH": str(checkout.parent / "bin")} | environment,
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def environment_of(checkout: Path, program: str) -> dict[str, str]:
    lines = (checkout / f"environment.{program}").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_set_up_needs_no_home_and_few_programs(checkout: Path, make: Make) -> None:
    done = make("setup")
    assert (done.returncode, done.stderr) == (0, "")
    assert (checkout / ".venv/uv.lock").read_text() == f"uv==0.1{HASHES}"
    calls = (checkout / "calls").read_text().splitlines()
    assert calls[0] == "python -m pip install -q --require-hashes -r .venv/uv.lock"
    assert calls[1] == "uv pip install -q --python .venv/bin/python --require-hashes -r requirements.lock"
    assert environment_of(checkout, "uv")["UV_CACHE_DIR"] == f"{checkout}/.venv/cache"
    assert sorted(path.name for path in checkout.iterdir() if path.name.startswith(".")) == [".ci", ".venv"]
    (checkout / "calls").unlink()
    assert make("setup").returncode == 0 and not (checkout / "calls").exists(), "it is there already"
    (checkout / ".venv/bin/python").unlink()  # as where the system's Python was replaced
    assert make("setup").returncode == 0 and (checkout / "calls").exists()


def test_the_cache_is_in_the_home_folder_if_there_is_one(checkout: Path, make: Make, tmp_path: Path) -> None:
    assert make("setup", HOME=str(tmp_path)).returncode == 0
    assert "UV_CACHE_DIR" not in environment_of(checkout, "uv")


def test_settings_of_other_pythons_do_not_reach_the_commands(checkout: Path, make: Make) -> None:
    other = {"PYTHONPATH": "/ros", "PYTHONSTARTUP": "/s.py", "PIP_USER": "1", "UV_SYSTEM_PYTHON": "1"}
    kept = {"CONDA_PREFIX": "/conda", "VIRTUAL_ENV": "/other", "HTTPS_PROXY": "http://proxy:1"}
    certificate = {"REQUESTS_CA_BUNDLE": str(checkout / "Makefile")}
    assert make("setup", **other, **kept, **certificate).returncode == 0
    for program in ("python", "uv"):
        found = environment_of(checkout, program)
        assert not found.keys() & other.keys()
        assert kept.items() <= found.items(), "proxies and certificates are passed on"
        assert found["SSL_CERT_FILE"] == found["PIP_CERT"] == certificate["REQUESTS_CA_BUNDLE"]
    executable(checkout / ".venv/bin/python", INSTALLER)
    assert make("submissions", PYTHONHOME="/conda", PYTHONPATH="/ros", **certificate).returncode == 0
    found = environment_of(checkout, "python")
    assert not found.keys() & {"PYTHONHOME", "PYTHONPATH"} and certificate.items() <= found.items()


def test_what_keeps_the_set_up_from_its_end_is_one_line(checkout: Path, make: Make, tmp_path: Path) -> None:
    for environment, words in (
        ({"FAIL": "uv.lock"}, "error: pip could not install uv; see the lines above; HTTPS_PROXY names an http proxy"),
        ({"FAIL": "requirements.lock"}, "error: uv could not install the dependencies; see the lines above"),
        ({"SSL_CERT_FILE": "/no"}, "error: the certificates in /no cannot be read; correct SSL_CERT_FILE or"),
        ({"PYTHON": "python9"}, "error: python9 is not installed; install Python 3.11 to 3.13"),
    ):
        done = make("setup", **environment)
        lines = [line for line in done.stderr.splitlines() if line != "cause" and not line.startswith("make: ***")]
        assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith(words), done.stderr
        assert not (checkout / ".venv/installed.lock").exists()


def test_help_needs_nothing_but_the_shell(make: Make) -> None:
    """No awk: gawk 5.2 warned of a regular expression before every command."""
    done = make("help", PYTHON="none")
    assert done.stderr == "" and "  make setup        install the locked dependencies into .venv\n" in done.stdout
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  make (\S+) ", done.stdout, re.MULTILINE) == targets


NEWER_THAN_3_81 = {
    r"^\.ONESHELL": "3.82",
    r"^\.RECIPEPREFIX": "3.82",
    r"^\s*(private|undefine)\b": "3.82",
    r"^\s*define \S+ *[:?+]?=": "3.82",
    r"\$\(file ": "4.0",
    r"!=": "4.0",
    r"::=": "4.0",
    r"^load ": "4.0",
    r"&:": "4.3",
    r"\$\((let|intcmp) ": "4.4",
    r"^\.(WAIT|NOTINTERMEDIATE)\b": "4.4",
}


def test_the_makefile_reads_the_same_with_make_3_81() -> None:
    """macOS has make 3.81. It ignores .SHELLFLAGS, so no recipe may rely on it."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    for pattern, version in NEWER_THAN_3_81.items():
        assert not [line for line in lines if re.search(pattern, line)], f"make {version} is needed"
    recipes = "\n".join(lines).replace("\\\n", " ").splitlines()
    for line in recipes:
        if line.startswith("\t") and (" | " in line or "; " in line) and not line.startswith(("\t@echo", "\t@while")):
            assert line.startswith(("\t@set -eo pipefail; ", "\t@$(if ", "\t@$(foreach ")), line
    assert not re.search(r"sed -i|\b(readlink -f|grep -P|realpath|find .*-delete|date -I|mktemp)\b", "\n".join(lines))


def test_scripts_have_the_line_ends_of_unix_in_every_checkout(tmp_path: Path) -> None:
    """Also with core.autocrlf, as git for Windows sets it."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no git checkout")
    git = ("git", "-c", "safe.directory=*", "-c", "core.autocrlf=true")
    subprocess.run([*git, "init", "-q", str(tmp_path)], check=True)
    for name in (".gitattributes", "Makefile", ".ci/setup"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run([*git, "add", "."], cwd=tmp_path, check=True)
    for name in ("Makefile", ".ci/setup"):
        (tmp_path / name).unlink()
    subprocess.run([*git, "checkout", "-q", "."], cwd=tmp_path, check=True)
    assert b"\r" not in (tmp_path / "Makefile").read_bytes() + (tmp_path / ".ci/setup").read_bytes()


def become_nobody() -> None:
    """Gives this process a user without a name and without a home, where the system allows it."""
    user, group = os.getuid(), os.getgid()
    assert ctypes.CDLL(None, use_errno=True).unshare(0x10000000) == 0, "no namespace of users"  # CLONE_NEWUSER
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"12345 {user} 1")
    Path("/proc/self/gid_map").write_text(f"12345 {group} 1")


def bare(script: str, home: Path | None, *words: str) -> "subprocess.CompletedProcess[str]":
    """Runs Python with no PATH, no user, and a home that cannot be written, or none."""
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | ({"HOME": str(home)} if home else {})
    try:
        return subprocess.run(
            [sys.executable, "-c", script, *words],
            env=environment,
            preexec_fn=become_nobody,
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.SubprocessError:
        pytest.skip("this system allows no namespace of users")


COMMANDS = """
import os, sys
from pathlib import Path
assert os.getuid() == 12345, os.getuid()
os.chdir(sys.argv[1])
import src.benchmark, src.cost, src.experiments, src.kaggle_client, src.packing, src.report, src.tester, src.trainer
import src.verify, src.submission
from src.base.console import run_main
from src.base.provenance import commit
from src.reporting import plots
assert commit() is None
plots.plot_history(Path("curves.png"), [{"epoch": 1, "total": 1.0, "reconstruction": 1.0, "kl": 1.0}], {})
sys.argv = ["packing", "--source", "synthetic", "--dataset", "own", "--take-length", "20"]
sys.argv += ["--val-length", "12", "--test-length", "12"]
run_main(src.packing.main)
sys.argv = ["verify"]
run_main(src.verify.main)
"""


@pytest.mark.parametrize("home", ["/proc/1/nothing", None], ids=["read-only home", "no home"])
def test_commands_work_without_user_home_and_programs(tmp_path: Path, home: str | None) -> None:
    done = bare(COMMANDS, Path(home) if home else None, str(tmp_path))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert (tmp_path / "curves.png").is_file() and "packed data/own" in done.stdout


def test_compiling_without_a_compiler_is_one_line() -> None:
    script = (
        "import torch\nfrom src.base.console import run_main\n"
        "def main():\n    block = torch.nn.Linear(2, 2)\n    block.compile()\n"
        "    block(torch.zeros(1, 2))\nrun_main(main)"
    )
    done = bare(script, None)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"error: {COMPILER}"), done.stderr
    assert "Traceback" not in done.stderr
    assert explained(RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")) == COMPILER


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_shared_memory_that_is_full_or_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(synchronize._multiprocessing, "SemLock", refuse)
    with pytest.raises(OSError) as error:
        multiprocessing.get_context("spawn").Lock()
    place = error.value.__traceback__
    while place and place.tb_next and place.tb_next.tb_frame.f_code is not refuse.__code__:
        place = place.tb_next
    assert place
    place.tb_next = None  # the real function is in C and has no frame
    line = f"/dev/shm, which processes share, cannot be used: {os.strerror(number)}; in Docker: --shm-size=64m"
    assert explained(error.value) == line
    assert explained(OSError(number, os.strerror(number), "a.npy")) != line


@pytest.mark.parametrize("version", [1, 2])
def test_the_memory_of_a_container_counts(tmp_path: Path, version: int) -> None:
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    folder = tmp_path if version == 2 else tmp_path / "memory"
    folder.mkdir(exist_ok=True)
    (folder / names[0]).write_text("4000000\n")
    (folder / names[1]).write_text("3000000\n")
    statistics = "inactive_file 1000000\n" if version == 2 else "inactive_file 5\ntotal_inactive_file 1000000\n"
    (folder / "memory.stat").write_text(f"anon 12\n{statistics}")
    assert container_memory(tmp_path) == (4_000_000, 2_000_000)
    (folder / names[0]).write_text("max\n" if version == 2 else f"{2**63}\n")
    assert container_memory(tmp_path) == (NO_LIMIT, 0)
    assert container_memory(tmp_path / "none") == (NO_LIMIT, 0)


@pytest.mark.parametrize("number", ownership.WITHOUT_FLOCK)
def test_the_ledger_says_that_a_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(ownership.fcntl, "flock", refuse)
    with pytest.raises(OSError) as error:
        Ledger(tmp_path / "ledger.jsonl").append(EVENT)
    assert explained(error.value) == f"{tmp_path}/ledger.jsonl: {WORDS[errno.ENOLCK]}"
