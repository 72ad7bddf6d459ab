"""What a model must offer, and the models by name."""

from typing import Protocol

from torch import Tensor

from src.config import Config
from src.dataset import Batch
from src.distributed import Draws
from src.vae_model import ClipLoss, LabCVAE, ReferenceCVAE


class VideoModel(Protocol):
    """A conditional VAE that draws frames one by one. Clips are (B, T, ...), frames (B, 3, H, W) in [0, 1].

    The same `step` serves training, validation, test and prediction; rollout.py is its only caller outside the models.
    """

    autoregressive: bool  # does a step depend on the frames drawn before?
    context: int  # poses needed before and after a frame
    latent_shape: tuple[int, ...]  # of one frame

    def encode_conditions(self, poses: Tensor) -> Tensor:
        """Returns what all steps need of the poses, (B, T + 2 context, 3, H, W) -> (B, T, ...)."""
        ...

    def start(self, given: Tensor, given_pose: Tensor) -> Tensor:
        """Returns the state after the given frame."""
        ...

    def step(self, state: Tensor, condition: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the next frame and the state after it."""
        ...

    def posterior(self, frames: Tensor, conditions: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of the latents given the true frames, (B, T, *latent_shape)."""
        ...

    def forward(self, batch: Batch, draws: Draws, *, kl_weight: float, teacher_forcing_ratio: float) -> ClipLoss:
        """Returns the loss of a batch of training clips."""
        ...


Model = LabCVAE | ReferenceCVAE


def build_model(config: Config, *, height: int, width: int) -> Model:
    """Returns the model that `config.model` names, for frames of (height, width), with its initial weights."""
    if config.model.name == "lab_cvae":
        return LabCVAE(config.model, height=height, width=width, loss=config.training.loss)
    return ReferenceCVAE(config.model, height=height, width=width, loss=config.training.loss)
