"""The SVG models: sizes by hand, loss compared with slow loops, feedback of frames, effect of latent and prior."""

import pytest
import torch
from torch import Tensor

from src.base.randomness import Draws
from src.dataset import with_context
from src.evaluation.rollout import rollout
from src.intake.facts import NUM_ACTION
from src.maths.losses import LOG_VARIANCE_BOUNDS, bound_log_variance
from src.models.configs import ConvSVGConfig, SVGConfig, TeacherForcingConfig
from src.models.conv_svg import ConvSVG
from src.models.svg import SVG
from src.pushing.data import PushingBatch
from tests.conftest import random_batch, roughen


def svg(**settings: object) -> SVG:
    torch.manual_seed(0)
    config = SVGConfig(**({"width": 8, "num_features": 32, "num_latents": 4, "num_hidden": 16} | settings))
    model = SVG(config, height=64, width=64, loss="mse")
    roughen(model)
    return model


def conv(**settings: object) -> ConvSVG:
    torch.manual_seed(0)
    model = ConvSVG(ConvSVGConfig(**({"width": 8, "num_latents": 4} | settings)), height=32, width=64, loss="mse")
    roughen(model)
    return model


def clip(num_frames: int = 6, height: int = 64) -> PushingBatch:
    batch = random_batch(svg(), num_frames)
    assert isinstance(batch, PushingBatch)
    return PushingBatch(batch.frames[..., :height, :], batch.conditions)


def draws() -> Draws:
    return Draws(seed=0, step=4, clips=range(2), device=torch.device("cpu"))


def gaussian_kl(mean_q: Tensor, log_variance_q: Tensor, mean_p: Tensor, log_variance_p: Tensor) -> Tensor:
    """Returns the KL divergence, summed over the latent, by torch.distributions."""
    q, p = (
        torch.distributions.Normal(mean, (0.5 * log_variance).exp())
        for mean, log_variance in ((mean_q, log_variance_q), (mean_p, log_variance_p))
    )
    return torch.distributions.kl_divergence(q, p).sum(-1)


def test_the_published_network_has_the_size_that_its_layers_add_up_to() -> None:
    def layer(a: int, b: int, size: int = 3) -> int:
        return size * size * a * b + b + 2 * b  # convolution, bias, scale and offset of the norm

    down = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512)]
    down += [(512, 512), (512, 512)]
    up = [(1024, 512), (512, 512), (512, 256), (512, 256), (256, 256), (256, 128), (256, 128), (128, 64), (128, 64)]
    encoder = sum(layer(a, b) for a, b in down) + layer(512, 128, size=4)
    decoder = layer(128, 512, size=4) + sum(layer(a, b) for a, b in up) + 3 * 3 * 64 * 3 + 3
    cell = 4 * 256 * (256 + 256 + 2)
    predictor = (128 + 64 + 7 + 1) * 256 + 2 * cell + (256 + 1) * 128
    gaussian = (128 + 1) * 256 + cell + (256 + 1) * 2 * 64
    expected = {"fixed": encoder + decoder + predictor + gaussian}
    expected["learned"] = expected["fixed"] + gaussian
    for prior, size in expected.items():
        model = SVG(SVGConfig(prior=prior), height=64, width=64, loss="mse")
        assert sum(parameter.numel() for parameter in model.parameters()) == size
    assert expected == {"fixed": 22_241_283, "learned": 22_833_539}


@torch.no_grad()
def slow_loss(model: SVG, batch: PushingBatch, ratio: float) -> tuple[Tensor, Tensor]:
    """Returns reconstruction and KL of a clip from a simple loop over frames, which encodes each true frame twice."""
    random, num_given = draws(), model.num_given
    coin = random.shared_uniform("teacher_forcing", batch.frames.shape[1] - 1) < ratio
    noise = random.normal("latent", (batch.frames.shape[1] - 1, *model.latent_shape))
    first = model.encoder(batch.frames[:, 0])[0]
    remembered, predictor = model.posterior.start(first), model.predictor.start(first)
    prior_state = model.prior.start(first) if model.prior is not None else None
    errors, divergences, frame, skips = [], [], batch.frames[:, 0], None
    for t in range(1, batch.frames.shape[1]):
        before = batch.frames[:, t - 1] if t - 1 < num_given or coin[t - 1] else frame
        features, new_skips = model.encoder(before)
        if model.config.last_frame_skip or t - 1 < num_given:
            skips = new_skips
        mean, raw, remembered = model.posterior(model.encoder(batch.frames[:, t])[0], remembered)
        log_variance = bound_log_variance(raw, *LOG_VARIANCE_BOUNDS)
        prior_mean = prior_log_variance = torch.zeros_like(mean)
        if prior_state is not None:
            assert model.prior is not None
            prior_mean, raw, prior_state = model.prior(features, prior_state)
            prior_log_variance = bound_log_variance(raw, *LOG_VARIANCE_BOUNDS)
        latent = mean + (0.5 * log_variance).exp() * noise[:, t - 1]
        inputs = torch.cat([features, latent, batch.conditions[:, t - 1]], dim=1)
        output, predictor = model.predictor(inputs, predictor)
        frame = model.decoder(output, skips)
        errors.append(((frame - batch.frames[:, t]) ** 2).mean())
        divergences.append(gaussian_kl(mean, log_variance, prior_mean, prior_log_variance).mean())
    return torch.stack(errors), torch.stack(divergences)


