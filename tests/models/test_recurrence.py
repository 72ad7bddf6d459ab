"""If drawn frames are fed back, the loss equals the error of `step`, frame by frame, with the same latents."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from src.base.randomness import Draws
from src.dataset import Batch, with_context
from src.maths.losses import LOG_VARIANCE_BOUNDS, bound_log_variance
from src.models.interface import build_model
from src.models.svg import SVG
from src.pushing.data import PushingBatch
from tests.conftest import frame_size, random_batch, roughen, tiny_config

NUM_FRAMES = 4
VARIANTS = {  # {name of the variant: (name of the model, settings)}
    "lab_cvae": ("lab_cvae", {}),
    "reference_cvae": ("reference_cvae", {"previous_frame": True, "prior_probability": 0.0}),
    "svg": ("svg", {"num_given": 1}),
    "svg, learned prior": ("svg", {"num_given": 1, "prior": "learned"}),
    "svg, skips of the given frame": ("svg", {"num_given": 1, "last_frame_skip": False}),
}


def draws() -> Draws:
    return Draws(seed=0, step=4, clips=range(2), device=torch.device("cpu"))


def sampled(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns the posterior's sample with the noise of the loss."""
    return mean + (log_variance / 2).exp() * draws().normal("latent", tuple(mean.shape[1:]))


def noise_of(model: SVG, state: object, latent: Tensor) -> Tensor:
    """Returns the noise for which the prior's sample is this latent."""
    if model.prior is None:
        return latent
    mean, raw, _ = model.prior(state.features, state.prior)
    return (latent - mean) * (-bound_log_variance(raw, *LOG_VARIANCE_BOUNDS) / 2).exp()


def posterior_of_svg(model: SVG, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and log variance of the latents of frames 1, 2, ..., from an LSTM on the frames so far."""
    memory, means, log_variances = model.posterior.start(model.encoder(frames[:, 0])[0]), [], []
    for frame in frames[:, 1:].unbind(1):
        mean, raw, memory = model.posterior(model.encoder(frame)[0], memory)
        means.append(mean)
        log_variances.append(bound_log_variance(raw, *LOG_VARIANCE_BOUNDS))
    return torch.stack(means, 1), torch.stack(log_variances, 1)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_the_loss_of_a_clip_is_that_of_its_steps(variant: str) -> None:
    name, settings = VARIANTS[variant]
    torch.manual_seed(0)
    model = build_model(tiny_config(name, model=settings, window=NUM_FRAMES, loss="mse"), **frame_size(name))
    roughen(model)
    batch = random_batch(model, NUM_FRAMES)
    if isinstance(batch, Batch):
        pose = batch.poses[:, model.context]
        batch = replace(batch, reference=batch.frames[:, 0], reference_pose=pose)
        conditions, state = model.encode_conditions(batch.poses), model.start(batch.frames[:, :1], pose[:, None])
        latents = sampled(*model.posterior(batch.frames[:, 1:], conditions[:, 1:], state))
    else:
        assert isinstance(batch, PushingBatch)
        conditions = model.encode_conditions(with_context(batch.conditions, model.context))
        state = model.start(batch.frames[:, :1], batch.conditions[:, :1])
        latents = sampled(*posterior_of_svg(model, batch.frames))
    errors = []
    for t in range(1, NUM_FRAMES):
        latent = latents[:, t - 1]
        noise = noise_of(model, state, latent) if isinstance(model, SVG) else latent
        frame, state = model.step(state, conditions[:, t], noise)
        errors.append(((frame - batch.frames[:, t]) ** 2).mean())
    loss = model(batch, draws(), kl_weight=0.0, teacher_forcing_ratio=0.0)
    assert loss.reconstruction.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)
    forced = model(batch, draws(), kl_weight=0.0, teacher_forcing_ratio=1.0)
    assert forced.reconstruction.item() != pytest.approx(loss.reconstruction.item(), rel=1e-5)
