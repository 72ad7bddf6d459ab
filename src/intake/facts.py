"""Facts of a data set: what they are unless its manifest says otherwise, and those that a model is built from."""

from dataclasses import dataclass

Size = tuple[int, int]  # height and width in pixels

# The competition's dancers.
FRAME_SIZE: Size = (32, 64)
TEST_LENGTH = 630  # poses of a test sequence
SCORED_FRAMES = (1, 600)  # first and last frame of a rollout that count; frame 0 is given

# BAIR's robot pushing.
CLIP_SIZE: Size = (64, 64)
CLIP_LENGTH = 30  # frames
NUM_ACTION = 4  # numbers per frame that say what the robot is told
NUM_POSITION = 3  # numbers per frame that say where its end effector is


@dataclass(frozen=True)
class DataFacts:
    """What of a data set decides the shape of a network and the defaults of a configuration.

    network: height and width of a frame, and whatever else a network of that system is built from.
    cannot_mirror: why its clips cannot be mirrored, in words; None where they can.
    is_notable: whether a person should be told that they cannot.
    """

    network: dict[str, int]
    cannot_mirror: str | None = None
    is_notable: bool = False

    @property
    def frame_size(self) -> Size:
        """Height and width of a frame."""
        return self.network["height"], self.network["width"]