@pytest.mark.parametrize("prior", ["fixed", "learned"])
@pytest.mark.parametrize("last_frame_skip", [True, False])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_svg_loss_equals_a_slow_loop(prior: str, last_frame_skip: bool, ratio: float) -> None:
    model, batch = svg(prior=prior, last_frame_skip=last_frame_skip), clip()
    errors, divergences = slow_loss(model, batch, ratio)
    loss = model(batch, draws(), kl_weight=0.3, teacher_forcing_ratio=ratio)
    assert loss.reconstruction.item() == pytest.approx(errors.mean().item(), rel=1e-5)
    assert loss.kl.item() == pytest.approx(divergences.mean().item(), rel=1e-5)
    assert loss.total.item() == pytest.approx((errors.sum() + 0.3 * divergences.sum()).item(), rel=1e-5)


def test_one_coin_can_hold_for_a_whole_clip() -> None:
    batch, per_step = clip(), svg()
    whole = svg(teacher_forcing=TeacherForcingConfig(coin="batch"))
    tossed = draws().shared_uniform("teacher_forcing", 5)
    above, below = tossed[0].item() + 1e-6, tossed[0].item() - 1e-6
    losses = [whole(batch, draws(), kl_weight=0.0, teacher_forcing_ratio=ratio).total for ratio in (above, below)]
    always, never = (per_step(batch, draws(), kl_weight=0.0, teacher_forcing_ratio=ratio).total for ratio in (1.0, 0.0))
    assert torch.allclose(losses[0], always)
    assert torch.allclose(losses[1], never)


@pytest.mark.parametrize("last_frame_skip", [True, False])
@torch.no_grad()
def test_a_rollout_sees_its_own_frames_and_the_prior(last_frame_skip: bool) -> None:
    model, batch = svg(prior="learned", last_frame_skip=last_frame_skip), clip()
    noise = torch.randn(2, 6, *model.latent_shape)
    drawn = rollout(model, batch.frames[:, :2], batch.conditions, noise)
    features, skips = zip(*(model.encoder(frame) for frame in batch.frames[:, :2].unbind(1)), strict=True)
    mean, _, _ = model.posterior(features[1], model.posterior.start(features[1]))
    assert model.prior is not None
    _, _, prior_state = model.prior(features[0], model.prior.start(features[0]))
    inputs = torch.cat([features[0], mean, batch.conditions[:, 0]], dim=1)
    _, predictor = model.predictor(inputs, model.predictor.start(inputs))
    before, skip = features[1], skips[1]
    for t in range(2, 6):
        prior_mean, raw, prior_state = model.prior(before, prior_state)
        latent = prior_mean + (0.5 * raw).exp() * noise[:, t]
        output, predictor = model.predictor(torch.cat([before, latent, batch.conditions[:, t - 1]], dim=1), predictor)
        frame = model.decoder(output, skip)
        assert torch.allclose(drawn[:, t], frame, atol=1e-4)
        before, new_skip = model.encoder(frame)
        skip = new_skip if last_frame_skip else skip


def test_svg_gradient_reaches_every_parameter() -> None:
    for model in (svg(prior="learned"), conv(prior_probability=0.0)):
        batch = clip(height=64 if isinstance(model, SVG) else 32)
        model(batch, draws(), kl_weight=1.0, teacher_forcing_ratio=0.0).total.backward()
        silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert silent == []


@torch.no_grad()
def test_conv_loss_from_the_prior_alone_is_the_error_of_a_rollout_from_its_mean() -> None:
    model, batch = conv(prior_probability=1.0), clip(height=32)
    drawn = rollout(model, batch.frames[:, :2], batch.conditions, torch.zeros(2, 6, *model.latent_shape))
    loss = model(batch, draws(), kl_weight=9.0, teacher_forcing_ratio=0.0)
    error = ((drawn - batch.frames)[:, 2:] ** 2).mean()
    assert loss.reconstruction.item() == pytest.approx(error.item(), rel=1e-5)
    assert loss.total.item() == pytest.approx(4 * error.item(), rel=1e-5)
    assert loss.kl > 0


