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
    assert capsys.readouterr().out.endswith("\n5 checked, none of them damaged\n")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("path", "spoil", "thing"),
    [
        ("data/tiny/test_poses.npy", flip, "data/tiny"),
        ("data/tiny/manifest.json", lambda path: path.write_text("{"), "data/tiny"),
        ("runs/trained/best.pt", flip, "runs/trained/best.pt"),
        ("runs/trained/last.pt", flip, "runs/trained/last.pt"),
        ("runs/trained/best.pt", Path.unlink, "runs/trained/best.pt"),
        ("runs/trained/last.pt", Path.unlink, "runs/trained/last.pt"),
        ("runs/trained/log.jsonl", Path.unlink, "runs/trained/last.pt"),
        ("runs/trained/log.jsonl", lambda path: path.write_text(""), "runs/trained/last.pt"),
        ("runs/trained/log.jsonl", as_folder, "runs/trained"),
        ("runs/trained/scores.json", lambda path: path.mkdir(), "runs/trained"),
        ("runs/trained/config.json", lambda path: path.write_text("[]"), "runs/trained"),
        ("runs/trained/log.jsonl", lambda path: path.write_text("1\n"), "runs/trained"),
        ("submissions/trained.csv", flip, "submissions/trained.csv"),
        ("submissions/trained.json", Path.unlink, "submissions/trained.csv"),
        ("submissions/my best.csv", lambda path: path.write_text("1"), "submissions/my best.csv"),
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
    assert code == 2 and errors.startswith("error: damaged: 1 of ") and "; the lines above say what helps" in errors


def test_what_has_changed_since_the_evaluation_is_out_of_date(place: Path) -> None:
    folder = place / "runs" / "evaluated"
    shutil.copytree(place / "runs" / "trained", folder)
    shutil.copy(write_run(place / "other") / "scores.json", folder)
    found = [str(finding) for finding in verify(run="evaluated")]
    assert any(line.startswith("out of date  runs/evaluated: ") and "changed since" in line for line in found)


def test_a_checkpoint_of_other_settings_is_damaged(place: Path) -> None:
    path = place / "runs" / "trained" / "config.json"
    path.write_text(path.read_text().replace('"seed": 5', '"seed": 6'))
    found = [finding for finding in verify(run="trained") if finding.is_damaged]
    assert [finding.thing for finding in found[:2]] == ["runs/trained/last.pt", "runs/trained/best.pt"]
    assert all("was trained with other settings" in finding.problem for finding in found[:2])


def test_a_row_that_was_cut_out_of_the_log_is_missed(
    place: Path, data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config("reference_cvae", num_epochs=3)
    train(config, place / "runs" / "three")
    path = place / "runs" / "three" / "log.jsonl"
    first, _second, third = path.read_text().splitlines(keepends=True)
    path.write_text(first + third)
    (found,) = [finding for finding in verify(run="three") if finding.is_damaged and finding.thing.endswith(".pt")]
    assert "log.jsonl lacks 1 of 3 epochs, such as epoch 2" in found.problem
    longer = config.model_copy(update={"training": config.training.model_copy(update={"num_epochs": 4})})
    train(longer, place / "runs" / "three")
    assert "log.jsonl lacks 1 of 3 epochs, such as epoch 2; their numbers are lost" in capsys.readouterr().out


@pytest.mark.parametrize("spoil", [flip, Path.unlink])
def test_pictures_of_the_page_are_checked(place: Path, spoil: Callable[[Path], object]) -> None:
    folder = write_run(place / "runs" / "evaluated")
    assert "runs/evaluated/clips" not in damaged(list(verify(run="evaluated")))
    spoil(next((folder / "clips").glob("*.webp")))
    assert "runs/evaluated/clips" in damaged(list(verify(run="evaluated")))


def test_one_data_set_or_one_run(place: Path, outcome: OUTCOME) -> None:
    assert [finding.thing for finding in verify(dataset="tiny")] == ["data/tiny"]
    assert len(list(verify(run="trained"))) == 4
    assert outcome(main, "--dataset", "none") == (2, "error: data/none does not exist\n")
    assert outcome(main, "--run", "../x")[0] == 2


def test_a_folder_without_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(verify()) == []
