"""Packed clips of robot pushing -> batches of frames in [0, 1] with their actions and positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.base.console import UserError
from src.base.randomness import keyed_generator
from src.config import Config
from src.dataset import to_unit
from src.intake.manifest import NUM_ACTION, NUM_POSITION, SPLITS, PushingManifest


@dataclass(frozen=True)
class Clips:
    """One split of robot pushing: frames (N, 30, 3, H, W) uint8, conditions (N, 30, 7) float32.

    A frame's conditions are its action, 4 numbers, and the position of the end effector, 3; each of the seven is
    standardised to mean 0 and deviation 1 over the training clips.
    """

    frames: np.ndarray
    conditions: np.ndarray


@dataclass(frozen=True)
class PushingData:
    """A packed data set of robot pushing, memory-mapped."""

    manifest: PushingManifest
    train: Clips
    validate: Clips
    test: Clips

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return self.train.frames.shape[3], self.train.frames.shape[4]


@dataclass(frozen=True)
class PushingBatch:
    """Windows of clips: frames (B, T, 3, H, W) float32 in [0, 1], conditions (B, T, 7) float32 of the same frames."""

    frames: Tensor
    conditions: Tensor


def open_folder(folder: Path) -> PushingData:
    """Returns the packed data set; UserError where it is missing, half written, damaged or of another system."""
    manifest = PushingManifest.load(folder)
    arrays = {stem: np.load(folder / f"{stem}.npy", mmap_mode="r") for stem in manifest.shapes}
    known = arrays["train_conditions"].reshape(-1, NUM_ACTION + NUM_POSITION)
    center, scale = known.mean(axis=0, dtype=np.float64), known.std(axis=0, dtype=np.float64)  # of a million summands
    scale[scale == 0] = 1  # a number that never changes
    center, scale = center.astype(np.float32), scale.astype(np.float32)
    train, validate, test = (
        Clips(arrays[f"{split}_frames"], (arrays[f"{split}_conditions"] - center) / scale) for split in SPLITS
    )
    return PushingData(manifest, train, validate, test)


class PushingSampler:
    """Draws windows of training clips; which ones depends on the seed, the epoch and the position in it alone.

    With `shuffle` an epoch is the first `clips_per_epoch` clips of a random order of all, from the front again where
    there are fewer; else it goes on in order where the epoch before ended. Each time another window of a clip is drawn.
    Pixels are read from the memory map as they are wanted.
    """

    def __init__(
        self, clips: Clips, *, window: int, seed: int, device: torch.device, shuffle: bool, clips_per_epoch: int
    ) -> None:
        _check_window(clips, window)
        self.clips, self.window, self.seed, self.device, self.shuffle = clips, window, seed, device, shuffle
        self.clips_per_epoch = clips_per_epoch
        self._order = lru_cache(maxsize=1)(self._draw_order)

    def __len__(self) -> int:
        """Number of clips in an epoch, each clip once."""
        return len(self.clips.frames)

    def batch(self, epoch: int, first: int, clips: range) -> PushingBatch:
        """Returns clips `first + clips` of an epoch, `window` frames of each."""
        order = self._order(epoch)
        indices = order[[(first + clip) % len(order) for clip in clips]].tolist()
        generator = keyed_generator(self.seed, "window", epoch, first)
        last_start = self.clips.frames.shape[1] - self.window
        starts = torch.randint(last_start + 1, (clips.stop,), generator=generator)[clips.start :].tolist()
        frames, conditions = _read_windows(self.clips, indices, starts, self.window, self.device)
        return PushingBatch(to_unit(frames), conditions)

    def _draw_order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self)).roll(-epoch * self.clips_per_epoch)
        return torch.randperm(len(self), generator=keyed_generator(self.seed, "order", epoch))


def first_frames(clips: Clips, window: int, num_clips: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the first `window` frames of the first clips, uint8 (N, T, 3, H, W), and their conditions (N, T, 7)."""
    assert window <= clips.frames.shape[1], f"a window of {window} in clips of {clips.frames.shape[1]} frames"
    return _read_windows(clips, range(num_clips), [0] * num_clips, window, device)


def _check_window(clips: Clips, window: int) -> None:
    if not 1 <= window <= clips.frames.shape[1]:
        raise UserError(f"training.window = {window}; clips have {clips.frames.shape[1]} frames; needed: one that fits")


def _read_windows(
    clips: Clips, indices: Sequence[int], starts: Sequence[int], window: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns `window` frames of each clip from its start on, uint8, and their conditions; reads nothing else."""
    frames, conditions = (
        torch.from_numpy(
            np.stack([array[index, start : start + window] for index, start in zip(indices, starts, strict=True)])
        ).to(device, non_blocking=True)
        for array in (clips.frames, clips.conditions)
    )
    return frames, conditions


def sampler(config: Config, data: PushingData, *, context: int, device: torch.device) -> PushingSampler:
    """Returns the clips that a run trains on; `context` plays no part, a clip has the conditions of all its frames."""
    settings = config.training
    num_clips = settings.clips_per_epoch or len(data.train.frames)
    return PushingSampler(
        data.train,
        window=settings.window,
        seed=config.seed,
        device=device,
        shuffle=settings.shuffle,
        clips_per_epoch=max(1, num_clips // settings.batch_size) * settings.batch_size,
    )
