"""A packed data set on disk -> training batches of frames and pose images in [0, 1].

This file opens what packing.py wrote. Pixels are scaled in one place, `to_unit`. Robot pushing has its own sampler in
src/pushing; it scales with the same function.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from src.base.console import UserError
from src.base.randomness import keyed_generator
from src.base.systems import SYSTEMS
from src.config import AugmentationConfig, Config
from src.dance.augmentations import all_shifts, mirror_poses
from src.dance.skeleton import WHITE
from src.intake.manifest import DanceManifest, Manifest


class PackedData(Protocol):
    """A packed data set of either system."""

    @property
    def manifest(self) -> Manifest:
        """What the data set holds and what it was packed from."""
        ...

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame."""
        ...


@dataclass(frozen=True)
class Footage:
    """Frames and pose images, (N, 3, H, W) uint8 each, of one or more takes in a row."""

    frames: np.ndarray
    poses: np.ndarray
    takes: tuple[tuple[int, int], ...]  # (start, stop) of each take; stop is excluded

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Returns the frames and the poses as tensors on the device."""
        frames, poses = (torch.from_numpy(np.array(part)).to(device) for part in (self.frames, self.poses))
        return frames, poses


@dataclass(frozen=True)
class DanceData:
    """A packed data set of dancers, memory-mapped."""

    manifest: DanceManifest
    train: Footage
    val: Footage
    test_frames: np.ndarray  # (K, 3, H, W) uint8, the given frame of each test sequence
    test_poses: np.ndarray  # (K, T, 3, H, W) uint8

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return self.train.frames.shape[2], self.train.frames.shape[3]


@dataclass(frozen=True)
class Batch:
    """Training clips, float32 in [0, 1].

    frames: (B, T, 3, H, W).
    poses: (B, T + 2 context, 3, H, W). Beyond the ends of a take, its first or last pose is repeated.
    reference and reference_pose: (B, 3, H, W), a random frame of the same take and its pose.
    """

    frames: Tensor
    poses: Tensor
    reference: Tensor
    reference_pose: Tensor


def open_data(name: str, data_folder: Path = Path("data")) -> Any:
    """Returns a packed data set, in its system's class; UserError if it is missing, incomplete or damaged."""
    folder = data_folder / name
    return SYSTEMS[Manifest.load(folder).system].part("data").open_folder(folder)


def open_folder(folder: Path) -> DanceData:
    """Returns a packed data set of dancers; UserError if it is missing, incomplete, damaged or of another system."""
    manifest = DanceManifest.load(folder)
    arrays = manifest.open_arrays(folder)
    return DanceData(
        manifest=manifest,
        train=Footage(arrays["train_frames"], arrays["train_poses"], manifest.train_takes),
        val=Footage(arrays["val_frames"], arrays["val_poses"], manifest.val_takes),
        test_frames=arrays["test_frames"],
        test_poses=arrays["test_poses"],
    )


def to_unit(pixels: Tensor | np.ndarray) -> Tensor:
    """Returns uint8 pixels as float32 in [0, 1]."""
    tensor = torch.from_numpy(np.array(pixels)) if isinstance(pixels, np.ndarray) else pixels
    assert tensor.dtype == torch.uint8, f"pixels must be uint8, these are {tensor.dtype}"
    return tensor.float() / 255


def with_context(poses: Tensor, context: int) -> Tensor:
    """Returns poses (B, T + 2 context, ...): poses (B, T, ...) whose first and last are repeated `context` times."""
    first, last = poses[:, :1], poses[:, -1:]
    return torch.cat([first.expand(-1, context, *first.shape[2:]), poses, last.expand(-1, context, *last.shape[2:])], 1)


def window_starts(takes: tuple[tuple[int, int], ...], window: int) -> Tensor:
    """Returns the frame numbers, int64 (N,), at which a window of `window` frames fits into one take, in order."""
    return torch.cat([torch.arange(start, max(start, stop - window + 1)) for start, stop in takes])


