"""What every model offers: shapes, frames in [0, 1], a step that changes nothing it is given."""

import pytest
import torch

from src.dataset import Batch
from src.distributed import Draws
from src.models import Model, build_model
from tests.conftest import MODELS, roughen, tiny_config

HEIGHT, WIDTH = 8, 16


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    model = build_model(tiny_config(request.param), height=HEIGHT, width=WIDTH)
    roughen(model)
    return model


def test_the_config_names_the_model() -> None:
    for name in MODELS:
        assert type(build_model(tiny_config(name), height=HEIGHT, width=WIDTH)).__name__.lower() == name.replace(
            "_", ""
        )


def test_a_sequence_can_be_drawn_step_by_step(model: Model) -> None:
    poses = torch.rand(2, 5 + 2 * model.context, 3, HEIGHT, WIDTH)
    conditions = model.encode_conditions(poses)
    assert conditions.shape[:2] == (2, 5)
    state = model.start(torch.rand(2, 3, HEIGHT, WIDTH), poses[:, 0])
    before, latent = state.clone(), torch.randn(2, *model.latent_shape)
    with torch.no_grad():
        frame, after = model.step(state, conditions[:, 0], latent)
        again, _ = model.step(state, conditions[:, 0], latent)
    assert torch.equal(state, before)
    assert torch.equal(frame, again)
    assert frame.shape == (2, 3, HEIGHT, WIDTH)
    assert frame.min() >= 0
    assert frame.max() <= 1
    assert after.shape == state.shape
    assert torch.equal(after, state) is not model.autoregressive


def test_the_posterior_has_the_latents_shape_and_sees_the_frame(model: Model) -> None:
    frames, poses = torch.rand(2, 3, 3, HEIGHT, WIDTH), torch.rand(2, 3 + 2 * model.context, 3, HEIGHT, WIDTH)
    conditions, state = model.encode_conditions(poses), model.start(frames[:, 0], poses[:, model.context])
    with torch.no_grad():
        mean, log_variance = model.posterior(frames, conditions, state)
        other, _ = model.posterior(1 - frames, conditions, state)
    assert mean.shape == log_variance.shape == (2, 3, *model.latent_shape)
    assert not torch.allclose(mean, other)


def test_the_loss_of_a_clip_is_its_parts(model: Model) -> None:
    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, 3, HEIGHT, WIDTH)

    batch = Batch(rand(2, 4), rand(2, 4 + 2 * model.context), rand(2), rand(2))
    draws = Draws(seed=0, step=0, clips=range(2), device=torch.device("cpu"))
    with torch.no_grad():
        light, heavy = (model(batch, draws, kl_weight=w, teacher_forcing_ratio=0.5) for w in (0.0, 1e-3))
    num_predicted = 3 if model.autoregressive else 4
    assert light.total.item() == pytest.approx(num_predicted * light.reconstruction.item(), rel=1e-5)
    assert heavy.total > light.total
    assert light.kl.item() == heavy.kl.item() > 0
