"""Clips as files that move, by the ending of their name: GIF, WebP, MP4, or a folder of numbered PNG frames."""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from src.base.files import move, write_atomically
from src.base.ownership import partial_name
from src.commands import refuse_missing_encoder
from src.reporting.plots import FRAME_MS, gif_enlargement, save_gif

MP4_ENLARGEMENT = 8  # an even number, so that a block of the halved colour of MP4 lies within one pixel of the frame
MP4_QUALITY = "12"  # of x264: 0 is without loss, 23 the usual one


def save_clip(path: Path, clip: Tensor) -> None:
    """Writes a clip (T, 3, H, W) uint8 as the ending of `path` says: .gif, .webp, .mp4, or none for a folder.

    A WebP holds the exact pixels, enlarged; a folder the exact frames 0.png, 1.png, ... A GIF has 256 colours. MP4 is
    H.264, which loses a little; UserError if its encoder is not installed.
    """
    match path.suffix.lower():
        case ".gif":
            save_gif(path, clip)
        case ".webp":
            write_atomically(path, _webp(clip))
        case ".mp4":
            write_atomically(path, _mp4(clip))
        case "":
            _save_frames(path, clip)
        case ending:
            raise AssertionError(f"{ending} is refused where the options are read")


def _enlarged(clip: Tensor, times: int) -> np.ndarray:
    """Returns the frames (T, times H, times W, 3) uint8 of a clip (T, 3, H, W)."""
    return clip.permute(0, 2, 3, 1).cpu().numpy().repeat(times, axis=1).repeat(times, axis=2)


def _webp(clip: Tensor) -> bytes:
    first, *others = [Image.fromarray(frame) for frame in _enlarged(clip, gif_enlargement(clip))]
    file = io.BytesIO()
    first.save(file, "WEBP", save_all=True, append_images=others, duration=FRAME_MS, loop=0, lossless=True, method=2)
    return file.getvalue()


def _mp4(clip: Tensor) -> bytes:
    refuse_missing_encoder()
    import av  # noqa: PLC0415  (an optional dependency)

    pixels = _enlarged(clip, MP4_ENLARGEMENT)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(1000, FRAME_MS), options={"crf": MP4_QUALITY})
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"  # the one that every player knows
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _save_frames(folder: Path, clip: Tensor) -> None:
    """Writes the frames into a new folder, which is complete or absent. An empty one may be there."""
    incomplete = folder.with_name(partial_name(folder.name))
    incomplete.mkdir(parents=True)
    for number, frame in enumerate(_enlarged(clip, 1)):
        Image.fromarray(frame).save(incomplete / f"{number}.png")
    move(incomplete, folder)
