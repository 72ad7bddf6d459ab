"""`make audit` finds what is wrong, and never says that something was checked that was not."""

import runpy
from typing import Any

import pytest

from tests.conftest import ROOT

HASH = "    --hash=sha256:" + "0" * 64


@pytest.fixture
def audit() -> dict[str, Any]:
    """The functions of .ci/audit.py."""
    return runpy.run_path(str(ROOT / ".ci/audit.py"))


def test_versions_and_hashes(audit: dict[str, Any]) -> None:
    version = __import__("numpy").__version__
    good = f"numpy=={version} \\\n{HASH}\n    # via torch\nabsent==1 ; python_version < '3' \\\n{HASH}\n"
    assert audit["problems_of"](audit["locked"](good)) == []
    other = f"numpy==0.1 \\\n{HASH}\nno-such-package==1\n"
    assert audit["problems_of"](audit["locked"](other)) == [
        "no-such-package has no hash in the lock",
        f"numpy is {version}; needed: ==0.1",
        "no-such-package is not installed; needed: ==1",
    ]


def test_the_lock_of_the_project_is_met(audit: dict[str, Any]) -> None:
    requirements = audit["locked"]((ROOT / "requirements.lock").read_text())
    assert len(requirements) > 50
    assert audit["problems_of"](requirements) == []


@pytest.mark.parametrize(
    ("licence", "strict"),
    [
        ("MIT", False),
        ("GPL-3.0-only", True),
        ("GNU Affero General Public License v3", True),
        ("GNU Lesser General Public License v2", False),
        ("LGPL-2.1", False),
        ("Artistic License, GNU General Public License (GPL)", False),
        ("MIT OR GPL-2.0", False),
        ("unknown", False),
    ],
)
def test_licences_that_bind(audit: dict[str, Any], licence: str, strict: bool) -> None:
    assert audit["is_strict"](licence) == strict


@pytest.mark.parametrize(
    ("output", "errors", "expected"),
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}, {"name": "b"}]}', "",
         (["a 1: CVE-1"], "")),
        ("", "error: no network\n", ([], "pip-audit could not be run or reach its source: error: no network")),
        ("[]", "", ([], "pip-audit could not be run or reach its source: no answer")),
    ],
)  # fmt: skip
def test_vulnerabilities_are_known_or_not_checked(
    audit: dict[str, Any], monkeypatch: pytest.MonkeyPatch, output: str, errors: str, expected: tuple[list[str], str]
) -> None:
    class Done:
        stdout = output
        stderr = errors

    monkeypatch.setattr(audit["subprocess"], "run", lambda *words, **options: Done())
    assert audit["vulnerabilities"]() == expected
