"""The pose CVAEs: conditions, start state, one step, the loss of a clip.

Both models are conditional VAEs p(x_t | z_t, c_t) with the prior z_t ~ N(0, I). LabCVAE is the lab template (Denton &
Fergus 2018 with the pose images of Chan et al. 2019): autoregressive, one latent per pixel. ReferenceCVAE draws each
frame from the first frame and the poses around it: nothing it draws is fed back, so nothing drifts.

Frames and poses are float in [0, 1]; clips are (B, T, 3, H, W).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.config import LabCVAE as LabConfig
from src.config import ReferenceCVAE as ReferenceConfig
from src.dataset import Batch
from src.distributed import Draws
from src.losses import (
    LOG_VARIANCE_BOUNDS,
    RECONSTRUCTIONS,
    ClipLoss,
    bound_log_variance,
    clip_loss,
    kl_to_standard_normal,
    reparameterise,
)
from src.schedules import teacher_forcing_coin
from src.vae_modules import (
    PooledPosterior,
    UNet,
    decoder_fusion,
    frame_encoder,
    gaussian_predictor,
    generator,
    pose_encoder,
    zero_initialised,
)


class LabCVAE(nn.Module):
    """The lab template's network; its state is the feature map of the frame before, (B, 128, H, W)."""

    autoregressive = True
    num_given = 1
    context = 0

    def __init__(self, config: LabConfig, *, height: int, width: int, loss: str) -> None:
        super().__init__()
        slope = config.negative_slope
        self.config = config
        self.reconstruction = RECONSTRUCTIONS[loss]
        self.latent_shape: tuple[int, ...] = (config.num_latents, height, width)
        self.frame_encoder = frame_encoder(slope)
        self.pose_encoder = pose_encoder(slope)
        self.gaussian_predictor = gaussian_predictor(config.num_latents, slope)
        self.decoder_fusion = decoder_fusion(config.num_latents, slope)
        self.generator = generator(slope)

    def encode_conditions(self, poses: Tensor) -> Tensor:
        """Returns the pose features l_t, (B, T, 32, H, W)."""
        return _over_time(self.pose_encoder, poses)

    def start(self, given: Tensor, given_poses: Tensor) -> Tensor:
        """Returns the state after the given frame (B, 1, 3, H, W): f_0."""
        return self.frame_encoder(given[:, 0])

    def step(self, state: Tensor, condition: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the next frame (B, 3, H, W) in [0, 1] and the state after it."""
        frame = self.decode(state, condition, latent)
        return frame, self.frame_encoder(frame)

    def decode(self, previous: Tensor, condition: Tensor, latent: Tensor) -> Tensor:
        """Returns x^_t from f_{t-1}, l_t and z_t, each (B, C, H, W)."""
        raw = self.generator(self.decoder_fusion(torch.cat([previous, condition, latent], dim=1))).float()
        return raw.sigmoid() if self.config.bounded_output else raw

    def posterior(self, frames: Tensor, conditions: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of q(z_t | x_t, p_t), each (B, T, *latent_shape)."""
        return self._posterior_of(_over_time(self.frame_encoder, frames), conditions)

    def forward(self, batch: Batch, draws: Draws, *, kl_weight: float, teacher_forcing_ratio: float) -> ClipLoss:
        """Returns the loss of a batch of clips; frames 1..T-1 are predicted, frame 0 is given."""
        frames, num_predicted = batch.frames, batch.frames.shape[1] - 1
        features = _over_time(self.frame_encoder, frames)
        conditions = self.encode_conditions(batch.poses)[:, 1:]
        mean, log_variance = self._posterior_of(features[:, 1:], conditions)
        latents = reparameterise(mean, log_variance, draws.normal("latent", (num_predicted, *self.latent_shape)))
        coin = teacher_forcing_coin(
            draws.shared_uniform("teacher_forcing", num_predicted),
            teacher_forcing_ratio,
            per=self.config.teacher_forcing.coin,
        )
        if coin[1:].all():  # the first predicted frame always follows a true one; then nothing is fed back
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
        """Feeds back the true frame t where coin[t] is set, else the predicted one."""
        state, predicted = features[:, 0], []
        for time in range(conditions.shape[1]):
            frame = self.decode(state, conditions[:, time], latents[:, time])
            predicted.append(frame)
            if time + 1 < conditions.shape[1]:
                state = features[:, time + 1] if coin[time + 1] else self.frame_encoder(frame)
        return torch.stack(predicted, dim=1)


class Painter(nn.Module):
    """The default model's network: (B, C_in, H, W) and a latent -> (B, C_out, H, W), zero at first.

    Every place has an offset of its own to learn, because the studio does not move.
    """

    def __init__(self, config: ReferenceConfig, num_in: int, num_out: int, size: tuple[int, int]) -> None:
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
    """Draws frame t from the first frame, the poses t-k..t+k and a small latent; its state is the reference.

    The output mixes the reference frame with a drawn picture, pixel by pixel: kept * x_0 + (1 - kept) * drawn. A
    share of the training frames is rendered from the prior mean with the reconstruction loss alone, as in the hybrid
    objective of Sohn et al. 2015, so that the path used at test is a path that was trained.

    Several members, each with a loss of its own, make an ensemble, whose frame is the mean of theirs.

    The autoregressive twin (`previous_frame`) also sees the frame before, the true one or its own, in its state.
    """

    num_given = 1

    def __init__(self, config: ReferenceConfig, *, height: int, width: int, loss: str) -> None:
        super().__init__()
        self.config, self.autoregressive = config, config.previous_frame
        self.context = config.pose_window
        self.reconstruction = RECONSTRUCTIONS[loss]
        num_state = (0 if config.reference == "none" else 6) + (3 if config.previous_frame else 0)
        num_in = config.patch**2 * (3 * (2 * config.pose_window + 1) + num_state)
        num_out = config.patch**2 * (3 + (config.reference == "mixed"))
        size = (height // config.patch, width // config.patch)
        coarse = (size[0] >> (config.num_levels - 1), size[1] >> (config.num_levels - 1))
        places = coarse if config.latent_map else (1, 1)
        self.latent_shape: tuple[int, ...] = (config.num_latents, *places)
        self.members = nn.ModuleList(Painter(config, num_in, num_out, size) for _ in range(config.num_members))
        self.gaussian_predictor = PooledPosterior(4 * (3 + 3 + 6), config.width, config.num_latents, places)

    def encode_conditions(self, poses: Tensor) -> Tensor:
        """Returns each frame's poses t-k..t+k, (B, T + 2k, 3, H, W) -> (B, T, 3 (2k + 1), H, W); white is 0."""
        num_frames = poses.shape[1] - 2 * self.context
        shifted = [poses[:, offset : offset + num_frames] for offset in range(2 * self.context + 1)]
        return 1 - torch.cat(shifted, dim=2)

    def start(self, given: Tensor, given_poses: Tensor) -> Tensor:
        """Returns the reference: the given frame and its pose, from two (B, 1, 3, H, W), as (B, 6, H, W).

        The twin's state is (B, 9, H, W), the frame before standing last.
        """
        reference = torch.cat([given[:, 0], 1 - given_poses[:, 0]], dim=1)
        return torch.cat([reference, given[:, 0]], dim=1) if self.autoregressive else reference

    def step(self, state: Tensor, condition: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the frame (B, 3, H, W) in [0, 1] of a condition (B, 3 (2k + 1), H, W), and the state after it."""
        frame = self.paint(state, condition, latent).mean(dim=0)
        return frame, torch.cat([state[:, :6], frame], dim=1) if self.autoregressive else state

    def paint(self, state: Tensor, condition: Tensor, latent: Tensor) -> Tensor:
        """Returns the frame of every member, (M, B, 3, H, W) in [0, 1]."""
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
        """Returns the loss of a batch of clips, all of whose frames are predicted; the twin is given the first."""
        state = self.start(batch.reference[:, None], batch.reference_pose[:, None])
        frames, conditions = batch.frames, self.encode_conditions(batch.poses)
        if self.autoregressive:
            state = torch.cat([state[:, :6], frames[:, 0]], dim=1)
            frames, conditions = frames[:, 1:], conditions[:, 1:]
        num_frames = frames.shape[1]
        mean, log_variance = self.posterior(frames, conditions, state)
        informed = (draws.uniform("prior", num_frames) >= self.config.prior_probability).float()
        sample = reparameterise(mean, log_variance, draws.normal("latent", (num_frames, *self.latent_shape)))
        latents = informed[:, :, None, None, None] * sample
        if self.autoregressive:
            uniforms = draws.shared_uniform("teacher_forcing", num_frames)
            coin = teacher_forcing_coin(uniforms, teacher_forcing_ratio, per=self.config.teacher_forcing.coin)
            painted = self._paint_in_turn(state, conditions, latents, frames, coin.tolist())
        else:
            states = state[:, None].expand(-1, num_frames, -1, -1, -1).flatten(0, 1)
            painted = self.paint(states, conditions.flatten(0, 1), latents.flatten(0, 1)).unflatten(1, frames.shape[:2])
        return clip_loss(
            torch.stack([self.reconstruction(predicted, frames) for predicted in painted]).mean(dim=0),
            kl_to_standard_normal(mean.flatten(0, 1), log_variance.flatten(0, 1)).unflatten(0, mean.shape[:2]),
            kl_weight * informed,
        )

    def _paint_in_turn(
        self, state: Tensor, conditions: Tensor, latents: Tensor, truth: Tensor, coin: list[bool]
    ) -> Tensor:
        """Returns the frames of the twin's members, (M, B, T, 3, H, W).

        They see the true frame t before t + 1 where coin[t + 1] is set, else the mean of their own.
        """
        painted: list[Tensor] = []
        for t, (condition, latent) in enumerate(zip(conditions.unbind(1), latents.unbind(1), strict=True)):
            if t:
                before = truth[:, t - 1] if coin[t] else painted[-1].mean(dim=0)
                state = torch.cat([state[:, :6], before], dim=1)
            painted.append(self.paint(state, condition, latent))
        return torch.stack(painted, dim=2)


def _over_time(network: nn.Module, clips: Tensor) -> Tensor:
    """Returns the network's output for every frame of (B, T, C, H, W), as (B, T, C', H', W')."""
    return network(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
