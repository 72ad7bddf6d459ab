"""The frames of a rollout on disk: exact, complete, and refused if they have changed."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.base.reading import Unreadable
from src.reporting.clips import SIDE, NewClip, StoredClip, read_clips, read_sprite, save_clips
from tests.run_folders import noise_clip

SHA256 = "a" * 64


def frames_in(data: bytes, clip: StoredClip) -> np.ndarray:
    """The frames in a picture, (T, H, W, 3), read pixel by pixel as the player does."""
    picture = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    assert max(picture.shape) <= SIDE
    pixels = np.arange(clip.height * clip.width)
    times = np.arange(clip.num_frames)[:, None]
    found = picture[pixels % clip.rows, pixels // clip.rows * clip.num_frames + times]
    return found.reshape(clip.num_frames, clip.height, clip.width, 3)


@pytest.mark.parametrize(
    ("num_frames", "height", "width", "kept"),
    [(1, 8, 8, 1), (630, 32, 64, 630), (9, 65, 127, 9), (3, 1024, 1024, 3), (20, 1024, 1024, 16), (70, 512, 1024, 32)],
)
def test_frames_of_any_size_come_back_exactly(
    tmp_path: Path, num_frames: int, height: int, width: int, kept: int
) -> None:
    chance = np.random.default_rng(0)
    rows, columns = (
        torch.from_numpy(chance.integers(0, 128, (num_frames, 3, *size), dtype=np.uint8))
        for size in ((height, 1), (1, width))
    )
    frames = rows + columns
    psnr = [math.inf, *range(1, num_frames)]
    new = NewClip("take", {"true": frames, "drawn": frames}, {"drawn": psnr}, (0, num_frames - 1))
    save_clips(tmp_path, [new], SHA256)
    (clip,) = read_clips(tmp_path, SHA256)
    assert clip.num_frames == kept and clip.scored == (0, kept - 1)
    assert clip.name == ("take" if kept == num_frames else f"take, first {kept} of {num_frames} frames")
    assert clip.layers[1].psnr[1:] == tuple(range(1, kept))
    found = frames_in(read_sprite(tmp_path, clip.layers[0]), clip)
    assert (found == frames[:kept].permute(0, 2, 3, 1).numpy()).all()


def test_clips_of_another_evaluation_and_changed_pictures_are_refused(tmp_path: Path) -> None:
    save_clips(tmp_path, [noise_clip(24.0), noise_clip(25.0, num_frames=5)], SHA256)
    save_clips(tmp_path, [noise_clip(24.0)], SHA256)
    assert len(list((tmp_path / "clips").glob("*.webp"))) == 4, "those of the earlier evaluation are gone"
    with pytest.raises(Unreadable, match="belongs to another evaluation"):
        read_clips(tmp_path, "b" * 64)
    (clip,) = read_clips(tmp_path, SHA256)
    path = tmp_path / "clips" / clip.layers[0].file
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(Unreadable, match="has changed since it was written"):
        read_sprite(tmp_path, clip.layers[0])


def test_the_first_frames_are_given_as_long_as_their_psnr_is_infinite() -> None:
    psnr = [math.nan, math.inf, 20.0, math.inf]
    clip = NewClip("take", {}, {"drawn": psnr}, (2, 3))
    assert clip.psnr["drawn"] == (None, None, 20.0, math.inf)
