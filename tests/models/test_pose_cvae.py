"""The pose CVAEs: sizes, loss compared with a slow loop, teacher forcing, effect of the latent, initial output."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from src.base.randomness import Draws
from src.dataset import Batch
from src.models.configs import LabCVAEConfig, ReferenceCVAEConfig, TeacherForcingConfig
from src.models.lab_cvae import LabCVAE
from src.models.reference_cvae import ReferenceCVAE
from tests.conftest import roughen

HEIGHT, WIDTH = 8, 16


def lab(**settings: object) -> LabCVAE:
    torch.manual_seed(0)
    return LabCVAE(LabCVAEConfig(**settings), height=HEIGHT, width=WIDTH, loss="mse")


def reference(**settings: object) -> ReferenceCVAE:
    torch.manual_seed(0)
    config = ReferenceCVAEConfig(
        **{"width": 8, "patch": 2, "num_levels": 2, "num_blocks": 1, "num_latents": 3} | settings
    )
    return ReferenceCVAE(config, height=HEIGHT, width=WIDTH, loss="log_mse")


def batch(num_frames: int, context: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(1)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, 3, HEIGHT, WIDTH, generator=generator)

    return Batch(rand(2, num_frames), rand(2, num_frames + 2 * context), rand(2), rand(2))


def draws() -> Draws:
    return Draws(seed=0, step=4, clips=range(2), device=torch.device("cpu"))


def test_lab_model_has_the_published_size() -> None:
    assert sum(p.numel() for p in lab().parameters()) == 1_585_620


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.5])
def test_lab_loss_equals_a_slow_loop(ratio: float) -> None:
    model, clip, random = lab(teacher_forcing=TeacherForcingConfig(coin="step")), batch(5), draws()
    loss = model(clip, random, kl_weight=0.3, teacher_forcing_ratio=ratio)
    coin = random.shared_uniform("teacher_forcing", 4) < ratio
    noise = random.normal("latent", (4, *model.latent_shape))
    reconstructions, divergences = [], []
    with torch.no_grad():
        fed = clip.frames[:, 0]
        for t in range(1, 5):
            if coin[t - 1]:
                fed = clip.frames[:, t - 1]
            pose = model.pose_encoder(clip.poses[:, t])
            joined = torch.cat([model.frame_encoder(clip.frames[:, t]), pose], dim=1)
            mean, raw = model.gaussian_predictor(joined).chunk(2, dim=1)
            log_variance = raw.clamp(-12, 8)  # far from its limits the smooth bound is the identity
            z = mean + log_variance.exp().sqrt() * noise[:, t - 1]
            fused = model.decoder_fusion(torch.cat([model.frame_encoder(fed), pose, z], dim=1))
            fed = torch.sigmoid(model.generator(fused))
            reconstructions.append(((fed - clip.frames[:, t]) ** 2).mean())
            divergences.append((0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)).flatten(1).sum(1).mean())
    expected = sum(reconstructions) + 0.3 * sum(divergences)
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-3)
    assert loss.reconstruction.item() == pytest.approx(torch.stack(reconstructions).mean().item(), rel=1e-4)
    assert loss.kl.item() == pytest.approx(torch.stack(divergences).mean().item(), rel=1e-3)


def test_lab_output_is_bounded_only_where_asked() -> None:
    state, condition = torch.randn(1, 128, HEIGHT, WIDTH) * 3, torch.randn(1, 32, HEIGHT, WIDTH) * 3
    latent = torch.randn(1, 12, HEIGHT, WIDTH) * 3
    with torch.no_grad():
        bounded, unbounded = lab(), lab(bounded_output=False)
        unbounded.load_state_dict(bounded.state_dict())
        frame, raw = bounded.decode(state, condition, latent), unbounded.decode(state, condition, latent)
    assert frame.min() >= 0
    assert frame.max() <= 1
    assert torch.allclose(frame, raw.sigmoid())


def test_reference_model_starts_halfway_between_reference_and_grey() -> None:
    model = reference()
    state = model.start(torch.rand(2, 1, 3, HEIGHT, WIDTH), torch.rand(2, 1, 3, HEIGHT, WIDTH))
    conditions = model.encode_conditions(torch.rand(2, 3, 3, HEIGHT, WIDTH))
    frame, after = model.step(state, conditions[:, 0], torch.zeros(2, *model.latent_shape))
    assert torch.allclose(frame, 0.5 * state[:, :3] + 0.25)
    assert after is state


def test_conditions_hold_the_poses_around_a_frame() -> None:
    poses = torch.rand(1, 6, 3, HEIGHT, WIDTH)
    conditions = reference(pose_window=2).encode_conditions(poses)
    assert conditions.shape == (1, 2, 15, HEIGHT, WIDTH)
    for time in range(2):
        for offset in range(5):
            assert torch.equal(conditions[0, time, 3 * offset : 3 * offset + 3], 1 - poses[0, time + offset])


def test_reference_loss_from_the_prior_alone_ignores_the_kl_weight() -> None:
    model, clip = reference(prior_probability=1.0), batch(2, context=1)
    light, heavy = (model(clip, draws(), kl_weight=weight, teacher_forcing_ratio=0.0) for weight in (0.0, 9.0))
    assert light.total.item() == heavy.total.item()


@pytest.mark.parametrize("latent_map", [False, True])
def test_reference_gradient_reaches_every_parameter(latent_map: bool) -> None:
    model, clip = reference(prior_probability=0.0, latent_map=latent_map), batch(2, context=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    model(clip, draws(), kl_weight=1.0, teacher_forcing_ratio=0.0).total.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_the_posterior_sees_the_frame_its_own_pose_and_the_reference() -> None:
    model = reference(pose_window=1)
    state, frames = torch.rand(1, 6, HEIGHT, WIDTH), torch.rand(1, 1, 3, HEIGHT, WIDTH)
    before, own, after = torch.rand(3, 1, 1, 3, HEIGHT, WIDTH).unbind(0)

    def mean(frames: torch.Tensor, *poses: torch.Tensor, state: torch.Tensor = state) -> torch.Tensor:
        return model.posterior(frames, torch.cat(poses, dim=2), state)[0]

    usual = mean(frames, before, own, after)
    assert torch.equal(usual, mean(frames, after, own, before)), "the poses beside its own are not for it"
    changed = [
        mean(1 - frames, before, own, after),
        mean(frames, before, 1 - own, after),
        *(mean(frames, before, own, after, state=state.index_fill(1, torch.tensor(part), 0.5)) for part in (0, 3)),
    ]
    assert min((usual - other).abs().max() for other in changed) > 1e-4


def test_reference_loss_by_hand() -> None:
    model, clip = reference(prior_probability=0.0), batch(2, context=1)
    loss = model(clip, draws(), kl_weight=0.5, teacher_forcing_ratio=0.0)
    drawn = (0.5 * clip.reference + 0.25)[:, None]  # the initial output of the model
    expected = torch.log(((drawn - clip.frames) ** 2).mean(dim=(2, 3, 4)) + 1e-5).mean()
    assert loss.reconstruction.item() == pytest.approx(expected.item(), rel=1e-5)
    state = model.start(clip.reference[:, None], clip.reference_pose[:, None])
    mean, log_variance = model.posterior(clip.frames, model.encode_conditions(clip.poses), state)
    posterior = Normal(mean, (log_variance / 2).exp())
    kl = kl_divergence(posterior, Normal(torch.zeros(()), torch.ones(()))).sum(dim=(2, 3, 4)).mean().item()
    assert loss.kl.item() == pytest.approx(kl, rel=1e-4)
    assert loss.total.item() == pytest.approx(2 * (expected.item() + 0.5 * kl), rel=1e-4)


@pytest.mark.parametrize(("latent_map", "places"), [(False, 1), (True, HEIGHT // 4 * (WIDTH // 4))])
@torch.no_grad()
def test_the_divergence_of_a_frame_is_the_sum_over_its_latents(latent_map: bool, places: int) -> None:
    model, clip = reference(prior_probability=0.0, latent_map=latent_map), batch(2, context=1)
    roughen(model)
    state = model.start(clip.reference[:, None], clip.reference_pose[:, None])
    mean, log_variance = model.posterior(clip.frames, model.encode_conditions(clip.poses), state)
    assert mean[0, 0].numel() == 3 * places
    prior = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
    divergence = torch.distributions.kl_divergence(torch.distributions.Normal(mean, (log_variance / 2).exp()), prior)
    expected = divergence.sum(dim=(2, 3, 4)).mean().item()
    loss = model(clip, draws(), kl_weight=0.5, teacher_forcing_ratio=0.0)
    assert loss.kl.item() == pytest.approx(expected, rel=1e-4)
    assert expected > 1e-3


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
@torch.no_grad()
def test_the_autoregressive_variant_sees_the_previous_frame(ratio: float) -> None:
    model, clip, random = reference(previous_frame=True, prior_probability=1.0), batch(5, context=1), draws()
    roughen(model)
    loss = model(clip, random, kl_weight=0.0, teacher_forcing_ratio=ratio)
    coin = random.shared_uniform("teacher_forcing", 4) < ratio
    conditions = model.encode_conditions(clip.poses)
    before, errors = clip.frames[:, 0], []
    for t in range(1, 5):
        if coin[t - 1]:
            before = clip.frames[:, t - 1]
        state = torch.cat([clip.reference, 1 - clip.reference_pose, before], dim=1)
        before, after = model.step(state, conditions[:, t], torch.zeros(2, *model.latent_shape))
        assert torch.equal(after[:, 6:], before)
        errors.append(torch.log(((before - clip.frames[:, t]) ** 2).mean(dim=(1, 2, 3)) + 1e-5))
    assert loss.reconstruction.item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["mixed", "seen", "none"])
@torch.no_grad()
def test_how_much_of_the_reference_reaches_the_output(kind: str) -> None:
    model = reference(reference=kind)
    start = model.start(torch.rand(1, 1, 3, HEIGHT, WIDTH), torch.rand(1, 1, 3, HEIGHT, WIDTH))
    condition = torch.rand(1, 9, HEIGHT, WIDTH)
    fresh, _ = model.step(start, condition, torch.zeros(1, *model.latent_shape))
    untouched = 0.5 * start[:, :3] + 0.25 if kind == "mixed" else torch.full_like(fresh, 0.5)
    assert torch.allclose(fresh, untouched), "a fresh network draws grey, or mixes it with the reference"
    roughen(model)
    latent = torch.zeros(1, *model.latent_shape)
    one, other = (model.step(state, condition, latent)[0] for state in (start, start.flip(-1)))
    assert torch.equal(one, other) is (kind == "none")


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_the_patch_sets_the_resolution_inside(patch: int) -> None:
    model = reference(patch=patch)
    assert model.members[0].position.shape[1:] == (HEIGHT // patch, WIDTH // patch)
    state = model.start(torch.rand(2, 1, 3, HEIGHT, WIDTH), torch.rand(2, 1, 3, HEIGHT, WIDTH))
    frame, _ = model.step(state, torch.rand(2, 9, HEIGHT, WIDTH), torch.zeros(2, *model.latent_shape))
    assert frame.shape == (2, 3, HEIGHT, WIDTH)


@torch.no_grad()
def test_members_are_scored_alone_and_averaged_in_what_they_draw() -> None:
    pair, clip = reference(num_members=2, prior_probability=1.0), batch(2, context=1)
    roughen(pair)
    singles = []
    for number in (0, 1):
        single = reference(prior_probability=1.0)
        own = {name.replace(f"members.{number}.", "members.0."): value for name, value in pair.state_dict().items()}
        single.load_state_dict({name: own[name] for name in single.state_dict()})
        singles.append(single)
    start = pair.start(clip.reference[:, None], clip.reference_pose[:, None])
    condition, latent = pair.encode_conditions(clip.poses)[:, 0], torch.randn(2, *pair.latent_shape)
    one, other = (single.step(start, condition, latent)[0] for single in singles)
    assert not torch.allclose(one, other)
    assert torch.allclose(pair.step(start, condition, latent)[0], (one + other) / 2, atol=1e-6)
    losses = [m(clip, draws(), kl_weight=0.0, teacher_forcing_ratio=0.0).total for m in (pair, *singles)]
    assert losses[0].item() == pytest.approx((losses[1] + losses[2]).item() / 2, rel=1e-5)
