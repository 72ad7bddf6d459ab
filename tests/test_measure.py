"""`make metrics`: protocols against slow loops and hand computations, and folders that do not fit together."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.base.console import UserError
from src.evaluation.protocols import clips_hash
from src.measure import lines_of, main, metrics

SIZE = (12, 14)


def write_clip(folder: Path, frames: np.ndarray, *, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=first):
        Image.fromarray(frame).save(folder / f"{number}.png")


def noise(seed: int, num_frames: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, *SIZE, 3), np.uint8)


def slow_psnr(drawn: np.ndarray, true: np.ndarray) -> float:
    errors = [(int(a) - int(b)) ** 2 for a, b in zip(drawn.reshape(-1), true.reshape(-1), strict=True)]
    return 20 * math.log10(255) - 10 * math.log10(sum(errors) / len(errors))


def test_one_clip_is_scored_as_in_the_competition(tmp_path: Path) -> None:
    truth = np.full((630, *SIZE, 3), 100, np.uint8)
    drawn = truth + np.uint8(5)
    drawn[0], drawn[601:] = 0, 0  # the given frame and those behind frame 600 do not count
    drawn[600] += 5
    write_clip(tmp_path / "truth", truth)
    write_clip(tmp_path / "drawn", drawn)
    measured = metrics(tmp_path / "drawn", tmp_path / "truth")
    five, ten = 20 * math.log10(255 / 5), 20 * math.log10(255 / 10)
    assert measured.score == pytest.approx((599 * five + ten) / 600)
    assert (measured.scored_frames, measured.num_clips, measured.protocol) == ((1, 600), 1, "competition")
    assert "frame 600   28.13 dB" in lines_of(measured)


def test_the_given_frame_may_be_missing_and_numbers_may_begin_at_one(tmp_path: Path) -> None:
    truth = noise(0, 4)
    drawn = noise(1, 4)
    write_clip(tmp_path / "truth", truth, first=1)
    write_clip(tmp_path / "drawn", drawn[1:], first=2)
    expected = [slow_psnr(drawn[number], truth[number]) for number in (1, 2, 3)]
    assert metrics(tmp_path / "drawn", tmp_path / "truth").psnr_by_frame == pytest.approx(expected)


def test_folders_of_clips_are_scored_per_channel_from_frame_two(tmp_path: Path) -> None:
    clips = {name: (noise(seed, 13), noise(seed + 1, 13)) for seed, name in ((0, "b"), (2, "a"))}
    for name, (drawn, truth) in clips.items():
        write_clip(tmp_path / "drawn" / name, drawn)
        write_clip(tmp_path / "truth" / name, truth)
    (tmp_path / "truth" / ".ipynb_checkpoints").mkdir()
    measured = metrics(tmp_path / "drawn", tmp_path / "truth")
    expected = np.mean(
        [
            slow_psnr(drawn[frame, ..., channel], truth[frame, ..., channel])
            for drawn, truth in clips.values()
            for frame in range(2, 12)
            for channel in range(3)
        ]
    )
    assert measured.score == pytest.approx(expected)
    assert (measured.protocol, measured.scored_frames) == ("lab 2->10", (2, 11))
    assert measured.clips_sha256 == clips_hash(["a", "b"])


def test_the_best_of_a_hundred_samples_counts(tmp_path: Path) -> None:
    truth = np.full((3, *SIZE, 3), 100, np.uint8)
    write_clip(tmp_path / "truth", truth)
    for number in range(100):
        write_clip(tmp_path / "drawn" / f"{number:02}", truth + np.uint8(3 if number == 42 else 4 + number))
    measured = metrics(tmp_path / "drawn", tmp_path / "truth", "1->15 best of 100")
    assert measured.score == pytest.approx(20 * math.log10(255 / 3))
    shutil.rmtree(tmp_path / "drawn" / "07")
    with pytest.raises(UserError, match="holds 99 folders; needed: one for each of 100 samples"):
        metrics(tmp_path / "drawn", tmp_path / "truth", "1->15 best of 100")


def test_the_command_prints_the_score_and_writes_every_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "truth", noise(0, 3))
    write_clip(tmp_path / "drawn", noise(0, 3))
    words = ["--pred", str(tmp_path / "drawn"), "--truth", str(tmp_path / "truth"), "--out", str(tmp_path / "x.json")]
    monkeypatch.setattr("sys.argv", ["metrics", *words])
    main()
    printed = capsys.readouterr().out
    assert "score       ∞ dB" in printed
    assert "SSIM    1.000" in printed
    kept = json.loads((tmp_path / "x.json").read_text())
    assert kept["psnr_by_frame"] == ["Infinity", "Infinity"]


def test_folders_that_do_not_fit_are_one_clear_line(tmp_path: Path) -> None:
    write_clip(tmp_path / "truth", noise(0, 4))
    write_clip(tmp_path / "few", noise(0, 2))
    write_clip(tmp_path / "large", np.zeros((4, 13, 14, 3), np.uint8))
    write_clip(tmp_path / "one", noise(0, 1))
    write_clip(tmp_path / "clips" / "a", noise(0, 4))
    (tmp_path / "empty").mkdir()
    for drawn, true, message in (
        ("few", "truth", "few holds no picture 2; needed: every scored frame, 1 to 3"),
        ("large", "truth", r"has 13 x 14 pixels; needed: 12 x 14, height x width"),
        ("truth", "one", "holds 1 frames, of which 1 are given"),
        ("truth", "empty", "holds no PNG or JPEG pictures"),
        ("truth", "clips", "lacks 1 of the 1 clips of TRUTH, such as a"),
        ("clips", "truth", "holds no picture 1"),
    ):
        with pytest.raises(UserError, match=message):
            metrics(tmp_path / drawn, tmp_path / true)
    with pytest.raises(UserError, match="there is no protocol 'x'; there are: 'competition'"):
        metrics(tmp_path / "truth", tmp_path / "truth", "x")
