"""Clips on disk -> batches of frames in [0, 1] with their poses. Opens what packing.py wrote; alone scales pixels."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from src.config import Augmentation
from src.console import UserError
from src.distributed import keyed_generator
from src.figure import LIMBS
from src.intake.manifest import Manifest


@dataclass(frozen=True)
class Footage:
    """Frames and pose images (N, 3, H, W) uint8 of one or more takes, one after the other."""

    frames: np.ndarray
    poses: np.ndarray
    takes: tuple[tuple[int, int], ...]  # first frame and the one after the last


@dataclass(frozen=True)
class DanceData:
    """A packed data set, memory-mapped."""

    manifest: Manifest
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


def open_dance(name: str, data_folder: Path = Path("data")) -> DanceData:
    """Returns the packed data set; UserError where it is missing, half written or damaged."""
    folder = data_folder / name
    manifest = Manifest.load(folder)

    def array(stem: str) -> np.ndarray:
        return np.load(folder / f"{stem}.npy", mmap_mode="r")

    return DanceData(
        manifest=manifest,
        train=Footage(array("train_frames"), array("train_poses"), manifest.train_takes),
        val=Footage(array("val_frames"), array("val_poses"), manifest.val_takes),
        test_frames=array("test_frames"),
        test_poses=array("test_poses"),
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
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
    ) -> None:
        self.frames = torch.from_numpy(np.array(footage.frames)).to(device)
        self.poses = torch.from_numpy(np.array(footage.poses)).to(device)
        self.seed, self.context, self.num_frames, self.mirror = seed, context, len(footage.frames), augmentation.mirror
        if self.mirror:  # mirror images follow the originals, so that mirroring a clip is an offset of its indices
            self.frames = torch.cat([self.frames, self.frames.flip(-1)])
            self.poses = torch.cat([self.poses, mirror_poses(self.poses)])
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

    def batch(self, epoch: int, first: int, clips: range) -> Batch:
        """Returns clips `first + clips` of an epoch; an epoch is a random order of all windows."""
        device, order = self.frames.device, self._order(epoch)
        start = self.starts[order[[(first + clip) % len(order) for clip in clips]]]
        generator = keyed_generator(self.seed, "augmentation", epoch, first)
        uniform = torch.rand(clips.stop, 2, generator=generator)[clips.start :]
        low, high = self.bounds[start].unbind(dim=1)
        reference = low + (uniform[:, 0] * (high - low)).long()
        span = torch.arange(-self.context, len(self.window) + self.context)
        poses = (start[:, None] + span).clamp(low[:, None], high[:, None] - 1)
        offset = self.num_frames * (uniform[:, 1] < 0.5).long() if self.mirror else torch.zeros_like(start)
        frames, poses, reference = (start + offset)[:, None] + self.window, poses + offset[:, None], reference + offset
        frames, poses, reference = (index.to(device, non_blocking=True) for index in (frames, poses, reference))
        batch = (self.frames[frames], self.poses[poses], self.frames[reference], self.poses[reference])
        return Batch(*(to_unit(part) for part in batch))

    def _draw_order(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.starts), generator=keyed_generator(self.seed, "order", epoch))


def mirror_poses(poses: Tensor) -> Tensor:
    """Returns mirrored uint8 pose images (..., 3, H, W); what was drawn as a left limb is then drawn as a right one."""
    flipped = poses.flip(-1)
    flat = flipped.flatten(0, -4) if flipped.dim() > 3 else flipped[None]
    return torch.cat([_swap_sides(chunk) for chunk in flat.split(512)]).reshape(flipped.shape)


def _swap_sides(poses: Tensor) -> Tensor:
    """Redraws every limb of (N, 3, H, W) uint8 in the colour of its twin on the other side.

    A limb's line is thin and blended with white, so a pixel's ink, white minus its colour, points in the direction of
    the limb's own ink. Each pixel goes to the limb it points to most; what that does not explain stays as it is.
    """
    ink = 255 - poses.float().movedim(1, -1)
    inks, twins = LIMB_INK.to(poses.device), TWIN_INK.to(poses.device)
    limb = (ink @ functional.normalize(inks, dim=1).T).argmax(dim=-1)
    own, twin = inks[limb], twins[limb]
    cover = (ink * own).sum(dim=-1, keepdim=True) / own.square().sum(dim=-1, keepdim=True)
    swapped = ink + cover * (twin - own)
    return (255 - swapped).round().clamp(0, 255).to(torch.uint8).movedim(-1, 1)


def _limb_inks() -> tuple[Tensor, Tensor]:
    """Returns the ink (limbs, 3) of each limb of the pose images, and that of its twin on the other side."""
    inks = {(start, end): 255.0 - torch.tensor(colour) for start, end, colour in LIMBS}
    twins = [inks[_other_side(start), _other_side(end)] for start, end in inks]
    return torch.stack(list(inks.values())), torch.stack(twins)


def _other_side(joint: str) -> str:
    exchange = {"left": "right", "right": "left"}
    return "_".join(exchange.get(word, word) for word in joint.split("_"))


LIMB_INK, TWIN_INK = _limb_inks()