class ClipSampler:
    """Draws random training clips. The draw depends only on the seed, the epoch and the position in the epoch.

    All pixels stay on the device as uint8.
    """

    def __init__(
        self,
        footage: Footage,
        *,
        window: int,
        context: int,
        augmentation: AugmentationConfig,
        seed: int,
        device: torch.device,
    ) -> None:
        assert augmentation.mirror is not None, "resolution.resolved sets it to true or false"
        frames, poses = footage.to(device)
        self.seed = seed
        self.context = context
        self.num_frames = len(frames)
        self.mirror = augmentation.mirror
        # The mirrored frames stand behind the originals: a mirrored clip has the same indices plus num_frames.
        if self.mirror:
            frames = torch.cat([frames, frames.flip(-1)])
            poses = torch.cat([poses, mirror_poses(poses)])
        # Two more indices choose the shift. Outside the picture, frames repeat their edge and poses are white.
        self.shift = torch.tensor([augmentation.shift_y, augmentation.shift_x])
        self.frames = all_shifts(frames, *self.shift.tolist(), beyond=None)
        self.poses = all_shifts(poses, *self.shift.tolist(), beyond=WHITE)
        self.num_in_takes = sum(stop - start for start, stop in footage.takes)
        self.starts = window_starts(footage.takes, window)
        if not len(self.starts):
            longest = max(stop - start for start, stop in footage.takes)
            raise UserError(
                f"training.window = {window}: the longest take has {longest} frames; needed: a window that fits"
            )
        self.window = torch.arange(window)
        bounds = torch.zeros(len(footage.frames), 2, dtype=torch.int64)
        for start, stop in footage.takes:
            bounds[start:stop] = torch.tensor([start, stop])
        self.bounds = bounds
        self._order = lru_cache(maxsize=1)(self._draw_order)

    def __len__(self) -> int:
        """Clips per epoch: number of training frames // window."""
        return self.num_in_takes // len(self.window)

    def batch(self, epoch: int, first: int, clips: range) -> Batch:
        """Returns the clips with numbers `first + clips` of an epoch.

        An epoch is a random order of all windows. It starts again at its front when the windows are used up.
        """
        device = self.frames.device
        order = self._order(epoch)
        start = self.starts[order[[(first + clip) % len(order) for clip in clips]]]
        generator = keyed_generator(self.seed, "augmentation", epoch, first)
        uniform = torch.rand(clips.stop, 4, generator=generator)[clips.start :]
        low, high = self.bounds[start].unbind(dim=1)
        reference = low + (uniform[:, 0] * (high - low)).long()
        span = torch.arange(-self.context, len(self.window) + self.context)
        poses = (start[:, None] + span).clamp(low[:, None], high[:, None] - 1)
        if self.mirror:
            mirrored = self.num_frames * (uniform[:, 1] < 0.5).long()
            start = start + mirrored
            poses = poses + mirrored[:, None]
            reference = reference + mirrored
        frames = start[:, None] + self.window
        # The shift indices of `all_shifts`, uniform in 0..2 * shift.
        down, right = (2 * self.shift - ((2 * self.shift + 1) * uniform[:, 2:]).long()).to(device).unbind(dim=1)

        def read(pictures: Tensor, indices: Tensor) -> Tensor:
            places = (each.view(-1, *[1] * (indices.dim() - 1)) for each in (down, right))
            return to_unit(pictures[indices.to(device, non_blocking=True), *places])

        return Batch(
            frames=read(self.frames, frames),
            poses=read(self.poses, poses),
            reference=read(self.frames, reference),
            reference_pose=read(self.poses, reference),
        )

    def _draw_order(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.starts), generator=keyed_generator(self.seed, "order", epoch))


def hold_out(footage: Footage, takes: tuple[int, ...]) -> tuple[Footage, tuple[Footage, ...]]:
    """Returns the footage without these takes, and each of these takes as footage of its own.

    takes: numbers of takes, from 0. UserError if a number is too high or if no take is left for training.
    """
    if not takes:
        return footage, ()
    if max(takes) >= len(footage.takes) or len(set(takes)) == len(footage.takes):
        raise UserError(
            f"training.held_out_takes = {list(takes)}; the data set has takes 0 to {len(footage.takes) - 1}; "
            "needed: some of these numbers, and at least one take left for training"
        )
    kept = tuple(bounds for number, bounds in enumerate(footage.takes) if number not in takes)
    held_out = tuple(
        Footage(footage.frames[start:stop], footage.poses[start:stop], ((0, stop - start),))
        for start, stop in (footage.takes[number] for number in takes)
    )
    return Footage(footage.frames, footage.poses, kept), held_out


def joined(first: Footage, second: Footage) -> Footage:
    """Returns the takes of both, those of `first` before those of `second`."""
    moved = tuple((start + len(first.frames), stop + len(first.frames)) for start, stop in second.takes)
    frames = np.concatenate([first.frames, second.frames])
    return Footage(frames, np.concatenate([first.poses, second.poses]), (*first.takes, *moved))


def sampler(config: Config, data: DanceData, *, context: int, device: torch.device) -> ClipSampler:
    """Returns the sampler of a run's training clips; a model sees `context` poses before and after each frame."""
    training, _ = hold_out(data.train, config.training.held_out_takes)
    if config.training.final_of:
        training = joined(training, data.val)
    return ClipSampler(
        training,
        window=config.training.window,
        context=context,
        augmentation=config.augmentation,
        seed=config.seed,
        device=device,
    )
