"""Clips on disk -> batches of frames in [0, 1] with their conditions: dancers' poses, a robot's actions and positions.

Opens what packing.py wrote; alone scales pixels.
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
        """What it holds and where it came from."""
        ...

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame."""
        ...


@dataclass(frozen=True)
class Footage:
    """Frames and pose images (N, 3, H, W) uint8 of one or more takes, one after the other."""

    frames: np.ndarray
    poses: np.ndarray
    takes: tuple[tuple[int, int], ...]  # first frame and the one after the last

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

    frames: (B, T, 3, H, W). poses: (B, T + 2 context, 3, H, W), repeated beyond the ends of a take. reference and
    reference_pose: (B, 3, H, W), a frame anywhere in the same take.
    """

    frames: Tensor
    poses: Tensor
    reference: Tensor
    reference_pose: Tensor


def open_data(name: str, data_folder: Path = Path("data")) -> Any:
    """Returns a packed data set as its system holds it; UserError where it is missing, half written or damaged."""
    folder = data_folder / name
    return SYSTEMS[Manifest.load(folder).system].part("data").open_folder(folder)


def open_folder(folder: Path) -> DanceData:
    """Returns packed dancers; UserError where they are missing, half written, damaged or of another system."""
    manifest = DanceManifest.load(folder)
    arrays = {stem: np.load(folder / f"{stem}.npy", mmap_mode="r") for stem in manifest.shapes}
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
    assert tensor.dtype == torch.uint8, f"pixels to scale are uint8, these are {tensor.dtype}"
    return tensor.float() / 255


def with_context(poses: Tensor, context: int) -> Tensor:
    """Returns whole sequences of poses (B, T, ...) with the first and last repeated `context` times."""
    first, last = poses[:, :1], poses[:, -1:]
    return torch.cat([first.expand(-1, context, *first.shape[2:]), poses, last.expand(-1, context, *last.shape[2:])], 1)


def window_starts(takes: tuple[tuple[int, int], ...], window: int) -> Tensor:
    """Returns the frames (int64) at which a window of that many frames fits into one take, in order."""
    return torch.cat([torch.arange(start, max(start, stop - window + 1)) for start, stop in takes])


class ClipSampler:
    """Draws training clips; which ones depends on the seed, the epoch and the position in it alone.

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
        assert augmentation.mirror is not None, "resolution.resolved has decided"
        frames, poses = footage.to(device)
        self.seed, self.context, self.num_frames, self.mirror = seed, context, len(frames), augmentation.mirror
        if self.mirror:  # mirror images follow the originals, so that mirroring a clip is an offset of its indices
            frames, poses = torch.cat([frames, frames.flip(-1)]), torch.cat([poses, mirror_poses(poses)])
        self.shift = torch.tensor([augmentation.shift_y, augmentation.shift_x])
        self.frames = all_shifts(frames, *self.shift.tolist(), beyond=None)  # and a shift is two indices more
        self.poses = all_shifts(poses, *self.shift.tolist(), beyond=WHITE)  # a limb ends with the picture
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
        """Number of clips in an epoch, as many as have as many frames as the takes."""
        return self.num_in_takes // len(self.window)

    def batch(self, epoch: int, first: int, clips: range) -> Batch:
        """Returns clips `first + clips` of an epoch; an epoch is a random order of all windows."""
        device, order = self.frames.device, self._order(epoch)
        start = self.starts[order[[(first + clip) % len(order) for clip in clips]]]
        generator = keyed_generator(self.seed, "augmentation", epoch, first)
        uniform = torch.rand(clips.stop, 4, generator=generator)[clips.start :]
        low, high = self.bounds[start].unbind(dim=1)
        reference = low + (uniform[:, 0] * (high - low)).long()
        span = torch.arange(-self.context, len(self.window) + self.context)
        poses = (start[:, None] + span).clamp(low[:, None], high[:, None] - 1)
        if self.mirror:
            mirrored = self.num_frames * (uniform[:, 1] < 0.5).long()
            start, poses, reference = start + mirrored, poses + mirrored[:, None], reference + mirrored
        frames = start[:, None] + self.window
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
    """Returns the footage without these takes, counted from 0, and each of them; UserError where that cannot be."""
    if not takes:
        return footage, ()
    if max(takes) >= len(footage.takes) or len(set(takes)) == len(footage.takes):
        raise UserError(
            f"training.held_out_takes = {list(takes)}; the data set has takes 0 to {len(footage.takes) - 1}; "
            "needed: some of them, and at least one left to train on"
        )
    kept = tuple(bounds for number, bounds in enumerate(footage.takes) if number not in takes)
    held = tuple(
        Footage(footage.frames[start:stop], footage.poses[start:stop], ((0, stop - start),))
        for start, stop in (footage.takes[number] for number in takes)
    )
    return Footage(footage.frames, footage.poses, kept), held


def sampler(config: Config, data: DanceData, *, context: int, device: torch.device) -> ClipSampler:
    """Returns the clips that a run trains on; `context` is the number of poses needed before and after a frame."""
    shown, _ = hold_out(data.train, config.training.held_out_takes)
    return ClipSampler(
        shown,
        window=config.training.window,
        context=context,
        augmentation=config.augmentation,
        seed=config.seed,
        device=device,
    )
