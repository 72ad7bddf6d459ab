"""The SVG family: one step, and the loss of a clip.

`SVG` is Stochastic Video Generation (Denton & Fergus 2018) with actions. `ConvSVG` keeps its memory as a map and lets
the given frame through, so that what does not move need not be drawn.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.config import SVG as SVGConfig
from src.config import ConvSVG as ConvConfig
from src.dataset import PushingBatch, with_context
from src.distributed import Draws
from src.intake.manifest import NUM_ACTION, NUM_POSITION
from src.losses import (
    LOG_VARIANCE_BOUNDS,
    RECONSTRUCTIONS,
    ClipLoss,
    bound_log_variance,
    clip_loss,
    kl_between,
    reparameterise,
)
from src.schedules import teacher_forcing_coin
from src.svg_modules import (
    ConvGRU,
    FrameDecoder,
    FrameEncoder,
    FramePredictor,
    GaussianHead,
    GaussianLSTM,
    Hidden,
    MapDecoder,
    MapEncoder,
    NumberMap,
    Skips,
)


@dataclass(frozen=True)
class SVGState:
    """The LSTMs' states, and the frame before: its features (B, num_features) and the skips for the decoder."""

    predictor: Hidden
    prior: Hidden
    features: Tensor
    skips: Skips


class SVG(nn.Module):
    """SVG-FP (prior "fixed") and SVG-LP ("learned"): z_t modulates an LSTM on the encoded frame before.

    h_t = encoder(x_t); z_t ~ q(z_t | h_1..t) in training, p(z_t) or p(z_t | h_0..t-1) else;
    g_t = LSTM(h_{t-1}, z_t, action_{t-1}, position_{t-1}); x^_t = decoder(g_t, skips).
    """

    autoregressive = True
    context = 1

    def __init__(self, config: SVGConfig, *, height: int, width: int, loss: str) -> None:
        assert (height, width) == (64, 64), f"SVG's encoder ends at 4 x 4 for frames of 64 x 64, not {height} x {width}"
        super().__init__()
        size, hidden = config.num_features, config.num_hidden
        self.config, self.num_given = config, config.num_given
        self.reconstruction = RECONSTRUCTIONS[loss]
        self.latent_shape: tuple[int, ...] = (config.num_latents,)
        self.encoder = FrameEncoder(config.width, size)
        self.decoder = FrameDecoder(config.width, size)
        self.predictor = FramePredictor(size + config.num_latents + NUM_ACTION + NUM_POSITION, hidden, size)
        self.posterior = GaussianLSTM(size, hidden, config.num_latents)
        self.prior = GaussianLSTM(size, hidden, config.num_latents) if config.prior == "learned" else None

    def encode_conditions(self, conditions: Tensor) -> Tensor:
        """Returns action and position of the frame before each, (B, T + 2, 7) -> (B, T, 7)."""
        return conditions[:, :-2]

    def start(self, given: Tensor, given_conditions: Tensor) -> SVGState:
        """Returns the state after the given frames; their latents are the posterior's means."""
        features, skips = self._encode(given)
        state = self._blank(features, tuple(skip[:, 0] for skip in skips))
        remembered = self.posterior.start(state.features)
        for t in range(1, self.num_given):
            mean, _, remembered = self.posterior(features[:, t], remembered)
            *_, prior = self._prior(state.features, state.prior)
            _, predictor = self.predictor(
                torch.cat([state.features, mean, given_conditions[:, t - 1]], 1), state.predictor
            )
            state = SVGState(predictor, prior, features[:, t], tuple(skip[:, t] for skip in skips))
        return state

    def step(self, state: SVGState, condition: Tensor, noise: Tensor) -> tuple[Tensor, SVGState]:
        """Returns the next frame (B, 3, 64, 64) in [0, 1] and the state after it."""
        mean, log_variance, prior = self._prior(state.features, state.prior)
        latent = reparameterise(mean, log_variance, noise)
        predicted, predictor = self.predictor(torch.cat([state.features, latent, condition], 1), state.predictor)
        frame = self.decoder(predicted, state.skips)
        features, skips = self.encoder(frame)
        return frame, SVGState(predictor, prior, features, skips if self.config.last_frame_skip else state.skips)

    def forward(self, batch: PushingBatch, draws: Draws, *, kl_weight: float, teacher_forcing_ratio: float) -> ClipLoss:
        """Returns the loss of a batch of clips; frames 1..T-1 are predicted, the first ones from true frames."""
        frames, num_predicted = batch.frames, batch.frames.shape[1] - 1
        features, skips = self._encode(frames)
        conditions = self.encode_conditions(with_context(batch.conditions, self.context))[:, 1:]
        mean, log_variance = self._posterior_over_time(features[:, 1:])
        latents = reparameterise(mean, log_variance, draws.normal("latent", (num_predicted, *self.latent_shape)))
        coin = teacher_forcing_coin(
            draws.shared_uniform("teacher_forcing", num_predicted),
            teacher_forcing_ratio,
            per=self.config.teacher_forcing.coin,
        )
        truth_fed = [t < self.num_given or fed for t, fed in enumerate(coin.tolist())]
        if all(truth_fed):
            predicted, prior_mean, prior_log_variance = self._predict_in_parallel(features, skips, conditions, latents)
        else:
            predicted, prior_mean, prior_log_variance = self._predict_in_turn(
                features, skips, conditions, latents, truth_fed
            )
        divergence = kl_between(*(part.flatten(0, 1) for part in (mean, log_variance, prior_mean, prior_log_variance)))
        return clip_loss(
            self.reconstruction(predicted, frames[:, 1:]), divergence.unflatten(0, mean.shape[:2]), kl_weight
        )

    def _predict_in_parallel(
        self, features: Tensor, skips: Skips, conditions: Tensor, latents: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Feeds true frames alone: the LSTMs run in turn, then all frames are decoded at once."""
        state, predicted, means, log_variances = self._blank(features, ()), [], [], []
        predictor, prior = state.predictor, state.prior
        for t in range(conditions.shape[1]):
            mean, log_variance, prior = self._prior(features[:, t], prior)
            output, predictor = self.predictor(
                torch.cat([features[:, t], latents[:, t], conditions[:, t]], 1), predictor
            )
            predicted.append(output)
            means.append(mean)
            log_variances.append(log_variance)
        last = conditions.shape[1] if self.config.last_frame_skip else self.num_given
        times = [min(t, last - 1) for t in range(conditions.shape[1])]
        drawn = self.decoder(
            torch.stack(predicted, 1).flatten(0, 1), tuple(skip[:, times].flatten(0, 1) for skip in skips)
        )
        frames = drawn.unflatten(0, (len(features), len(times)))
        return frames, torch.stack(means, 1), torch.stack(log_variances, 1)

    def _predict_in_turn(
        self, features: Tensor, skips: Skips, conditions: Tensor, latents: Tensor, truth_fed: list[bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Feeds back the true frame t where truth_fed[t] is set, else the predicted one."""
        state, predicted, means, log_variances = self._blank(features, ()), [], [], []
        predictor, prior, before, skip, drawn = state.predictor, state.prior, state.features, state.skips, None
        for t, true in enumerate(truth_fed):
            if true:
                before, skips_before = features[:, t], tuple(maps[:, t] for maps in skips)
            else:
                assert drawn is not None, "frame 0 is given"
                before, skips_before = self.encoder(drawn)
            if self.config.last_frame_skip or t < self.num_given:
                skip = skips_before
            mean, log_variance, prior = self._prior(before, prior)
            output, predictor = self.predictor(torch.cat([before, latents[:, t], conditions[:, t]], 1), predictor)
            drawn = self.decoder(output, skip)
            predicted.append(drawn)
            means.append(mean)
            log_variances.append(log_variance)
        return torch.stack(predicted, 1), torch.stack(means, 1), torch.stack(log_variances, 1)

    def _encode(self, frames: Tensor) -> tuple[Tensor, Skips]:
        """Returns features (B, T, num_features) and skips (B, T, C, H, W) of whole clips."""
        features, skips = self.encoder(frames.flatten(0, 1))
        shape = frames.shape[:2]
        return features.unflatten(0, shape), tuple(skip.unflatten(0, shape) for skip in skips)

    def _blank(self, features: Tensor, skips: Skips) -> SVGState:
        first = features[:, 0]
        prior = self.prior.start(first) if self.prior is not None else ()
        return SVGState(self.predictor.start(first), prior, first, skips)

    def _prior(self, features: Tensor, state: Hidden) -> tuple[Tensor, Tensor, Hidden]:
        """Returns mean and log variance of z_t given the frames before, (B, num_latents), and the prior's state."""
        if self.prior is None:
            zeros = torch.zeros(len(features), *self.latent_shape, device=features.device)
            return zeros, zeros, state
        mean, raw, after = self.prior(features, state)
        return mean, bound_log_variance(raw, *LOG_VARIANCE_BOUNDS), after

    def _posterior_over_time(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of q(z_t | x_1..t), each (B, T, num_latents), from features (B, T, ...)."""
        state, means, raws = self.posterior.start(features[:, 0]), [], []
        for now in features.unbind(1):
            mean, raw, state = self.posterior(now, state)
            means.append(mean)
            raws.append(raw)
        return torch.stack(means, 1), bound_log_variance(torch.stack(raws, 1), *LOG_VARIANCE_BOUNDS)


@dataclass(frozen=True)
class ConvState:
    """The memory (B, 2 width, H/4, W/4), and of the last given frame itself (B, 3, H, W) and its features."""

    memory: Tensor
    reference: Tensor
    reference_features: Tensor


class ConvSVG(nn.Module):
    """A conditional VAE whose memory is a map that steps under the conditions and a latent, never seeing own frames.

    s_t = GRU(s_{t-1}, map of (action_{t-1}, positions t-1 and t, z_t)); x^_t = m_t * x_given + (1 - m_t) * drawn_t,
    both decoded from s_t. The frames do not depend on each other, so a clip is decoded at once. The prior of z_t given
    s_{t-1} and the conditions is learned, or N(0, I); q also sees x_t. A share of the training clips is rolled out from
    the prior's means with the reconstruction loss alone (the hybrid objective of Sohn et al. 2015), so that the path
    used at test is a path that was trained.
    """

    autoregressive = True
    context = 1

    def __init__(self, config: ConvConfig, *, height: int, width: int, loss: str) -> None:
        super().__init__()
        channels, num_conditions = config.width, NUM_ACTION + 2 * NUM_POSITION
        self.config, self.num_given = config, config.num_given
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
        """Returns action and position of the frame before, and the own position, (B, T + 2, 7) -> (B, T, 10)."""
        return torch.cat([conditions[:, :-2], conditions[:, 1:-1, NUM_ACTION:]], dim=2)

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
        """Returns the loss of a batch of clips; the frames after the given ones are predicted, and none is fed back."""
        num_given, num_predicted = self.num_given, batch.frames.shape[1] - self.num_given
        features, maps = self._encode(batch.frames)
        state = self._start(batch.frames[:, :num_given], features, maps, batch.conditions[:, :num_given])
        conditions = self.encode_conditions(with_context(batch.conditions, self.context))[:, num_given:]
        informed = (draws.uniform("prior", 1) >= self.config.prior_probability).float()
        noise = draws.normal("latent", (num_predicted, *self.latent_shape))
        memory, memories, divergences = state.memory, [], []
        for t in range(num_predicted):
            prior_mean, prior_log_variance = self._prior(memory, conditions[:, t])
            mean, log_variance = self._posterior(memory, conditions[:, t], maps[:, num_given + t])
            sample = reparameterise(mean, log_variance, noise[:, t])
            memory = self._advance(memory, conditions[:, t], prior_mean + informed * (sample - prior_mean))
            memories.append(memory)
            divergences.append(kl_between(mean, log_variance, prior_mean, prior_log_variance))
        references, reference_features = (
            part[:, None].expand(-1, num_predicted, -1, -1, -1).flatten(0, 1)
            for part in (state.reference, state.reference_features)
        )
        flat = torch.stack(memories, 1).flatten(0, 1), conditions.flatten(0, 1)
        drawn = self._decode(*flat, references, reference_features).unflatten(0, (len(memory), num_predicted))
        reconstruction = self.reconstruction(drawn, batch.frames[:, num_given:])
        return clip_loss(reconstruction, torch.stack(divergences, 1), kl_weight * informed)

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
