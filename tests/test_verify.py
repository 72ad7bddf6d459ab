"""`make verify` names what is damaged, and only that."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from src.base.files import file_hash
from src.submission import Provenance, write_submission
from src.trainer import train
from src.verify import Finding, main, verify
from tests.conftest import tiny_config
from tests.run_folders import write_run
from tests.test_report import provenance

OUTCOME = Callable[..., tuple[int, str]]


@pytest.fixture
def place(tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set, a trained run, an evaluated one, and a csv with its provenance."""
    shutil.copytree(data_folder, tmp_path / "data")
    train(tiny_config("reference_cvae", num_epochs=1), tmp_path / "runs" / "trained")
    frames = np.zeros((2, 12, 3, 4, 6), dtype=np.uint8)
    csv = tmp_path / "submissions" / "trained.csv"
    write_submission(csv, torch.from_numpy(frames), frame_shape=(3, 4, 6), sequence_length=12)
    known: Provenance = provenance("trained").model_copy(update={"csv_sha256": file_hash(csv)})
    known.save(csv.with_suffix(".json"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


pytestmark = pytest.mark.usefixtures("small_data")


def damaged(findings: list[Finding]) -> list[str]:
    return [finding.thing for finding in findings if finding.is_damaged]


def test_whole_things_are_ok(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    findings = list(verify())
    assert damaged(findings) == []
    things = [finding.thing.partition(":")[0] for finding in findings]
    run = ["runs/trained/last.pt", "runs/trained/best.pt", "runs/trained"]
    assert things == ["data/tiny", *run, "submissions/trained.csv"]
    monkeypatch.setattr(sys, "argv", ["verify"])
    main()
    assert capsys.readouterr().out.endswith("\n5 things, none of them damaged\n")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("path", "spoil", "thing"),
    [
        ("data/tiny/test_poses.npy", flip, "data/tiny"),
        ("data/tiny/manifest.json", lambda path: path.write_text("{"), "data/tiny"),
        ("runs/trained/best.pt", flip, "runs/trained/best.pt"),
        ("runs/trained/last.pt", flip, "runs/trained/last.pt"),
        ("runs/trained", lambda path: [each.unlink() for each in path.glob("*.pt")], "runs/trained"),
        ("runs/trained/config.json", lambda path: path.write_text("[]"), "runs/trained"),
        ("runs/trained/log.jsonl", lambda path: path.write_text("1\n"), "runs/trained"),
        ("submissions/trained.csv", flip, "submissions/trained.csv"),
        ("submissions/trained.json", Path.unlink, "submissions/trained.csv"),
        ("submissions/ledger.jsonl", lambda path: path.write_text('{"event": "scored"}\n'), "submissions/ledger.jsonl"),
        (
            "reports/grid.jsonl",
            lambda path: path.write_text('{"run":"plain","checksum":"0123456789abcdef"}\n'),
            "reports/grid.jsonl",
        ),
        ("reports/grid.json", lambda path: path.write_text('{"comparisons": 3}'), "reports/grid.json"),
    ],
)
def test_one_damaged_thing_is_named(
    place: Path,
    outcome: OUTCOME,
    path: str,
    spoil: Callable[[Path], object],
    thing: str,
) -> None:
    (place / path).parent.mkdir(exist_ok=True)
    spoil(place / path)
    (found,) = [finding for finding in verify() if finding.is_damaged]
    assert found.thing == thing and str(found).startswith(f"DAMAGED      {thing}: ")
    code, errors = outcome(main)
    assert code == 2 and errors.startswith("error: 1 of ") and "damaged; the lines above say what helps" in errors


def test_what_has_changed_since_the_evaluation_is_out_of_date(place: Path) -> None:
    folder = write_run(place / "runs" / "evaluated")
    (folder / "best.pt").write_bytes((place / "runs" / "trained" / "best.pt").read_bytes())
    found = [str(finding) for finding in verify(run="evaluated")]
    assert any(line.startswith("out of date  runs/evaluated: ") and "changed since" in line for line in found)


def test_one_data_set_or_one_run(place: Path, outcome: OUTCOME) -> None:
    assert [finding.thing for finding in verify(dataset="tiny")] == ["data/tiny"]
    assert len(list(verify(run="trained"))) == 4
    assert outcome(main, "--dataset", "none") == (2, "error: data/none does not exist\n")
    assert outcome(main, "--run", "../x")[0] == 2


def test_a_folder_without_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(verify()) == []
