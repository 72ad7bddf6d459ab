"""The default for robot pushing: a conditional VAE with a map as memory. It mixes the given frame into the output."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.base.randomness import Draws
from src.dataset import with_context
from src.intake.facts import NUM_ACTION, NUM_POSITION
from src.maths.losses import (
    LOG_VARIANCE_BOUNDS,
    RECONSTRUCTIONS,
    ClipLoss,
    bound_log_variance,
    clip_loss,
    kl_between,
    reparameterise,
)
from src.models.configs import ConvSVGConfig
from src.models.svg_modules import (
    ConvGRU,
    GaussianHead,
    MapDecoder,
    MapEncoder,
    NumberMap,
)
from src.pushing.data import PushingBatch


class ConvState(NamedTuple):
    """The memory (B, 2 width, H/4, W/4), the last given frame (B, 3, H, W), and the features of that frame."""

    memory: Tensor
    reference: Tensor
    reference_features: Tensor


class ConvSVG(nn.Module):
    """A conditional VAE with a map s_t as memory. Conditions and latents change the memory; drawn frames do not.

    s_t = GRU(s_{t-1}, map of (action_{t-1}, position_{t-1}, position_t, z_t));
    x^_t = m_t * x_given + (1 - m_t) * drawn_t, where the mask m_t and drawn_t are decoded from s_t.

    No frame depends on another drawn frame, so a whole clip is decoded at once. The prior of z_t is learned, given
    s_{t-1} and the conditions, or N(0, I). The posterior q also sees x_t. A share of the training clips is drawn from
    the prior means, with only the reconstruction loss (the hybrid objective of Sohn et al. 2015). So training covers
    what happens at test time.
    """

    recurrent = True
    context = 1

    def __init__(
        self,
        config: ConvSVGConfig,
        *,
        height: int,
        width: int,
        loss: str,
        num_action: int = NUM_ACTION,
        num_position: int = NUM_POSITION,
    ) -> None:
        super().__init__()
        channels = config.width
        num_conditions = num_action + 2 * num_position
        self.config = config
        self.num_given = config.num_given
        self.num_action = num_action
        self.reconstruction = RECONSTRUCTIONS[loss]
        self.latent_shape: tuple[int, ...] = (config.num_latents,)
        self.encoder = MapEncoder(channels)
        self.controls = NumberMap(num_conditions + config.num_latents, 2 * channels, height // 4, width // 4)
        self.observe = ConvGRU(2 * channels, 4 * channels)
        self.transition = ConvGRU(2 * channels, 2 * channels)
        self.places = NumberMap(num_conditions, channels, height // 2, width // 2)
        self.decoder = MapDecoder(channels)
        self.posterior = GaussianHead(4 * channels + num_conditions, 2 * channels, config.num_latents)
        self.prior = (
            GaussianHead(2 * channels + num_conditions, 2 * channels, config.num_latents)
            if config.prior == "learned"
            else None
        )

    def encode_conditions(self, conditions: Tensor) -> Tensor:
        """Returns the previous frame's action and position, and the frame's position, (B, T + 2, 7) -> (B, T, 10)."""
        return torch.cat([conditions[:, :-2], conditions[:, 1:-1, self.num_action :]], dim=2)

    def start(self, given: Tensor, given_conditions: Tensor) -> ConvState:
        """Returns the state after the given frames (B, num_given, 3, H, W)."""
        return self._start(given, *self._encode(given), given_conditions)

    def step(self, state: ConvState, condition: Tensor, noise: Tensor) -> tuple[Tensor, ConvState]:
        """Returns the next frame (B, 3, H, W) in [0, 1] and the state after it."""
        latent = reparameterise(*self._prior(state.memory, condition), noise)
        memory = self._advance(state.memory, condition, latent)
        frame = self._decode(memory, condition, state.reference, state.reference_features)
        return frame, ConvState(memory, state.reference, state.reference_features)

    def forward(self, batch: PushingBatch, draws: Draws, *, kl_weight: float, teacher_forcing_ratio: float) -> ClipLoss:
        """Returns the loss of a batch of clips. The frames after the given ones are predicted; none is fed back."""
        num_given = self.num_given
        num_predicted = batch.frames.shape[1] - num_given
        features, maps = self._encode(batch.frames)
        state = self._start(batch.frames[:, :num_given], features, maps, batch.conditions[:, :num_given])
        conditions = self.encode_conditions(with_context(batch.conditions, self.context))[:, num_given:]
        posterior_sampled = (draws.uniform("prior", 1) >= self.config.prior_probability).float()
        noise = draws.normal("latent", (num_predicted, *self.latent_shape))
        memory = state.memory
        memories: list[Tensor] = []
        divergences: list[Tensor] = []
        for t in range(num_predicted):
            prior_mean, prior_log_variance = self._prior(memory, conditions[:, t])
            mean, log_variance = self._posterior(memory, conditions[:, t], maps[:, num_given + t])
            sample = reparameterise(mean, log_variance, noise[:, t])
            memory = self._advance(memory, conditions[:, t], prior_mean + posterior_sampled * (sample - prior_mean))
            memories.append(memory)
            divergences.append(kl_between(mean, log_variance, prior_mean, prior_log_variance))
        references, reference_features = (
            part[:, None].expand(-1, num_predicted, -1, -1, -1).flatten(0, 1)
            for part in (state.reference, state.reference_features)
        )
        flat = torch.stack(memories, 1).flatten(0, 1), conditions.flatten(0, 1)
        drawn = self._decode(*flat, references, reference_features).unflatten(0, (len(memory), num_predicted))
        reconstruction = self.reconstruction(drawn, batch.frames[:, num_given:])
        return clip_loss(reconstruction, torch.stack(divergences, 1), kl_weight * posterior_sampled)

    def _encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features at half and at a quarter of the resolution, (B, T, C, H/2, W/2) and (B, T, 2C, H/4, W/4)."""
        return tuple(maps.unflatten(0, frames.shape[:2]) for maps in self.encoder(frames.flatten(0, 1)))

    def _start(self, given: Tensor, features: Tensor, maps: Tensor, given_conditions: Tensor) -> ConvState:
        conditions = self.encode_conditions(with_context(given_conditions, self.context))
        memory = torch.zeros_like(maps[:, 0])
        for t in range(self.num_given):
            control = self.controls(functional.pad(conditions[:, t], (0, self.config.num_latents)))
            memory = self.observe(memory, torch.cat([maps[:, t], control], dim=1))
        last = self.num_given - 1
        return ConvState(memory, given[:, last], features[:, last])

    def _advance(self, memory: Tensor, condition: Tensor, latent: Tensor) -> Tensor:
        return self.transition(memory, self.controls(torch.cat([condition, latent], dim=1)))

    def _decode(self, memory: Tensor, condition: Tensor, reference: Tensor, reference_features: Tensor) -> Tensor:
        drawn, kept = self.decoder(memory, reference_features, self.places(condition)).split([3, 1], dim=1)
        return kept * reference + (1 - kept) * drawn

    def _prior(self, memory: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of p(z_t | s_{t-1}, conditions), (B, num_latents)."""
        if self.prior is None:
            zeros = torch.zeros(len(memory), *self.latent_shape, device=memory.device)
            return zeros, zeros
        mean, raw = self.prior(torch.cat([memory.mean(dim=(2, 3)), condition], dim=1))
        return mean, bound_log_variance(raw, *LOG_VARIANCE_BOUNDS)

    def _posterior(self, memory: Tensor, condition: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of q(z_t | s_{t-1}, conditions, x_t), (B, num_latents)."""
        pooled = torch.cat([memory, maps], dim=1).mean(dim=(2, 3))
        mean, raw = self.posterior(torch.cat([pooled, condition], dim=1))
        return mean, bound_log_variance(raw, *LOG_VARIANCE_BOUNDS)
