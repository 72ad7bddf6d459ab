"""The default model: it draws each frame from the first frame, the poses around it and a latent with prior N(0, I).

No drawn frame is fed back, so errors do not add up. Frames and poses are float in [0, 1]; clips are (B, T, 3, H, W).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

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
from src.models.configs import ReferenceCVAEConfig
from src.vae_modules import (
    PooledPosterior,
    UNet,
    zero_initialised,
)


class Painter(nn.Module):
    """The default model's network: (B, C_in, H, W) and a latent -> (B, C_out, H, W). The initial output is zero.

    Every position has a learned offset, because the background does not move.
    """

    def __init__(self, config: ReferenceCVAEConfig, num_in: int, num_out: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = UNet(
            num_in,
            config.width,
            num_levels=config.num_levels,
            num_blocks=config.num_blocks,
            num_latents=config.num_latents,
        )
        self.position = nn.Parameter(torch.zeros(num_in, *size))
        self.head = nn.Sequential(
            nn.GroupNorm(8, config.width),
            nn.SiLU(),
            zero_initialised(nn.Conv2d(config.width, num_out, 3, padding=1)),
        )

    def forward(self, inputs: Tensor, latent: Tensor) -> Tensor:
        return self.head(self.network(inputs + self.position, latent))


class ReferenceCVAE(nn.Module):
    """Draws frame t from the first frame, the poses t-k..t+k and a small latent. Its state is the reference.

    The output mixes the reference frame with a drawn picture, pixel by pixel: kept * x_0 + (1 - kept) * drawn. A share
    of the training frames is drawn from the prior mean, with only the reconstruction loss, as in the hybrid objective
    of Sohn et al. 2015. So training covers what happens at test time.

    Several members form an ensemble. Each has its own loss, and the predicted frame is their mean.

    The state of the autoregressive variant (`previous_frame`) also holds the previous frame, true or drawn.
    """

    num_given = 1

    def __init__(self, config: ReferenceCVAEConfig, *, height: int, width: int, loss: str) -> None:
        super().__init__()
        self.config = config
        self.recurrent = config.previous_frame
        self.context = config.pose_window
        self.reconstruction = RECONSTRUCTIONS[loss]
        num_state = (0 if config.reference == "none" else 6) + (3 if config.previous_frame else 0)
        num_in = config.patch**2 * (3 * (2 * config.pose_window + 1) + num_state)
        num_out = config.patch**2 * (3 + (config.reference == "mixed"))
        size = (height // config.patch, width // config.patch)
        coarse = (size[0] >> (config.num_levels - 1), size[1] >> (config.num_levels - 1))
        latent_grid = coarse if config.latent_map else (1, 1)
        self.latent_shape: tuple[int, ...] = (config.num_latents, *latent_grid)
        self.members = nn.ModuleList(Painter(config, num_in, num_out, size) for _ in range(config.num_members))
        self.gaussian_predictor = PooledPosterior(4 * (3 + 3 + 6), config.width, config.num_latents, latent_grid)

    def encode_conditions(self, poses: Tensor) -> Tensor:
        """Returns the inverted poses t-k..t+k of each frame t, (B, T + 2k, 3, H, W) -> (B, T, 3 (2k + 1), H, W)."""
        num_frames = poses.shape[1] - 2 * self.context
        shifted = [poses[:, offset : offset + num_frames] for offset in range(2 * self.context + 1)]
        return 1 - torch.cat(shifted, dim=2)

    def start(self, given: Tensor, given_poses: Tensor) -> Tensor:
        """Returns the reference (B, 6, H, W): the given frame and its pose, which are (B, 1, 3, H, W) each.

        The autoregressive variant's state is (B, 9, H, W): the last three channels are the previous frame.
        """
        reference = torch.cat([given[:, 0], 1 - given_poses[:, 0]], dim=1)
        return torch.cat([reference, given[:, 0]], dim=1) if self.recurrent else reference

    def step(self, state: Tensor, condition: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the next frame (B, 3, H, W) in [0, 1] and the state after it. condition: (B, 3 (2k + 1), H, W)."""
        frame = self.paint(state, condition, noise).mean(dim=0)
        return frame, self._see(state, frame)

    def _see(self, state: Tensor, frame: Tensor) -> Tensor:
        """Returns the state after a frame, true or drawn. Only the autoregressive variant sees the frame."""
        return torch.cat([state[:, :6], frame], dim=1) if self.recurrent else state

    def paint(self, state: Tensor, condition: Tensor, latent: Tensor) -> Tensor:
        """Returns the frames that the members draw, (M, B, 3, H, W) in [0, 1]."""
        seen = state[:, 6:] if self.config.reference == "none" else state
        inputs = functional.pixel_unshuffle(torch.cat([condition, seen], dim=1), self.config.patch)
        outputs = torch.stack([member(inputs, latent) for member in self.members])
        outputs = functional.pixel_shuffle(outputs, self.config.patch).float().sigmoid()
        if self.config.reference != "mixed":
            return outputs
        drawn, kept = outputs.split([3, 1], dim=2)
        return kept * state[:, :3] + (1 - kept) * drawn

    def posterior(self, frames: Tensor, conditions: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of q(z_t | x_t, p_t, x_0), each (B, T, *latent_shape)."""
        pose = conditions[:, :, 3 * self.context : 3 * self.context + 3]
        states = state[:, None, :6].expand(-1, frames.shape[1], -1, -1, -1)
        inputs = torch.cat([frames, pose, states], dim=2).flatten(0, 1)
        mean, raw = self.gaussian_predictor(functional.pixel_unshuffle(inputs, 2)).float().chunk(2, dim=1)
        shape = frames.shape[:2]
        return mean.unflatten(0, shape), bound_log_variance(raw, *LOG_VARIANCE_BOUNDS).unflatten(0, shape)

    def forward(self, batch: Batch, draws: Draws, *, kl_weight: float, teacher_forcing_ratio: float) -> ClipLoss:
        """Returns the loss of a batch of clips. All frames are predicted; for the variant, all but the first."""
        state = self.start(batch.reference[:, None], batch.reference_pose[:, None])
        frames = batch.frames
        conditions = self.encode_conditions(batch.poses)
        if self.recurrent:
            state = self._see(state, frames[:, 0])
            frames, conditions = frames[:, 1:], conditions[:, 1:]
        num_frames = frames.shape[1]
        mean, log_variance = self.posterior(frames, conditions, state)
        posterior_sampled = (draws.uniform("prior", num_frames) >= self.config.prior_probability).float()
        sample = reparameterise(mean, log_variance, draws.normal("latent", (num_frames, *self.latent_shape)))
        latents = posterior_sampled[:, :, None, None, None] * sample
        if self.recurrent:
            uniforms = draws.shared_uniform("teacher_forcing", num_frames)
            coin = teacher_forcing_coin(uniforms, teacher_forcing_ratio, per=self.config.teacher_forcing.coin)
            painted = self._paint_in_turn(state, conditions, latents, frames, coin.tolist())
        else:
            states = state[:, None].expand(-1, num_frames, -1, -1, -1).flatten(0, 1)
            painted = self.paint(states, conditions.flatten(0, 1), latents.flatten(0, 1)).unflatten(1, frames.shape[:2])
        return clip_loss(
            torch.stack([self.reconstruction(predicted, frames) for predicted in painted]).mean(dim=0),
            kl_to_standard_normal(mean.flatten(0, 1), log_variance.flatten(0, 1)).unflatten(0, mean.shape[:2]),
            kl_weight * posterior_sampled,
        )

    def _paint_in_turn(
        self, state: Tensor, conditions: Tensor, latents: Tensor, truth: Tensor, coin: list[bool]
    ) -> Tensor:
        """Returns the frames of the autoregressive variant's members, (M, B, T, 3, H, W).

        Predicts frame by frame like `step`. A step sees the true previous frame if coin[t] is set, else the drawn one.
        """
        painted: list[Tensor] = []
        for t, (condition, latent) in enumerate(zip(conditions.unbind(1), latents.unbind(1), strict=True)):
            if t:
                state = self._see(state, truth[:, t - 1] if coin[t] else painted[-1].mean(dim=0))
            painted.append(self.paint(state, condition, latent))
        return torch.stack(painted, dim=2)
