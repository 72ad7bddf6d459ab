"""The interface of every model: shapes, frames in [0, 1], a step that does not change its inputs, and the loss."""

from copy import deepcopy

import pytest
import torch

from src.base.randomness import Draws
from src.config import Config
from src.dataset import Batch
from src.models.configs import MODELS
from src.models.interface import VideoModel, build_model
from tests.conftest import POSE_MODELS, frame_size, random_batch, roughen, tiny_config


def build(name: str) -> VideoModel:
    torch.manual_seed(0)
    model = build_model(tiny_config(name), **frame_size(name))
    roughen(model)
    return model


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> VideoModel:
    return build(request.param)


def conditions_of(batch: object) -> torch.Tensor:
    """Returns the conditions with context; a batch of poses already contains the context."""
    if isinstance(batch, Batch):
        return batch.poses
    conditions = batch.conditions
    return torch.cat([conditions[:, :1], conditions, conditions[:, -1:]], dim=1)


def tensors(state: object) -> list[torch.Tensor]:
    """Returns all tensors of a state of any type."""
    if isinstance(state, torch.Tensor):
        return [state]
    parts = state if isinstance(state, tuple) else vars(state).values()
    return [tensor for part in parts for tensor in tensors(part)]


def test_the_config_names_the_model() -> None:
    known = {Config.model_validate({"model": {"name": "lab_cvae"}, "training": {"window": 2}}).model.name, *MODELS}
    assert known == set(MODELS)
    for name in MODELS:
        assert type(build(name)).__name__.lower() == name.replace("_", "")


def test_a_sequence_can_be_drawn_step_by_step(model: VideoModel) -> None:
    batch = random_batch(model, 5)
    known = conditions_of(batch)
    conditions = model.encode_conditions(known)
    assert conditions.shape[:2] == (2, 5)
    given = slice(0, model.num_given)
    noise = torch.randn(2, *model.latent_shape)
    with torch.no_grad():
        state = model.start(batch.frames[:, given], known[:, model.context : model.context + model.num_given])
        before = deepcopy(tensors(state))
        frame, after = model.step(state, conditions[:, model.num_given], noise)
        again, _ = model.step(state, conditions[:, model.num_given], noise)
        other, _ = model.step(state, conditions[:, model.num_given], noise + 1)
    assert all(torch.equal(a, b) for a, b in zip(tensors(state), before, strict=True))
    assert torch.equal(frame, again)
    assert not torch.equal(frame, other)
    assert frame.shape == batch.frames[:, 0].shape
    assert frame.min() >= 0
    assert frame.max() <= 1
    unchanged = all(torch.equal(a, b) for a, b in zip(tensors(state), tensors(after), strict=True))
    assert unchanged is not model.recurrent


@pytest.mark.parametrize("name", POSE_MODELS)
def test_the_posterior_has_the_latents_shape_and_sees_the_frame(name: str) -> None:
    model = build(name)
    batch = random_batch(model, 3)
    conditions, state = model.encode_conditions(batch.poses), model.start(batch.frames[:, :1], batch.poses[:, :1])
    with torch.no_grad():
        mean, log_variance = model.posterior(batch.frames, conditions, state)
        other, _ = model.posterior(1 - batch.frames, conditions, state)
    assert mean.shape == log_variance.shape == (2, 3, *model.latent_shape)
    assert not torch.allclose(mean, other)


def test_the_loss_of_a_clip_is_its_parts(model: VideoModel) -> None:
    batch, draws = random_batch(model, 4), Draws(seed=0, step=0, clips=range(2), device=torch.device("cpu"))
    with torch.no_grad():
        light, heavy = (model(batch, draws, kl_weight=w, teacher_forcing_ratio=0.5) for w in (0.0, 1e-3))
    num_predicted = {"ReferenceCVAE": 4, "ConvSVG": 2}.get(type(model).__name__, 3)
    assert light.total.item() == pytest.approx(num_predicted * light.reconstruction.item(), rel=1e-5)
    assert heavy.total > light.total
    assert light.kl.item() == heavy.kl.item() > 0
