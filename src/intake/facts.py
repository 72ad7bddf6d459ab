"""Facts of a data set: their default values, and the facts that a model is built from."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

SMALLEST_SIDE, LARGEST_SIDE = 8, 1024  # of a packed frame, in pixels
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
Size = tuple[int, int]  # height and width in pixels

# The competition's dancers.
FRAME_SIZE: Size = (32, 64)
TEST_LENGTH = 630  # poses of a test sequence
SCORED_FRAMES = (1, 600)  # first and last scored frame of a rollout; frame 0 is given

# BAIR's robot pushing.
CLIP_SIZE: Size = (64, 64)
CLIP_LENGTH = 30  # frames
NUM_ACTION = 4  # numbers per frame in an action, the robot's command
NUM_POSITION = 3  # numbers per frame in a position, that of the robot's end effector


@dataclass(frozen=True)
class DataFacts:
    """The facts of a data set that set the shape of a network and the defaults of a configuration.

    network: height and width of a frame, and all other sizes that the system's networks need.
    cannot_mirror: why the clips cannot be mirrored, in words; None if they can be.
    is_notable: whether to tell the user that mirroring is off.
    """

    network: dict[str, int]
    cannot_mirror: str | None = None
    is_notable: bool = False

    @property
    def frame_size(self) -> Size:
        """Height and width of a frame."""
        return self.network["height"], self.network["width"]
