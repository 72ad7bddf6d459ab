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
from src.intake.manifest import SPLITS, PushingManifest


@dataclass(frozen=True)
class Clips:
    """One split of robot pushing: frames (N, T, 3, H, W) uint8, conditions (N, T, num_action + num_position) float32.

    A frame's conditions are its action and then the position of the end effector; BAIR has 4 and 3 numbers. Each number
    is standardised to mean 0 and standard deviation 1 over the training clips.
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
    """Returns the packed data set; UserError if it is missing, incomplete, damaged or of another system."""
    manifest = PushingManifest.load(folder)
    arrays = manifest.open_arrays(folder)
    num_clips, length, num_conditions = arrays["train_conditions"].shape
    known = arrays["train_conditions"].reshape(num_clips * length, num_conditions)  # there may be no conditions
    mean = known.mean(axis=0, dtype=np.float64)  # in double precision, because it sums a million numbers
    deviation = known.std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1  # the number is constant
    center = mean.astype(np.float32)
    scale = deviation.astype(np.float32)
    train, validate, test = (
        Clips(arrays[f"{split}_frames"], (arrays[f"{split}_conditions"] - center) / scale) for split in SPLITS
    )
    return PushingData(manifest, train, validate, test)


class PushingSampler:
    """Draws windows of training clips. They depend only on the seed, the epoch and the position in the epoch.

    With `shuffle`, an epoch draws `clips_per_epoch` clips in random order and starts again if there are fewer. Without
    it, clips come in order, continuing from the previous epoch. Each time a random window of the clip is taken. Only
    the pixels of these windows are read from the memory map.
    """

    def __init__(
        self, clips: Clips, *, window: int, seed: int, device: torch.device, shuffle: bool, clips_per_epoch: int
    ) -> None:
        _check_window(clips, window)
        self.clips = clips
        self.window = window
        self.seed = seed
        self.device = device
        self.shuffle = shuffle
        self.clips_per_epoch = clips_per_epoch
        self._order = lru_cache(maxsize=1)(self._draw_order)

    def __len__(self) -> int:
        """The number of training clips. By default an epoch takes each of them once."""
        return len(self.clips.frames)

    def batch(self, epoch: int, first: int, clips: range) -> PushingBatch:
        """Returns `window` frames of each of the clips `first + clips` of an epoch."""
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
    """Returns the first `window` frames of the first clips, (N, T, 3, H, W) uint8, and their conditions (N, T, 7)."""
    assert window <= clips.frames.shape[1], f"a window of {window} in clips of {clips.frames.shape[1]} frames"
    return _read_windows(clips, range(num_clips), [0] * num_clips, window, device)


def _check_window(clips: Clips, window: int) -> None:
    if not 1 <= window <= clips.frames.shape[1]:
        length = clips.frames.shape[1]
        raise UserError(f"training.window = {window}, but clips have {length} frames; needed: {length} or less")


def _read_windows(
    clips: Clips, indices: Sequence[int], starts: Sequence[int], window: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns `window` frames of each clip, uint8, from its start on, and their conditions. Reads only these."""
    frames, conditions = (
        torch.from_numpy(
            np.stack([array[index, start : start + window] for index, start in zip(indices, starts, strict=True)])
        ).to(device, non_blocking=True)
        for array in (clips.frames, clips.conditions)
    )
    return frames, conditions


def sampler(config: Config, data: PushingData, *, context: int, device: torch.device) -> PushingSampler:
    """Returns the sampler of a run's training clips. `context` is not used: conditions do not go beyond a clip."""
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
