"""The smallest possible model of each system, as an example of a new model."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from src.base.randomness import Draws
from src.maths.losses import ClipLoss, clip_loss
from src.models.configs import PoseModelConfig, PushingModelConfig


class ToyPoseConfig(PoseModelConfig):
    """Settings of `ToyPose`."""

    network: ClassVar[str] = "tests.models.toys:ToyPose"
    name: Literal["toy_pose"] = "toy_pose"


class ToyPushingConfig(PushingModelConfig):
    """Settings of `ToyPushing`."""

    network: ClassVar[str] = "tests.models.toys:ToyPushing"
    name: Literal["toy_pushing"] = "toy_pushing"


class Toy(nn.Module):
    """Repeats the last given frame, made brighter or darker by one learned number. Its latent has no effect."""

    recurrent = False
    context = 0
    latent_shape = (1,)

    def __init__(
        self, config: PoseModelConfig | PushingModelConfig, *, height: int, width: int, loss: str, **numbers: int
    ) -> None:
        super().__init__()
        self.num_given = config.num_given
        self.brightness = nn.Parameter(torch.zeros(()))

    def encode_conditions(self, conditions: Tensor) -> Tensor:
        return conditions

    def start(self, given: Tensor, given_conditions: Tensor) -> Tensor:
        return given[:, -1]

    def step(self, state: Tensor, condition: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return (state + self.brightness).clamp(0, 1), state

    def posterior(self, frames: Tensor, conditions: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        nothing = torch.zeros(*frames.shape[:2], *self.latent_shape)
        return nothing, nothing

    def forward(self, batch: Any, draws: Draws, *, kl_weight: float, teacher_forcing_ratio: float) -> ClipLoss:
        frames = batch.frames
        state = self.start(frames[:, : self.num_given], frames)
        truth = frames[:, self.num_given :]
        drawn = torch.stack([self.step(state, frame, frame)[0] for frame in truth.unbind(1)], dim=1)
        error = (drawn - truth).square().mean(dim=(2, 3, 4))
        return clip_loss(error, torch.zeros_like(error), kl_weight)


class ToyPose(Toy):
    """A toy model for dancers."""


class ToyPushing(Toy):
    """A toy model for robot pushing."""
