"""`make figures`: the stretches are those of a slow search, the frames are exact, and every file is there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src import figures as command
from src.base.console import UserError
from src.figures import STRETCH, error_of, figures, stretches
from src.reporting.clips import NewClip, frames_of, read_clips, save_clips
from src.reporting.results import read_run
from tests.run_folders import write_run

SHA256 = "a" * 64


def frames(length: int, height: int = 6, width: int = 10) -> torch.Tensor:
    chance = np.random.default_rng(length)
    return torch.from_numpy(chance.integers(0, 256, (length, 3, height, width), dtype=np.uint8))


@pytest.mark.parametrize("length", [1, 7, 630])
def test_frames_come_back_exactly(tmp_path: Path, length: int) -> None:
    clip = frames(length)
    save_clips(tmp_path, [NewClip("take", {"true": clip}, {}, (0, length - 1))], SHA256)
    (stored,) = read_clips(tmp_path, SHA256)
    assert torch.equal(frames_of(tmp_path, stored, stored.layers[0]), clip)


def test_a_stretch_is_that_of_a_slow_search(tmp_path: Path) -> None:
    length, first, last = 300, 1, 280
    psnr = np.random.default_rng(0).normal(30, 3, length)
    clip = frames(length)
    save_clips(
        tmp_path, [NewClip("take", {"true": clip, "drawn": clip}, {"drawn": psnr.tolist()}, (first, last))], SHA256
    )
    (stored,) = read_clips(tmp_path, SHA256)
    found = stretches(stored)
    means = {start: np.mean(psnr[start : start + STRETCH]) for start in range(first, last - STRETCH + 2)}
    assert found["best"] == max(means, key=means.__getitem__)
    assert found["worst"] == min(means, key=means.__getitem__)
    assert sorted(means.values())[len(means) // 2] == means[found["median"]]


def test_a_short_clip_is_one_stretch(tmp_path: Path) -> None:
    clip = frames(12)
    save_clips(tmp_path, [NewClip("clip", {"true": clip, "drawn": clip}, {"drawn": [30.0] * 12}, (2, 11))], SHA256)
    assert stretches(read_clips(tmp_path, SHA256)[0]) == {"all": 2}


def test_the_error_is_four_times_the_difference() -> None:
    truth, drawn = torch.tensor([10, 200, 0], dtype=torch.uint8), torch.tensor([13, 100, 0], dtype=torch.uint8)
    assert error_of(truth, drawn).tolist() == [12, 255, 0]


def test_every_file_is_there_and_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("runs/mine"))
    monkeypatch.setattr("sys.argv", ["figures", "mine"])
    monkeypatch.setattr(command, "has_encoder", lambda: False)
    command.main()
    folder = Path("reports/figures/mine")
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    drawn = {f"{name}{ending}" for name in ("psnr_by_frame", "training_curves", "strip") for ending in command.FORMATS}
    assert first.keys() == {*drawn, "all_frames_1_to_11.gif"}
    (folder / "worst_frames_1_to_50.gif").write_bytes(b"of an earlier rollout")
    command.main()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert "no MP4, because its encoder is not installed" in capsys.readouterr().out
    with Image.open(folder / "all_frames_1_to_11.gif") as clip:
        assert clip.n_frames == 11
    text = (folder / "psnr_by_frame.svg").read_text()
    assert "mine: 25.00 dB" in text and "median frame: 19.50 dB" in text


def test_a_run_without_an_evaluation_has_none(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "scores.json").unlink()
    with pytest.raises(
        UserError, match=r"has no figures yet: not evaluated: scores.json is missing; make evaluate RUN=run"
    ):
        figures(read_run(run), tmp_path / "figures")


def test_an_unknown_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr("sys.argv", ["figures", "absent"])
    with pytest.raises(UserError, match="absent"):
        command.main()
