"""Validation against scores computed by hand from frames drawn by hand."""

import math

import numpy as np
import pytest
import torch

from src.dataset import DanceData, to_unit
from src.models import Model, build_model
from src.rollout import rollout
from src.validation import Validation
from tests.conftest import MODELS, roughen, tiny_config

DEVICE = torch.device("cpu")


def by_hand(drawn: torch.Tensor, truth: np.ndarray) -> float:
    """The mean PSNR in dB of frames 1, 2, ... of float (T, 3, H, W) in [0, 1]."""
    integers = np.clip(np.rint(255 * drawn.double().numpy()), 0, 255)
    errors = ((integers - truth.astype(np.float64)) ** 2).mean(axis=(1, 2, 3))
    return float(np.mean([20 * math.log10(255) - 10 * math.log10(error) for error in errors[1:]]))


@pytest.fixture(params=MODELS)
def subject(request: pytest.FixtureRequest, small_data: DanceData) -> tuple[Model, Validation]:
    torch.manual_seed(0)
    always_informed = {"prior_probability": 0.0} if request.param == "reference_cvae" else {}
    config = tiny_config(request.param, model=always_informed, evaluation={"mirror": False})
    model = build_model(config, height=4, width=8)
    roughen(model)
    return model, Validation(config, small_data.val, context=model.context, device=DEVICE)


def test_scores_are_those_of_the_rollouts(subject: tuple[Model, Validation], small_data: DanceData) -> None:
    model, validation = subject
    frames, poses = to_unit(small_data.val.frames)[None], to_unit(small_data.val.poses)[None]
    scores = validation.report(model, kl_weight=0.5, teacher_forcing_ratio=0.0)
    zeros = torch.zeros(1, len(frames[0]), *model.latent_shape)
    free = rollout(model, frames[:, 0], poses, zeros)[0]
    assert scores["validation_score"] == pytest.approx(by_hand(free, small_data.val.frames), abs=1e-6)

    padded = torch.cat([poses[:, :1]] * model.context + [poses] + [poses[:, -1:]] * model.context, dim=1)
    with torch.no_grad():
        means, _ = model.posterior(frames, model.encode_conditions(padded), model.start(frames[:, 0], poses[:, 0]))
    peeking = rollout(model, frames[:, 0], poses, means)[0]
    assert scores["validation_score_posterior"] == pytest.approx(by_hand(peeking, small_data.val.frames), abs=1e-6)
    assert scores["validation_score_posterior"] != scores["validation_score"]


def test_losses_are_fixed_and_add_up(subject: tuple[Model, Validation]) -> None:
    model, validation = subject
    first, second = (validation.losses(model, kl_weight=w, teacher_forcing_ratio=0.0) for w in (0.5, 0.5))
    assert first == second
    without = validation.losses(model, kl_weight=0.0, teacher_forcing_ratio=0.0)
    assert first["validation_kl"] == without["validation_kl"] > 0
    assert first["validation_total"] > without["validation_total"]


def test_validation_draws_no_global_randomness(subject: tuple[Model, Validation]) -> None:
    model, validation = subject
    before = torch.get_rng_state()
    validation.report(model, kl_weight=1.0, teacher_forcing_ratio=1.0)
    assert torch.equal(torch.get_rng_state(), before)
