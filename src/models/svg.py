"""Stochastic Video Generation (Denton & Fergus 2018) with actions: one step, and the loss of a clip."""

from typing import NamedTuple

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


class SVGState(NamedTuple):
    """The LSTMs' states, the features of the previous frame (B, num_features), and the skips for the decoder."""

    predictor: Hidden
    prior: Hidden
    features: Tensor
    skips: Skips


class SVG(nn.Module):
    """SVG-FP (prior "fixed") and SVG-LP (prior "learned"): an LSTM predicts the features of the next frame.

    h_t = encoder(x_t);
    z_t ~ q(z_t | h_1..t) in training, else p(z_t) = N(0, I) or p(z_t | h_0..t-1);
    g_t = LSTM(h_{t-1}, z_t, action_{t-1}, position_{t-1});
    x^_t = decoder(g_t, skips).
    """

    recurrent = True
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
        size = config.num_features
        hidden = config.num_hidden
        self.config = config
        self.num_given = config.num_given
        self.reconstruction = RECONSTRUCTIONS[loss]
        self.latent_shape: tuple[int, ...] = (config.num_latents,)
        self.encoder = FrameEncoder(config.width, size)
        self.decoder = FrameDecoder(config.width, size)
        self.predictor = FramePredictor(size + config.num_latents + num_action + num_position, hidden, size)
        self.posterior = GaussianLSTM(size, hidden, config.num_latents)
        self.prior = GaussianLSTM(size, hidden, config.num_latents) if config.prior == "learned" else None

    def encode_conditions(self, conditions: Tensor) -> Tensor:
        """Returns action and position of each frame's previous frame, (B, T + 2, 7) -> (B, T, 7)."""
        return conditions[:, :-2]

    def start(self, given: Tensor, given_conditions: Tensor) -> SVGState:
        """Returns the state after the given frames. Their latents are the means of the posterior."""
        features, skips = self._encode(given)
        state = self._blank(features, skips)
        remembered = self.posterior.start(state.features)
        for t in range(1, self.num_given):
            mean, _, remembered = self.posterior(features[:, t], remembered)
            *_, state = self._prior(state)
            _, state = self._advance(state, given_conditions[:, t - 1], mean)
            state = state._replace(features=features[:, t], skips=_at(skips, t))
        return state

    def step(self, state: SVGState, condition: Tensor, noise: Tensor) -> tuple[Tensor, SVGState]:
        """Returns the next frame (B, 3, 64, 64) in [0, 1] and the state after it."""
        mean, log_variance, state = self._prior(state)
        output, state = self._advance(state, condition, reparameterise(mean, log_variance, noise))
        frame = self.decoder(output, state.skips)
        return frame, self._see(state, *self.encoder(frame))

    def forward(self, batch: PushingBatch, draws: Draws, *, kl_weight: float, teacher_forcing_ratio: float) -> ClipLoss:
        """Returns the loss of a batch of clips. Frames 1..T-1 are predicted, the given ones always from true frames."""
        frames = batch.frames
        num_predicted = frames.shape[1] - 1
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
        predicted, prior_mean, prior_log_variance = self._predict(features, skips, conditions, latents, truth_fed)
        divergence = kl_between(*(part.flatten(0, 1) for part in (mean, log_variance, prior_mean, prior_log_variance)))
        return clip_loss(
            self.reconstruction(predicted, frames[:, 1:]), divergence.unflatten(0, mean.shape[:2]), kl_weight
        )

    def _predict(
        self, features: Tensor, skips: Skips, conditions: Tensor, latents: Tensor, truth_fed: list[bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the predicted frames (B, T, 3, 64, 64), and the prior's means and log variances (B, T, num_latents).

        A step sees the true frame t if truth_fed[t] is set, else the predicted frame. If all steps see true frames, all
        frames are decoded at once.
        """
        at_once = all(truth_fed)
        state = self._blank(features, skips)
        outputs: list[Tensor] = []
        frames: list[Tensor] = []
        means: list[Tensor] = []
        log_variances: list[Tensor] = []
        for t, true in enumerate(truth_fed):
            if 0 < t < self.num_given:
                state = state._replace(features=features[:, t], skips=_at(skips, t))
            elif t:
                seen = (features[:, t], _at(skips, t)) if true else self.encoder(frames[-1])
                state = self._see(state, *seen)
            mean, log_variance, state = self._prior(state)
            output, state = self._advance(state, conditions[:, t], latents[:, t])
            outputs.append(output)
            means.append(mean)
            log_variances.append(log_variance)
            if not at_once:
                frames.append(self.decoder(output, state.skips))
        predicted = self._decode_at_once(outputs, skips) if at_once else torch.stack(frames, 1)
        return predicted, torch.stack(means, 1), torch.stack(log_variances, 1)

    def _decode_at_once(self, outputs: list[Tensor], skips: Skips) -> Tensor:
        """Returns the frames (B, T, 3, 64, 64) of a clip in which every step has seen a true frame."""
        num_frames = len(outputs)
        last = num_frames if self.config.last_frame_skip else self.num_given
        times = [min(t, last - 1) for t in range(num_frames)]
        flat = torch.stack(outputs, 1).flatten(0, 1)
        drawn = self.decoder(flat, tuple(skip[:, times].flatten(0, 1) for skip in skips))
        return drawn.unflatten(0, (len(outputs[0]), num_frames))

    def _encode(self, frames: Tensor) -> tuple[Tensor, Skips]:
        """Returns features (B, T, num_features) and skips (B, T, C, H, W) of whole clips."""
        features, skips = self.encoder(frames.flatten(0, 1))
        shape = frames.shape[:2]
        return features.unflatten(0, shape), tuple(skip.unflatten(0, shape) for skip in skips)

    def _blank(self, features: Tensor, skips: Skips) -> SVGState:
        """Returns the state after the first frame, from the features and skips of whole clips."""
        first = features[:, 0]
        prior = self.prior.start(first) if self.prior is not None else ()
        return SVGState(self.predictor.start(first), prior, first, _at(skips, 0))

    def _prior(self, state: SVGState) -> tuple[Tensor, Tensor, SVGState]:
        """Returns mean and log variance of z_t given the previous frames, (B, num_latents), and the next state."""
        if self.prior is None:
            zeros = torch.zeros(len(state.features), *self.latent_shape, device=state.features.device)
            return zeros, zeros, state
        mean, raw, hidden = self.prior(state.features, state.prior)
        return mean, bound_log_variance(raw, *LOG_VARIANCE_BOUNDS), state._replace(prior=hidden)

    def _advance(self, state: SVGState, condition: Tensor, latent: Tensor) -> tuple[Tensor, SVGState]:
        """Returns g_t (B, num_features), the features of frame t for the decoder, and the next state."""
        output, hidden = self.predictor(torch.cat([state.features, latent, condition], 1), state.predictor)
        return output, state._replace(predictor=hidden)

    def _see(self, state: SVGState, features: Tensor, skips: Skips) -> SVGState:
        """Returns the state after a frame, true or drawn, that comes after the given frames."""
        return state._replace(features=features, skips=skips if self.config.last_frame_skip else state.skips)

    def _posterior_over_time(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance of q(z_t | x_1..t), each (B, T, num_latents), from features (B, T, ...)."""
        state = self.posterior.start(features[:, 0])
        means: list[Tensor] = []
        raws: list[Tensor] = []
        for now in features.unbind(1):
            mean, raw, state = self.posterior(now, state)
            means.append(mean)
            raws.append(raw)
        return torch.stack(means, 1), bound_log_variance(torch.stack(raws, 1), *LOG_VARIANCE_BOUNDS)


def _at(skips: Skips, time: int) -> Skips:
    """Returns the skips of one frame, (B, C, H, W), from those of whole clips, (B, T, C, H, W)."""
    return tuple(maps[:, time] for maps in skips)
