"""What `make cost` has to know of dancers."""

import torch

from src.config import Config
from src.dataset import Batch
from src.intake.manifest import DanceManifest
from src.intake.sources import FRAME_SIZE
from src.models.interface import VideoModel

FULL_SIZE = 23_410  # training frames of the competition


def noise_batch(config: Config, model: VideoModel, num_clips: int) -> Batch:
    """Returns clips of noise in the shapes that training has."""
    window, picture = config.training.window, (3, *FRAME_SIZE)
    frames = torch.rand(num_clips, window, *picture)
    poses = torch.rand(num_clips, window + 2 * model.context, *picture)
    return Batch(frames, poses, torch.rand(num_clips, *picture), torch.rand(num_clips, *picture))


def clips_of_an_epoch(config: Config, manifest: DanceManifest | None) -> tuple[int, str]:
    """Returns how many clips cover the training frames once, and in words how many frames; None: the competition's."""
    window = config.training.window
    if manifest is None:
        return FULL_SIZE // window, f"{FULL_SIZE:,} frames, as the competition has"
    left_out = config.training.held_out_takes
    kept = [take for number, take in enumerate(manifest.train_takes) if number not in left_out]
    frames = sum(stop - start for start, stop in kept)
    return frames // window, f"{frames:,} frames"


def resident_bytes(config: Config, manifest: DanceManifest | None) -> int:
    """Returns the bytes of training frames and poses that stay on the device, takes held out among them."""
    num_frames = FULL_SIZE if manifest is None else max(stop for _, stop in manifest.train_takes)
    changes = config.augmentation
    height, width = FRAME_SIZE
    pixels = (height + 2 * changes.shift_y) * (width + 2 * changes.shift_x)  # a shift is a view of padded pictures
    return 2 * (1 + changes.mirror) * num_frames * 3 * pixels
