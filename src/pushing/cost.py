"""What `make cost` has to know of robot pushing."""

import torch

from src.config import Config
from src.intake.manifest import CLIP_SIZE, NUM_ACTION, NUM_POSITION, PushingManifest
from src.models.interface import VideoModel
from src.pushing.data import PushingBatch

FRAME_SIZE = CLIP_SIZE
FULL_SIZE = 41_100  # training clips of BAIR


def noise_batch(config: Config, model: VideoModel, num_clips: int) -> PushingBatch:
    """Returns clips of noise in the shapes that training has."""
    window = config.training.window
    numbers = torch.randn(num_clips, window, NUM_ACTION + NUM_POSITION)
    return PushingBatch(torch.rand(num_clips, window, 3, *CLIP_SIZE), numbers)


def clips_of_an_epoch(config: Config, manifest: PushingManifest | None) -> tuple[int, str]:
    """Returns the number of training clips, and the same in words; without a manifest, BAIR's."""
    if manifest is None:
        return FULL_SIZE, f"{FULL_SIZE:,} clips, as BAIR has"
    return manifest.num_train, f"{manifest.num_train:,} clips"


def resident_bytes(config: Config, manifest: PushingManifest | None) -> int:
    """Returns the bytes of training clips that stay on the device: none, they are read as they are wanted."""
    return 0
