"""Clips as WebP, MP4 and folders, read back by other libraries."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from src.base.console import UserError
from src.commands import MOVING
from src.reporting.plots import FRAME_MS, gif_enlargement
from src.reporting.videos import MP4_ENLARGEMENT, save_clip

CLIP = torch.randint(0, 256, (5, 3, 6, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FRAMES = CLIP.permute(0, 2, 3, 1).numpy()


def test_a_webp_holds_the_exact_pixels(tmp_path: Path) -> None:
    save_clip(tmp_path / "a.webp", CLIP)
    times = gif_enlargement(CLIP)
    with Image.open(tmp_path / "a.webp") as file:
        found, durations = [], []
        for frame in ImageSequence.Iterator(file):
            found.append(np.asarray(frame.convert("RGB"))[::times, ::times])
            durations.append(file.info["duration"])
    assert np.array_equal(np.stack(found), FRAMES)
    assert set(durations) == {FRAME_MS}


def test_a_folder_holds_the_exact_frames(tmp_path: Path) -> None:
    save_clip(tmp_path / "a", CLIP)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {f"{number}.png" for number in range(5)}
    for number, frame in enumerate(FRAMES):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "a" / f"{number}.png")), frame)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_every_ending_of_the_options_is_written(tmp_path: Path) -> None:
    for ending in set(MOVING) - {".mp4"}:
        save_clip(tmp_path / f"A{ending.upper()}", CLIP)
        with Image.open(tmp_path / f"A{ending.upper()}") as file:
            assert file.n_frames == 5


def test_an_mp4_shows_every_frame(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs the extra `video`")
    grey = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 6, 10) * 40 + 20
    save_clip(tmp_path / "a.mp4", grey)
    with av.open(tmp_path / "a.mp4") as file:
        assert file.streams.video[0].average_rate == 1000 / FRAME_MS
        found = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    assert found.shape == (5, 6 * MP4_ENLARGEMENT, 10 * MP4_ENLARGEMENT, 3)
    shown = found[:, ::MP4_ENLARGEMENT, ::MP4_ENLARGEMENT].astype(int)
    assert np.abs(shown - grey.permute(0, 2, 3, 1).numpy()).max() <= 4


def test_without_the_encoder_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("src.commands.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"to install it .*: \.venv/bin/uv pip install -r pyproject.toml --extra video"):
        save_clip(tmp_path / "a.mp4", CLIP)
    assert list(tmp_path.iterdir()) == []