@pytest.mark.parametrize("prior_probability", [0.0, 0.5])
@pytest.mark.parametrize("prior", ["fixed", "learned"])
@torch.no_grad()
def test_conv_loss_equals_a_slow_loop(prior: str, prior_probability: float) -> None:
    """A loop over frames. q sees the predicted frame, p does not. Clips drawn from the prior mean have no KL loss."""
    model, batch, random = conv(prior=prior, prior_probability=prior_probability), clip(height=32), draws()
    loss = model(batch, random, kl_weight=0.3, teacher_forcing_ratio=0.0)
    known = with_context(batch.conditions, 1)
    conditions = torch.cat([known[:, :-2], known[:, 1:-1, NUM_ACTION:]], dim=2)  # previous action, both positions
    state = model.start(batch.frames[:, :2], batch.conditions[:, :2])
    noise, posterior_sampled = random.normal("latent", (4, 4)), random.uniform("prior", 1) >= prior_probability
    errors, divergences, memory = [], [], state.memory
    for t in range(2, 6):
        pooled = torch.cat([memory, model.encoder(batch.frames[:, t])[1]], dim=1).mean(dim=(2, 3))
        mean, raw = model.posterior(torch.cat([pooled, conditions[:, t]], dim=1))
        log_variance = bound_log_variance(raw, *LOG_VARIANCE_BOUNDS)
        prior_mean, prior_log_variance = torch.zeros_like(mean), torch.zeros_like(mean)
        if model.prior is not None:
            prior_mean, raw = model.prior(torch.cat([memory.mean(dim=(2, 3)), conditions[:, t]], dim=1))
            prior_log_variance = bound_log_variance(raw, *LOG_VARIANCE_BOUNDS)
        divergences.append(gaussian_kl(mean, log_variance, prior_mean, prior_log_variance))
        sample = mean + (log_variance / 2).exp() * noise[:, t - 2]
        latent = torch.where(posterior_sampled, sample, prior_mean)
        memory = model.transition(memory, model.controls(torch.cat([conditions[:, t], latent], dim=1)))
        colours = model.decoder(memory, state.reference_features, model.places(conditions[:, t]))
        drawn, kept = colours[:, :3], colours[:, 3:]
        errors.append(((kept * batch.frames[:, 1] + (1 - kept) * drawn - batch.frames[:, t]) ** 2).mean(dim=(1, 2, 3)))
    error, divergence = torch.stack(errors, dim=1), torch.stack(divergences, dim=1)
    assert loss.reconstruction.item() == pytest.approx(error.mean().item(), rel=1e-5)
    assert loss.kl.item() == pytest.approx(divergence.mean().item(), rel=1e-4)
    total = (error + 0.3 * posterior_sampled * divergence).mean(dim=0).sum()
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-4)
    assert divergence.mean() > 1e-4 and (prior_probability == 0.0) == bool(posterior_sampled.all())


@torch.no_grad()
def test_a_conv_rollout_depends_on_conditions_and_latents() -> None:
    model, batch = conv(), clip(height=32)
    quiet = torch.zeros(2, 6, *model.latent_shape)
    drawn = rollout(model, batch.frames[:, :2], batch.conditions, quiet)
    later = batch.conditions.clone()
    later[:, 3, :4] += 1  # the action of frame 3 changes frame 4 and later frames
    moved = rollout(model, batch.frames[:, :2], later, quiet)
    assert torch.equal(moved[:, :4], drawn[:, :4])
    assert not torch.allclose(moved[:, 4], drawn[:, 4], atol=1e-4)
    placed = batch.conditions.clone()
    placed[:, 3, 4:] += 1  # the position of frame 3 changes frame 3
    assert not torch.allclose(rollout(model, batch.frames[:, :2], placed, quiet)[:, 3], drawn[:, 3], atol=1e-4)
    noisy = rollout(model, batch.frames[:, :2], batch.conditions, quiet + 1)
    assert not torch.allclose(noisy[:, 2], drawn[:, 2], atol=1e-4)


def test_conv_keeps_the_given_frame_where_its_mask_says_so() -> None:
    model, batch = conv(), clip(height=32)
    with torch.no_grad():
        convolution = model.decoder.head[2]
        convolution.weight[12:] = 0  # the four channels of the mask, before the pixel shuffle
        convolution.bias[12:] = 50
    drawn = rollout(model, batch.frames[:, :2], batch.conditions, torch.zeros(2, 6, *model.latent_shape))
    assert torch.allclose(drawn[:, 2:], batch.frames[:, 1:2].expand(-1, 4, -1, -1, -1))
