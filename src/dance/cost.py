"""The part of `make cost` that is special to dancers."""

import torch

from src.config import Config
from src.dataset import Batch
from src.intake.facts import FRAME_SIZE, DataFacts
from src.intake.manifest import DanceManifest
from src.models.interface import VideoModel

FULL_SIZE = 23_410  # training frames of the competition
ASSUMED = DataFacts({"height": FRAME_SIZE[0], "width": FRAME_SIZE[1]})  # used if no data set is packed


def noise_batch(config: Config, model: VideoModel, num_clips: int, facts: DataFacts) -> Batch:
    """Returns clips of noise that have the shapes of training clips."""
    window = config.training.window
    picture = (3, *facts.frame_size)
    frames = torch.rand(num_clips, window, *picture)
    poses = torch.rand(num_clips, window + 2 * model.context, *picture)
    return Batch(frames, poses, torch.rand(num_clips, *picture), torch.rand(num_clips, *picture))


def clips_of_an_epoch(config: Config, manifest: DanceManifest | None) -> tuple[int, str]:
    """Returns how many clips cover the training frames once, and a description of these frames.

    Without a manifest, the number of frames is the competition's.
    """
    window = config.training.window
    if manifest is None:
        return FULL_SIZE // window, f"{FULL_SIZE:,} frames, as in the competition"
    left_out = config.training.held_out_takes
    kept = [take for number, take in enumerate(manifest.train_takes) if number not in left_out]
    kept += manifest.val_takes if config.training.final_of else ()
    frames = sum(stop - start for start, stop in kept)
    return frames // window, f"{frames:,} frames"


def resident_bytes(config: Config, manifest: DanceManifest | None) -> int:
    """Returns the bytes of training frames and poses that stay on the device, including the held-out takes.

    `config` must be resolved.
    """
    num_frames = FULL_SIZE if manifest is None else max(stop for _, stop in manifest.train_takes)
    if manifest is not None and config.training.final_of:
        num_frames += max(stop for _, stop in manifest.val_takes)
    changes = config.augmentation
    height, width = (manifest.facts if manifest else ASSUMED).frame_size
    pixels = (height + 2 * changes.shift_y) * (width + 2 * changes.shift_x)  # shifts are views of padded pictures
    return 2 * (2 if changes.mirror else 1) * num_frames * 3 * pixels
