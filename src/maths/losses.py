"""The loss terms of both systems, as functions of tensors.

The reductions are the same everywhere. A KL term is the **sum** over all latent elements of a frame. A squared error is
the **mean** over the C*H*W values of a frame. Only `clip_loss` combines frames and clips. These reductions decide what
a KL weight means (docs/theory.md, section 6).

Everything is computed in float32 or float64, also under autocast. In bfloat16 the exponential of a log variance would
be wrong by several percent, and a squared error of 1e-4 would be lost when it is added to 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import softplus

LOG_MSE_FLOOR = 1e-5  # the MSE of 50 dB; below it a better frame hardly lowers the loss
LOG_VARIANCE_BOUNDS = (-12.0, 8.0)


@dataclass(frozen=True)
class ClipLoss:
    """The loss that training minimises (`total`) and its parts; all are scalars.

    reconstruction: mean over pixels, predicted frames and clips.
    kl: sum over the latent elements of a frame, mean over frames and clips.
    total: reconstruction + kl_weight * kl, summed over the predicted frames and averaged over the clips, as in the lab
    template. A frame whose latent is the prior's mean has a KL weight of 0.
    """

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


def clip_loss(reconstruction: Tensor, kl: Tensor, kl_weight: float | Tensor) -> ClipLoss:
    """The loss of a batch of clips, from the reconstruction loss and the KL of each predicted frame, both (B, T).

    kl_weight: one number for all frames, or a tensor (B, T) or (B, 1).
    """
    assert reconstruction.shape == kl.shape, f"{tuple(reconstruction.shape)} against {tuple(kl.shape)}"
    total = (reconstruction.mean() + (kl_weight * kl).mean()) * reconstruction.shape[1]
    return ClipLoss(total, reconstruction.mean(), kl.mean())


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)) in nats, (B,), of (B, ...); Kingma & Welling 2014, appendix B."""
    mean = _at_least_float32(mean)
    log_variance = _at_least_float32(log_variance)
    return 0.5 * (torch.expm1(log_variance) - log_variance + mean.square()).flatten(1).sum(1)


def kl_between(mean_q: Tensor, log_variance_q: Tensor, mean_p: Tensor, log_variance_p: Tensor) -> Tensor:
    """KL(q || p) of two diagonal Gaussians in nats, (B,), of tensors (B, ...); docs/theory.md, section 3."""
    log_ratio = _at_least_float32(log_variance_q) - _at_least_float32(log_variance_p)
    distance = (_at_least_float32(mean_q) - _at_least_float32(mean_p)).square() * torch.exp(
        -_at_least_float32(log_variance_p)
    )
    return 0.5 * (torch.expm1(log_ratio) - log_ratio + distance).flatten(1).sum(1)


def mse_per_frame(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of each frame, (B, T), of two tensors (B, T, C, H, W) in [0, 1]."""
    assert prediction.shape == target.shape, f"{tuple(prediction.shape)} against {tuple(target.shape)}"
    return (_at_least_float32(prediction) - _at_least_float32(target)).square().mean(dim=(-3, -2, -1))


def log_mse_per_frame(prediction: Tensor, target: Tensor, floor: float) -> Tensor:
    """ln(MSE + floor) of each frame, (B, T), of two tensors (B, T, C, H, W) in [0, 1].

    With floor 0 it is -PSNR * ln(10) / 10, so it is the competition's measure. Times D/2, with D = C*H*W, it is the
    negative log likelihood of the optimal sigma-VAE plus a constant (Rybkin et al. 2021). The floor keeps the gradient
    of an almost perfect frame finite.
    """
    return torch.log(mse_per_frame(prediction, target) + floor)


RECONSTRUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse_per_frame,
    "log_mse": partial(log_mse_per_frame, floor=LOG_MSE_FLOOR),
}


def reparameterise(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """The sample z = mean + exp(log_variance / 2) * noise; all four have one shape, and `noise` is from N(0, I)."""
    assert mean.shape == log_variance.shape == noise.shape, f"{mean.shape}, {log_variance.shape}, {noise.shape}"
    return _at_least_float32(mean) + torch.exp(0.5 * _at_least_float32(log_variance)) * _at_least_float32(noise)


def bound_log_variance(raw: Tensor, low: float, high: float) -> Tensor:
    """A log variance in [low, high + exp(low - high)], shaped like `raw`, whose values may be any numbers.

    An unbounded log variance overflows in exp() within the first epochs and turns all weights into NaN. Two softplus
    functions bound it. The result is almost `raw` itself a few units inside the bounds. It is monotonic, and its
    gradient is not zero outside the bounds; with a clamp it would be zero, and the network could not recover.
    """
    assert low < high, f"low {low} is not below high {high}"
    below = high - softplus(high - _at_least_float32(raw))
    return low + softplus(below - low)


def elbo_consistent_kl_weight(noise_variance: float, num_values: int) -> float:
    """The KL weight 2 sigma^2 / D. With it, MSE + weight * KL is the negative ELBO times a constant, plus a constant.

    noise_variance: sigma^2 of a Gaussian decoder with pixels in [0, 1]; 10 ** (-PSNR / 10) for a calibrated model.
    num_values: D = C*H*W of one frame. The MSE is a mean over D values, the KL the sum over one frame's latent.
    Raises ValueError for numbers that are not positive.
    """
    if noise_variance <= 0 or num_values < 1:
        raise ValueError(f"needs a positive variance and at least one value, got {noise_variance} and {num_values}")
    return 2 * noise_variance / num_values


def _at_least_float32(values: Tensor) -> Tensor:
    """Returns the values as float32, or unchanged if they are float64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
