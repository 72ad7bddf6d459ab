"""What a model must offer, and the models by name."""

import pkgutil
from typing import Any, Protocol

from torch import Tensor

from src.base.randomness import Draws
from src.config import Config
from src.maths.losses import ClipLoss


class VideoModel(Protocol):
    """A conditional VAE that draws frames one by one. Clips are (B, T, ...), frames (B, 3, H, W) in [0, 1].

    Conditions are what is known of every frame: pose images (B, T, 3, H, W) in [0, 1], or numbers (B, T, N). Every
    rollout, of validation, test and prediction, is drawn by `step`. `forward`, the loss of training, is made of the
    same methods as `step`, and tests compare the two.
    """

    recurrent: bool  # does a step depend on the steps before?
    num_given: int  # frames seen before the first prediction
    context: int  # conditions needed before and after a frame
    latent_shape: tuple[int, ...]  # of one frame

    def encode_conditions(self, conditions: Tensor) -> Tensor:
        """Returns what the steps need of the conditions, (B, T + 2 context, ...) -> (B, T, ...)."""
        ...

    def start(self, given: Tensor, given_conditions: Tensor) -> Any:
        """Returns the state after the given frames (B, num_given, 3, H, W), whose conditions are not encoded."""
        ...

    def step(self, state: Any, condition: Tensor, noise: Tensor) -> tuple[Tensor, Any]:
        """Returns the next frame and the state after it. The latent is the prior's mean + deviation * noise."""
        ...

    def forward(self, batch: Any, draws: Draws, *, kl_weight: float, teacher_forcing_ratio: float) -> ClipLoss:
        """Returns the loss of a batch of training clips."""
        ...


class PoseModel(VideoModel, Protocol):
    """A model whose prior is N(0, I), so that the noise of a step is the latent itself."""

    def posterior(self, frames: Tensor, conditions: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of the latents given the true frames, (B, T, *latent_shape)."""
        ...


def build_model(config: Config, *, height: int, width: int) -> Any:
    """Returns the model that `config.model` names, for frames of (height, width), with its initial weights."""
    network = pkgutil.resolve_name(config.model.network)
    return network(config.model, height=height, width=width, loss=config.training.loss)
