"""Rollouts compared with a loop over frames, and means over samples and mirror images."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from src.config import EvaluationConfig
from src.dance.augmentations import mirror_poses, shift_pictures
from src.dance.prediction import predict_dance
from src.dataset import to_unit
from src.evaluation.rollout import prior_noise, rollout
from src.maths.metrics import quantise
from src.models.interface import VideoModel, build_model
from tests.conftest import POSE_MODELS, roughen, tiny_config

HEIGHT, WIDTH = 4, 8


@pytest.fixture(params=POSE_MODELS)
def model(request: pytest.FixtureRequest) -> VideoModel:
    torch.manual_seed(0)
    model = build_model(tiny_config(request.param), height=HEIGHT, width=WIDTH)
    roughen(model)
    return model


def pixels(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 256, (*shape, 3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(seed)).byte()


@torch.no_grad()
def frame_by_frame(model: VideoModel, given: Tensor, poses: Tensor, latents: Tensor) -> Tensor:
    """A rollout written as a simple loop: every frame is drawn from its own poses, without chunks."""
    frames, state, last = [given[:, 0]], model.start(given, poses[:, :1]), poses.shape[1] - 1
    for time in range(1, last + 1):
        around = [min(max(time + offset, 0), last) for offset in range(-model.context, model.context + 1)]
        condition = model.encode_conditions(poses[:, around])[:, 0]
        frame, state = model.step(state, condition, latents[:, time])
        frames.append(frame)
    return torch.stack(frames, dim=1)


@pytest.mark.parametrize("length", [2, 6, 7, 13])
def test_rollout_equals_a_slow_loop(model: VideoModel, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.evaluation.rollout.PARALLEL_FRAMES", 10)  # chunks of 5 frames of each sequence
    given, poses = to_unit(pixels(2, 1, seed=2)), to_unit(pixels(2, length))
    latents = torch.randn(2, length, *model.latent_shape)
    drawn = rollout(model, given, poses, latents)
    assert drawn.shape == poses.shape
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn[:, :1], given)
    assert not any(torch.allclose(a, b, atol=1e-4) for a, b in pairwise(drawn.unbind(1)))
    assert torch.allclose(drawn, frame_by_frame(model, given, poses, latents), atol=1e-5)


def test_wrong_shapes_are_our_bug(model: VideoModel) -> None:
    given, poses = to_unit(pixels(2, 1)), to_unit(pixels(2, 3))
    for latents in (torch.zeros(2, 2, *model.latent_shape), torch.zeros(2, 3, *model.latent_shape, 1)):
        with pytest.raises(AssertionError):
            rollout(model, given, poses, latents)
    with pytest.raises(AssertionError):
        rollout(model, given[:1], poses, torch.zeros(2, 3, *model.latent_shape))
    with pytest.raises(AssertionError):
        predict_dance(model, given, poses, EvaluationConfig(mirror=True), seed=0)


@pytest.mark.parametrize("latent", ["mean", "sample", "mean_of_samples"])
@pytest.mark.parametrize("mirror", [False, True])
def test_prediction_is_the_mean_of_single_rollouts(model: VideoModel, latent: str, mirror: bool) -> None:
    given, poses = pixels(2, 1, seed=2), pixels(2, 4)
    num_samples = 3 if latent == "mean_of_samples" else 1
    settings = EvaluationConfig(latent=latent, mirror=mirror, **({"num_samples": 3} if num_samples == 3 else {}))
    singles = []
    for number in range(num_samples):
        sample = prior_noise(model, (2, 4), settings, seed=7, sample=number)
        assert sample.shape == (2, 4, *model.latent_shape)
        singles.append(frame_by_frame(model, to_unit(given), to_unit(poses), sample))
        if mirror:
            flipped = frame_by_frame(model, to_unit(given.flip(-1)), to_unit(mirror_poses(poses)), sample.flip(-1))
            singles.append(flipped.flip(-1))
    drawn = predict_dance(model, given, poses, settings, seed=7)
    assert torch.allclose(drawn, torch.stack(singles).mean(0), atol=1e-5)
    assert torch.equal(quantise(drawn[:, :1]), given)


def test_latents_come_from_the_prior(model: VideoModel) -> None:
    mean = prior_noise(model, (2, 3), EvaluationConfig(latent="mean"), seed=0, sample=0)
    assert not mean.any()
    keys, settings = ((0, 0), (0, 0), (1, 0), (0, 1)), EvaluationConfig(latent="sample")
    drawn = [prior_noise(model, (8, 40), settings, seed=seed, sample=sample) for seed, sample in keys]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])
    assert drawn[0].mean().abs() < 0.15
    assert (drawn[0].std() - 1).abs() < 0.15


def test_drawing_leaves_the_weights_without_gradients(model: VideoModel) -> None:
    drawn = predict_dance(model, pixels(1, 1), pixels(1, 3), EvaluationConfig(mirror=True), seed=0)
    assert not drawn.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@torch.no_grad()
def test_shifted_rollouts_are_moved_back_before_they_are_averaged() -> None:
    """Each pixel is the mean over those rollouts whose shifted picture contains it."""
    torch.manual_seed(0)
    model = build_model(tiny_config("reference_cvae"), height=HEIGHT, width=WIDTH)
    roughen(model)
    given, poses, step = pixels(2, 1, seed=2), pixels(2, 3), 2
    drawn = predict_dance(model, given, poses, EvaluationConfig(mirror=False, shift=step), seed=0)
    total, count = torch.zeros_like(drawn), torch.zeros(HEIGHT, WIDTH)
    for down, right in ((0, 0), (0, step), (0, -step), (step, 0), (-step, 0)):
        moved = rollout(
            model,
            to_unit(shift_pictures(given, down, right, beyond=None)),
            to_unit(shift_pictures(poses, down, right, beyond=255)),
            torch.zeros(2, 3, *model.latent_shape),
        )
        for y in range(HEIGHT):
            for x in range(WIDTH):
                if 0 <= y + down < HEIGHT and 0 <= x + right < WIDTH:
                    total[..., y, x] += moved[..., y + down, x + right]
                    count[y, x] += 1
    assert torch.allclose(drawn, total / count, atol=1e-6)
    assert torch.equal(quantise(drawn[:, :1]), given)
