"""The lab template's network: an autoregressive conditional VAE p(x_t | z_t, x_{t-1}, p_t) with the prior N(0, I).

It combines Denton & Fergus 2018 with the pose images of Chan et al. 2019, and has one latent per pixel. Frames and
poses are float in [0, 1]; clips are (B, T, 3, H, W).
"""

import torch
from torch import Tensor, nn

from src.base.randomness import Draws
from src.dataset import Batch
from src.maths.losses import (
    LOG_VARIANCE_BOUNDS,
    RECONSTRUCTIONS,
    ClipLoss,
    bound_log_variance,
    clip_loss,
    kl_to_standard_normal,
    reparameterise,
)
from src.maths.schedules import teacher_forcing_coin
from src.models.configs import LabCVAEConfig
from src.vae_modules import (
    decoder_fusion,
    frame_encoder,
    gaussian_predictor,
    generator,
    pose_encoder,
)


class LabCVAE(nn.Module):
    """The lab template's network. Its state is the feature map f_{t-1} of the previous frame, (B, C, H, W)."""

    recurrent = True
    num_given = 1
    context = 0

    def __init__(self, config: LabCVAEConfig, *, height: int, width: int, loss: str) -> None:
        super().__init__()
        slope = config.negative_slope
        self.config = config
        self.reconstruction = RECONSTRUCTIONS[loss]
        self.latent_shape: tuple[int, ...] = (config.num_latents, height, width)
        channels = config.width
        self.frame_encoder = frame_encoder(slope, channels)
        self.pose_encoder = pose_encoder(slope, channels)
        self.gaussian_predictor = gaussian_predictor(config.num_latents, slope, channels)
        self.decoder_fusion = decoder_fusion(config.num_latents, slope, channels)
        self.generator = generator(slope, channels)

    def encode_conditions(self, poses: Tensor) -> Tensor:
        """Returns the pose features l_t, (B, T, C / 4, H, W)."""
        return _over_time(self.pose_encoder, poses)

    def start(self, given: Tensor, given_poses: Tensor) -> Tensor:
        """Returns the state f_0 after the given frame (B, 1, 3, H, W)."""
        return self.frame_encoder(given[:, 0])

    def step(self, state: Tensor, condition: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the next frame (B, 3, H, W) in [0, 1] and the state after it."""
        frame = self.decode(state, condition, noise)
        return frame, self.frame_encoder(frame)

    def decode(self, previous: Tensor, condition: Tensor, latent: Tensor) -> Tensor:
        """Returns the predicted frame x^_t from f_{t-1}, l_t and z_t, each (B, C, H, W)."""
        raw = self.generator(self.decoder_fusion(torch.cat([previous, condition, latent], dim=1))).float()
        return raw.sigmoid() if self.config.bounded_output else raw

    def posterior(self, frames: Tensor, conditions: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of q(z_t | x_t, p_t), each (B, T, *latent_shape)."""
        return self._posterior_of(_over_time(self.frame_encoder, frames), conditions)

    def forward(self, batch: Batch, draws: Draws, *, kl_weight: float, teacher_forcing_ratio: float) -> ClipLoss:
        """Returns the loss of a batch of clips. Frame 0 is given, and frames 1..T-1 are predicted."""
        frames = batch.frames
        num_predicted = frames.shape[1] - 1
        features = _over_time(self.frame_encoder, frames)
        conditions = self.encode_conditions(batch.poses)[:, 1:]
        mean, log_variance = self._posterior_of(features[:, 1:], conditions)
        latents = reparameterise(mean, log_variance, draws.normal("latent", (num_predicted, *self.latent_shape)))
        coin = teacher_forcing_coin(
            draws.shared_uniform("teacher_forcing", num_predicted),
            teacher_forcing_ratio,
            per=self.config.teacher_forcing.coin,
        )
        if coin[1:].all():  # every step sees a true frame (the first one always does), so all can run in parallel
            predicted = self._decode_in_parallel(features[:, :-1], conditions, latents)
        else:
            predicted = self._decode_in_turn(features, conditions, latents, coin.tolist())
        return clip_loss(
            self.reconstruction(predicted, frames[:, 1:]),
            kl_to_standard_normal(mean.flatten(0, 1), log_variance.flatten(0, 1)).unflatten(0, mean.shape[:2]),
            kl_weight,
        )

    def _posterior_of(self, features: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = (
            _over_time(self.gaussian_predictor, torch.cat([features, conditions], dim=2)).float().chunk(2, dim=2)
        )
        return mean, bound_log_variance(raw, *LOG_VARIANCE_BOUNDS)

    def _decode_in_parallel(self, previous: Tensor, conditions: Tensor, latents: Tensor) -> Tensor:
        flat = self.decode(previous.flatten(0, 1), conditions.flatten(0, 1), latents.flatten(0, 1))
        return flat.unflatten(0, previous.shape[:2])

    def _decode_in_turn(self, features: Tensor, conditions: Tensor, latents: Tensor, coin: list[bool]) -> Tensor:
        """Predicts frame by frame like `step`. Where coin[t] is set, the step after frame t sees the true frame."""
        state = features[:, 0]
        predicted: list[Tensor] = []
        for t, (condition, latent) in enumerate(zip(conditions.unbind(1), latents.unbind(1), strict=True)):
            if t:
                state = features[:, t] if coin[t] else self.frame_encoder(predicted[-1])
            predicted.append(self.decode(state, condition, latent))
        return torch.stack(predicted, dim=1)


def _over_time(network: nn.Module, clips: Tensor) -> Tensor:
    """Returns the network's output for every frame of (B, T, C, H, W), as (B, T, C', H', W')."""
    return network(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
