"""One update of the weights that does nothing if the gradient is not finite."""

import torch
from torch import Tensor, nn


def gradient_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """Returns a scaler for a precision. In float16 small gradients would be 0 without it; elsewhere it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")


def guarded_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, *, largest_norm: float
) -> Tensor:
    """Updates the weights from scaled gradients and returns 1 if the update was skipped, else 0; a scalar, float32.

    It is skipped if the gradient is not finite. The optimiser must be a fused one.
    """
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(model.parameters(), largest_norm)
    skipped = (~torch.isfinite(norm)).to(torch.float32)
    # A fused optimiser skips its update if found_inf is 1. So the check needs no transfer from the device.
    optimizer.found_inf = skipped  # type: ignore[attr-defined]
    optimizer.step()
    scaler.update()  # a scale that was too large is halved
    return skipped
