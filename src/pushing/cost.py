"""What `make cost` needs to know about robot pushing."""

import torch

from src.config import Config
from src.intake.facts import CLIP_SIZE, NUM_ACTION, NUM_POSITION, DataFacts
from src.intake.manifest import OF_ROBOTS, PushingManifest
from src.models.interface import VideoModel
from src.pushing.data import PushingBatch

FULL_SIZE = 41_100  # training clips of BAIR
ASSUMED = DataFacts(  # the facts of BAIR, used if no data set is packed
    {"height": CLIP_SIZE[0], "width": CLIP_SIZE[1], "num_action": NUM_ACTION, "num_position": NUM_POSITION},
    OF_ROBOTS,
)


def noise_batch(config: Config, model: VideoModel, num_clips: int, facts: DataFacts) -> PushingBatch:
    """Returns clips of noise with the shapes of a training batch."""
    window = config.training.window
    numbers = torch.randn(num_clips, window, facts.network["num_action"] + facts.network["num_position"])
    return PushingBatch(torch.rand(num_clips, window, 3, *facts.frame_size), numbers)


def clips_of_an_epoch(config: Config, manifest: PushingManifest | None) -> tuple[int, str]:
    """Returns the number of training clips, as a number and in words. Without a manifest it is that of BAIR."""
    if manifest is None:
        return FULL_SIZE, f"{FULL_SIZE:,} clips, as BAIR has"
    return manifest.num_train, f"{manifest.num_train:,} clips"


def resident_bytes(config: Config, manifest: PushingManifest | None) -> int:
    """Returns the bytes of training data that stay on the device: none, because each batch is read from disk."""
    return 0
