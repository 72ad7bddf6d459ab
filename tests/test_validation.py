"""Validation against scores computed by hand from frames drawn by hand."""

import math

import numpy as np
import pytest
import torch

from src.config import Evaluation
from src.dataset import DanceData, to_unit
from src.mirror import mirror_poses
from src.models import Model, build_model
from src.rollout import rollout
from src.validation import TakeValidation
from tests.conftest import POSE_MODELS, roughen, tiny_config

DEVICE = torch.device("cpu")


def by_hand(drawn: torch.Tensor, truth: np.ndarray) -> float:
    """The mean PSNR in dB of frames 1, 2, ... of float (T, 3, H, W) in [0, 1]."""
    integers = np.clip(np.rint(255 * drawn.double().numpy()), 0, 255)
    errors = ((integers - truth.astype(np.float64)) ** 2).mean(axis=(1, 2, 3))
    return float(np.mean([20 * math.log10(255) - 10 * math.log10(error) for error in errors[1:]]))


@pytest.fixture(params=POSE_MODELS)
def subject(request: pytest.FixtureRequest, small_data: DanceData) -> tuple[Model, TakeValidation]:
    torch.manual_seed(0)
    always_informed = {"prior_probability": 0.0} if request.param == "reference_cvae" else {}
    config = tiny_config(request.param, model=always_informed)
    model = build_model(config, height=4, width=8)
    roughen(model, scale=0.2 if request.param == "reference_cvae" else 0.05)
    return model, TakeValidation(config, small_data.val, context=model.context, device=DEVICE)


@torch.no_grad()
def rollouts(model: Model, frames: torch.Tensor, poses: torch.Tensor) -> list[torch.Tensor]:
    """The clip (T, 3, H, W) that a model draws of uint8 frames and poses, without and with a look at the frames."""
    frames, poses = to_unit(frames)[None], to_unit(poses)[None]
    padded = torch.cat([poses[:, :1]] * model.context + [poses] + [poses[:, -1:]] * model.context, dim=1)
    means, _ = model.posterior(frames, model.encode_conditions(padded), model.start(frames[:, :1], poses[:, :1]))
    return [rollout(model, frames[:, :1], poses, latents)[0] for latents in (torch.zeros_like(means), means)]


@pytest.mark.parametrize("mirror", [False, True])
def test_scores_are_those_of_the_rollouts(
    mirror: bool, subject: tuple[Model, TakeValidation], small_data: DanceData
) -> None:
    model, validation = subject
    validation.config = validation.config.model_copy(update={"evaluation": Evaluation(mirror=mirror)})
    frames, poses = (torch.from_numpy(pixels) for pixels in (small_data.val.frames, small_data.val.poses))
    free, peeking = rollouts(model, frames, poses)
    if mirror:
        flipped = rollouts(model, frames.flip(-1), mirror_poses(poses))
        free, peeking = ((clip + twin.flip(-1)) / 2 for clip, twin in zip((free, peeking), flipped, strict=True))
    scores = validation.report(model, kl_weight=0.5, teacher_forcing_ratio=0.0)
    assert scores["validation_score"] == pytest.approx(by_hand(free, small_data.val.frames), abs=1e-5)
    assert scores["validation_score_posterior"] == pytest.approx(by_hand(peeking, small_data.val.frames), abs=1e-5)
    assert abs(scores["validation_score_posterior"] - scores["validation_score"]) > 1e-3


def test_losses_are_fixed_and_add_up(subject: tuple[Model, TakeValidation]) -> None:
    model, validation = subject
    first, second = (validation.losses(model, {"kl_weight": w, "teacher_forcing_ratio": 0.0}) for w in (0.5, 0.5))
    assert first == second
    without = validation.losses(model, {"kl_weight": 0.0, "teacher_forcing_ratio": 0.0})
    assert first["validation_kl"] == without["validation_kl"] > 0
    assert first["validation_total"] > without["validation_total"]


def test_validation_draws_no_global_randomness(subject: tuple[Model, TakeValidation]) -> None:
    model, validation = subject
    before = torch.get_rng_state()
    validation.report(model, kl_weight=1.0, teacher_forcing_ratio=1.0)
    assert torch.equal(torch.get_rng_state(), before)
