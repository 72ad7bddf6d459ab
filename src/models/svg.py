"""Stochastic Video Generation (Denton & Fergus 2018) with actions: one step, and the loss of a clip."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
from src.maths.schedules import teacher_forcing_coin
from src.models.configs import SVGConfig
from src.models.svg_modules import (
    FrameDecoder,
    FrameEncoder,
    FramePredictor,
    GaussianLSTM,
    Hidden,
    Skips,
)
from src.pushing.data import PushingBatch


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

    def __init__(
        self,
        config: SVGConfig,
        *,
        height: int,
        width: int,
        loss: str,
        num_action: int = NUM_ACTION,
        num_position: int = NUM_POSITION,
    ) -> None:
        super().__init__()
        size, hidden = config.num_features, config.num_hidden
        self.config, self.num_given = config, config.num_given
        self.reconstruction = RECONSTRUCTIONS[loss]
        self.latent_shape: tuple[int, ...] = (config.num_latents,)
        self.encoder = FrameEncoder(config.width, size)
        self.decoder = FrameDecoder(config.width, size)
        self.predictor = FramePredictor(size + config.num_latents + num_action + num_position, hidden, size)
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
