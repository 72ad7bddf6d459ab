"""Loss terms of both systems: tensors in, tensors out.

Reductions, stated once. A KL term is the **sum** over all latent elements of a frame. A squared error is the **mean**
over the C*H*W values of a frame. `clip_loss` alone puts frames and clips together. What a KL weight means follows from
these reductions (docs/theory.md, section 6).

Everything is computed in float32 or wider, also under autocast: the exponent of a bfloat16 log variance is off by
percents, and a squared error of 1e-4 disappears beside 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import softplus

LOG_MSE_FLOOR = 1e-5  # 50 dB: a frame better than that stops mattering more
LOG_VARIANCE_BOUNDS = (-12.0, 8.0)


@dataclass(frozen=True)
class ClipLoss:
    """What training minimises, and its parts; scalars.

    reconstruction: mean over pixels, predicted frames and clips. kl: summed over the latent of a frame, mean over
    frames and clips. total: (reconstruction + kl_weight * kl) summed over the predicted frames, as the lab does.
    Where a frame's latent was the prior's mean, its KL does not count in the total.
    """

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


def clip_loss(reconstruction: Tensor, kl: Tensor, kl_weight: float | Tensor) -> ClipLoss:
    """The loss of a batch of clips, from the reconstruction and the KL of each predicted frame, both (B, T).

    kl_weight: one for all, or (B, T), (B, 1).
    """
    assert reconstruction.shape == kl.shape, f"{tuple(reconstruction.shape)} against {tuple(kl.shape)}"
    total = (reconstruction.mean() + (kl_weight * kl).mean()) * reconstruction.shape[1]
    return ClipLoss(total, reconstruction.mean(), kl.mean())


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) in nats, (B,), from two (B, ...); Kingma & Welling 2014, appendix B."""
    mean, log_variance = _wide(mean), _wide(log_variance)
    return 0.5 * (torch.expm1(log_variance) - log_variance + mean.square()).flatten(1).sum(1)


def kl_between(mean_q: Tensor, log_variance_q: Tensor, mean_p: Tensor, log_variance_p: Tensor) -> Tensor:
    """KL(q || p) of two diagonal Gaussians in nats, (B,), from four (B, ...); docs/theory.md, section 3."""
    log_ratio = _wide(log_variance_q) - _wide(log_variance_p)
    distance = (_wide(mean_q) - _wide(mean_p)).square() * torch.exp(-_wide(log_variance_p))
    return 0.5 * (torch.expm1(log_ratio) - log_ratio + distance).flatten(1).sum(1)


def mse_per_frame(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each frame, (B, T), from two (B, T, C, H, W) in [0, 1]."""
    assert prediction.shape == target.shape, f"{tuple(prediction.shape)} against {tuple(target.shape)}"
    return (_wide(prediction) - _wide(target)).square().mean(dim=(-3, -2, -1))


def log_mse_per_frame(prediction: Tensor, target: Tensor, floor: float) -> Tensor:
    """Natural logarithm of (MSE + floor) of each frame, (B, T), from two (B, T, C, H, W) in [0, 1].

    With floor 0 it is -PSNR * ln(10) / 10, the competition's own measure, and D/2 times it is, up to a constant, the
    negative log likelihood of the optimal sigma-VAE (Rybkin et al. 2021). The floor keeps the gradient of
    an almost perfect frame finite: below an MSE of `floor` a frame stops mattering more.
    """
    return torch.log(mse_per_frame(prediction, target) + floor)


RECONSTRUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse_per_frame,
    "log_mse": partial(log_mse_per_frame, floor=LOG_MSE_FLOOR),
}


def reparameterise(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """A sample z = mean + exp(log_variance / 2) * noise, shaped like all three; `noise` is drawn from N(0, I)."""
    assert mean.shape == log_variance.shape == noise.shape, f"{mean.shape}, {log_variance.shape}, {noise.shape}"
    return _wide(mean) + torch.exp(0.5 * _wide(log_variance)) * _wide(noise)


def bound_log_variance(raw: Tensor, low: float, high: float) -> Tensor:
    """A log variance between `low` and `high` (within exp(low - high)), shaped like `raw`, which may be anything.

    Two softplus corners: almost the identity a few units inside the bounds, so an unbounded network keeps its
    meaning; monotonic; and with a gradient outside them too, where a clamp would leave a network stuck. An
    unbounded log variance overflows in exp() within the first epochs and turns the whole network into NaN.
    """
    assert low < high, f"low {low} is not below high {high}"
    below = high - softplus(high - _wide(raw))
    return low + softplus(below - low)


def elbo_consistent_kl_weight(noise_variance: float, num_values: int) -> float:
    """The KL weight 2 sigma^2 / D at which MSE (mean over D values) + weight * KL (sum) is the ELBO times a constant.

    `noise_variance` is sigma^2 of a Gaussian decoder with pixels in [0, 1] (10 ** (-PSNR / 10) where the model is
    calibrated), `num_values` is D = C*H*W of one frame, and the KL is that of one frame's latent.
    """
    if noise_variance <= 0 or num_values < 1:
        raise ValueError(f"needs a positive variance and a frame of values, got {noise_variance} and {num_values}")
    return 2 * noise_variance / num_values


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
