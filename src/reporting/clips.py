"""runs/<run>/clips/: the clips that the player of the page shows, frame by frame and without loss.

Each layer of a clip (true, drawn, pose, sample 1, ...) is one lossless WebP picture. In it the values of one pixel at
all times lie side by side. They are alike, so the picture is smaller than a grid of the frames. A browser has every
frame once the picture is decoded, so the player can step, jump and play backwards. `clips.json` lists the layers.
"""

import hashlib
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from src.base.files import write_atomically
from src.base.reading import Unreadable, read_bytes, read_json
from src.base.settings import Sha256

FOLDER = "clips"
LIST = "clips.json"
SIDE = 4096  # pixels; every browser, also on a phone, draws pictures of this size
MAX_SPRITE_BYTES = 2**26


class Layer(BaseModel):
    """One layer of a clip: its name, its file, and the PSNR in dB of each frame if it is a prediction."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: Annotated[str, Field(max_length=80)]
    file: Annotated[str, Field(pattern=r"^[0-9]+-[0-9]+\.webp$")]
    sha256: Sha256
    psnr: tuple[float | None, ...] = ()  # None for given frames


class StoredClip(BaseModel):
    """A clip of `num_frames` frames. Its first layer is the truth. `baselines`: {name: PSNR in dB of each frame}."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: Annotated[str, Field(max_length=80)]
    num_frames: Annotated[int, Field(ge=1, le=100_000)]
    height: Annotated[int, Field(ge=1, le=SIDE)]
    width: Annotated[int, Field(ge=1, le=SIDE)]
    rows: Annotated[int, Field(ge=1, le=SIDE)]  # of a picture
    scored: tuple[int, int]  # first and last scored frame
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=20)]
    baselines: dict[str, tuple[float | None, ...]]

    @model_validator(mode="after")
    def _lengths_fit(self) -> "StoredClip":
        curves = [layer.psnr for layer in self.layers if layer.psnr] + list(self.baselines.values())
        if any(len(curve) != self.num_frames for curve in curves):
            raise ValueError(f"a curve of PSNR does not have {self.num_frames} frames")
        return self


class ClipList(BaseModel):
    """The content of clips.json: the clips, and the evaluation that they belong to."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    checkpoint_sha256: Sha256
    clips: Annotated[tuple[StoredClip, ...], Field(min_length=1, max_length=100)]


class NewClip:
    """A clip in memory. layers: {name: (T, 3, H, W) uint8}; psnr: {layer or baseline: PSNR in dB, (T,)}."""

    def __init__(
        self, name: str, layers: Mapping[str, Tensor], psnr: Mapping[str, Sequence[float]], scored: tuple[int, int]
    ) -> None:
        self.name = name
        self.layers = layers
        self.psnr = {label: _with_gaps(values) for label, values in psnr.items()}
        self.scored = scored


def _with_gaps(psnr: Sequence[float]) -> tuple[float | None, ...]:
    """Returns a curve with None in place of NaN and of the infinite PSNR of given frames at its beginning."""
    values = np.asarray(psnr, dtype=np.float64)
    num_given = next((n for n, value in enumerate(values) if np.isfinite(value)), 0)
    return tuple(None if n < num_given or np.isnan(value) else float(value) for n, value in enumerate(values))


def save_clips(run_folder: Path, clips: Sequence[NewClip], checkpoint_sha256: str) -> None:
    """Writes the clips of an evaluation into the run's folder. Replaces those of an earlier evaluation."""
    folder = run_folder / FOLDER
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    saved = tuple(_save(folder, number, clip) for number, clip in enumerate(clips))
    content = ClipList(checkpoint_sha256=checkpoint_sha256, clips=saved)
    write_atomically(folder / LIST, (content.model_dump_json() + "\n").encode())


def _save(folder: Path, number: int, clip: NewClip) -> StoredClip:
    length, _, height, width = next(iter(clip.layers.values())).shape
    rows = min(height * width, SIDE)
    num_frames = min(length, SIDE // -(-height * width // rows))  # more would make a picture that no browser shows
    layers = []
    for index, (name, frames) in enumerate(clip.layers.items()):
        content = sprite(frames[:num_frames], rows)
        file = f"{number}-{index}.webp"
        write_atomically(folder / file, content)
        sha256 = hashlib.sha256(content).hexdigest()
        layers.append(Layer(name=name, file=file, sha256=sha256, psnr=clip.psnr.get(name, ())[:num_frames]))
    return StoredClip(
        name=clip.name if num_frames == length else f"{clip.name}, first {num_frames} of {length} frames",
        num_frames=num_frames,
        height=height,
        width=width,
        rows=rows,
        scored=(min(clip.scored[0], num_frames - 1), min(clip.scored[1], num_frames - 1)),
        layers=tuple(layers),
        baselines={name: curve[:num_frames] for name, curve in clip.psnr.items() if name not in clip.layers},
    )


def sprite(frames: Tensor, rows: int) -> bytes:
    """Returns frames (T, 3, H, W) uint8 as one lossless WebP picture of so many rows.

    Pixel p of a frame, counted row by row, lies in row p % rows, at column (p // rows) T + t.
    """
    values = frames.permute(2, 3, 0, 1).flatten(0, 1).cpu().numpy()  # (H W, T, 3)
    num_pixels, length, _ = values.shape
    blocks = -(-num_pixels // rows)
    padded = np.zeros((blocks * rows, length, 3), np.uint8)
    padded[:num_pixels] = values
    picture = padded.reshape(blocks, rows, length, 3).swapaxes(0, 1).reshape(rows, blocks * length, 3)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WEBP", lossless=True, quality=80, method=4)
    return file.getvalue()


def frames_of(run_folder: Path, clip: StoredClip, layer: Layer) -> Tensor:
    """Returns the frames of a layer, (T, 3, H, W) uint8; Unreadable if its picture is missing or has changed."""
    with Image.open(io.BytesIO(read_sprite(run_folder, layer))) as picture:
        values = np.array(picture.convert("RGB"))
    blocks = values.reshape(clip.rows, -1, clip.num_frames, 3).swapaxes(0, 1)
    pixels = blocks.reshape(-1, clip.num_frames, 3)[: clip.height * clip.width]
    return torch.from_numpy(pixels.reshape(clip.height, clip.width, clip.num_frames, 3)).permute(2, 3, 0, 1)


def read_clips(run_folder: Path, checkpoint_sha256: str) -> tuple[StoredClip, ...]:
    """Returns the clips of a run's evaluation; Unreadable if they are missing, damaged or of another evaluation."""
    path = run_folder / FOLDER / LIST
    content = read_json(path, ClipList)
    if content.checkpoint_sha256 != checkpoint_sha256:
        raise Unreadable(f"{path} belongs to another evaluation")
    return content.clips


def read_sprite(run_folder: Path, layer: Layer) -> bytes:
    """Returns the picture of a layer; Unreadable if it is missing or has changed."""
    path = run_folder / FOLDER / layer.file
    content = read_bytes(path, MAX_SPRITE_BYTES)
    if hashlib.sha256(content).hexdigest() != layer.sha256:
        raise Unreadable(f"{path} has changed since it was written")
    return content
