"""The interface of every model, and `build_model`, which makes a model from a configuration."""

import pkgutil
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from src.base.console import UserError
from src.base.devices import memory_bytes
from src.base.randomness import Draws
from src.config import Config
from src.maths.losses import ClipLoss

COPIES = 5  # of each weight in training: itself, its average, its gradient, and two numbers of the optimiser


class VideoModel(Protocol):
    """A conditional VAE that draws frames one by one. Clips are (B, T, ...), frames (B, 3, H, W) in [0, 1].

    Conditions are known for every frame: pose images (B, T, 3, H, W) in [0, 1], or numbers (B, T, N). `step` draws
    every rollout, in validation, test and prediction. `forward` returns the training loss. Both use the same methods,
    and tests compare them.
    """

    recurrent: bool  # does a step depend on the previous steps?
    num_given: int  # frames given before the first prediction
    context: int  # number of conditions that a frame needs before and after its own
    latent_shape: tuple[int, ...]  # shape of the latent of one frame

    def encode_conditions(self, conditions: Tensor) -> Tensor:
        """Returns the encoded conditions, one for each step: (B, T + 2 context, ...) -> (B, T, ...)."""
        ...

    def start(self, given: Tensor, given_conditions: Tensor) -> Any:
        """Returns the state after the given frames (B, num_given, 3, H, W). Their conditions are not encoded yet."""
        ...

    def step(self, state: Any, condition: Tensor, noise: Tensor) -> tuple[Tensor, Any]:
        """Returns the next frame and the state after it. The latent is the prior's mean + deviation * noise."""
        ...

    def forward(self, batch: Any, draws: Draws, *, kl_weight: float, teacher_forcing_ratio: float) -> ClipLoss:
        """Returns the loss of a batch of training clips."""
        ...


class PoseModel(VideoModel, Protocol):
    """A model with the prior N(0, I). Therefore `step` accepts a latent as its noise."""

    def posterior(self, frames: Tensor, conditions: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of the latents given the true frames, (B, T, *latent_shape)."""
        ...


def compile_blocks(model: nn.Module) -> None:
    """Compiles the blocks of a model. The model itself cannot be compiled, because it draws keyed random numbers."""
    for child in model.children():
        for block in child if isinstance(child, nn.ModuleList) else [child]:
            block.compile()


def build_model(config: Config, *, height: int, width: int, **numbers: int) -> Any:
    """Returns the model that `config.model` names, with initial weights; UserError if it cannot draw this frame
    size, or if it is too large for this machine.

    height, width: size of a frame. numbers: the other numbers of `DataFacts.network`, which set layer sizes.
    """
    if needed := config.model.misfit_of_size(height, width):
        raise UserError(f"{config.model.name} cannot draw frames of {height} x {width} pixels; needed: {needed}")
    network = pkgutil.resolve_name(config.model.network)
    make = partial(network, config.model, height=height, width=width, loss=config.training.loss, **numbers)
    with torch.device("meta"):  # no numbers yet, only their count
        num_weights = sum(weights.numel() for weights in make().parameters())
    if (needed_bytes := COPIES * 4 * num_weights) > memory_bytes():
        raise UserError(
            f"the model has {num_weights:,} weights; training it takes {needed_bytes >> 30:,} GiB and more, and this "
            f"machine has {memory_bytes() >> 30:,} GiB; lower the width, latents, blocks or members in [model]"
        )
    return make()
