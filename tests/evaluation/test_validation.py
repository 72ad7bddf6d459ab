"""Validation compared with scores that are computed by hand."""

import math
from copy import copy
from itertools import combinations

import numpy as np
import pytest
import torch

from src.base.console import UserError
from src.base.randomness import Draws
from src.config import EvaluationConfig
from src.dance.augmentations import mirror_poses
from src.dance.validation import TakeValidation, validation_of
from src.dataset import DanceData, to_unit
from src.evaluation.rollout import rollout
from src.models.interface import VideoModel, build_model
from src.pushing.data import PushingBatch, PushingData
from src.pushing.validation import ClipValidation
from tests.conftest import POSE_MODELS, PUSHING_MODELS, roughen, tiny_config

DEVICE = torch.device("cpu")


def by_hand(drawn: torch.Tensor, truth: np.ndarray) -> float:
    """Returns the mean PSNR in dB of frames 1, 2, .... The arguments are float (T, 3, H, W) in [0, 1]."""
    integers = np.clip(np.rint(255 * drawn.double().numpy()), 0, 255)
    errors = ((integers - truth.astype(np.float64)) ** 2).mean(axis=(1, 2, 3))
    return float(np.mean([20 * math.log10(255) - 10 * math.log10(error) for error in errors[1:]]))


@pytest.fixture(params=POSE_MODELS)
def subject(request: pytest.FixtureRequest, small_data: DanceData) -> tuple[VideoModel, TakeValidation]:
    torch.manual_seed(0)
    always_sampled = {"prior_probability": 0.0} if request.param == "reference_cvae" else {}
    config = tiny_config(request.param, model=always_sampled)
    model = build_model(config, height=4, width=8)
    roughen(model, scale=0.2 if request.param == "reference_cvae" else 0.05)
    return model, TakeValidation(config, small_data.val, context=model.context, device=DEVICE)


@torch.no_grad()
def rollouts(model: VideoModel, frames: torch.Tensor, poses: torch.Tensor) -> list[torch.Tensor]:
    """Returns the clip (T, 3, H, W) drawn from uint8 frames and poses, with latents of the prior or the posterior."""
    frames, poses = to_unit(frames)[None], to_unit(poses)[None]
    padded = torch.cat([poses[:, :1]] * model.context + [poses] + [poses[:, -1:]] * model.context, dim=1)
    means, _ = model.posterior(frames, model.encode_conditions(padded), model.start(frames[:, :1], poses[:, :1]))
    return [rollout(model, frames[:, :1], poses, latents)[0] for latents in (torch.zeros_like(means), means)]


@pytest.mark.parametrize("mirror", [False, True])
def test_scores_are_those_of_the_rollouts(
    mirror: bool, subject: tuple[VideoModel, TakeValidation], small_data: DanceData
) -> None:
    model, validation = subject
    config = validation.config.model_copy(update={"evaluation": EvaluationConfig(mirror=mirror)})
    validation = TakeValidation(config, small_data.val, context=model.context, device=DEVICE)
    frames, poses = (torch.from_numpy(pixels) for pixels in (small_data.val.frames, small_data.val.poses))
    free, peeking = rollouts(model, frames, poses)
    if mirror:
        flipped = rollouts(model, frames.flip(-1), mirror_poses(poses))
        free, peeking = ((clip + twin.flip(-1)) / 2 for clip, twin in zip((free, peeking), flipped, strict=True))
    scores = validation.report(model, kl_weight=0.5, teacher_forcing_ratio=0.0)
    assert scores["validation_score"] == pytest.approx(by_hand(free, small_data.val.frames), abs=1e-5)
    assert scores["validation_score_posterior"] == pytest.approx(by_hand(peeking, small_data.val.frames), abs=1e-5)
    assert abs(scores["validation_score_posterior"] - scores["validation_score"]) > 1e-3


def test_losses_are_fixed_and_add_up(subject: tuple[VideoModel, TakeValidation]) -> None:
    model, validation = subject
    first, second = (validation.losses(model, {"kl_weight": w, "teacher_forcing_ratio": 0.0}) for w in (0.5, 0.5))
    assert first == second
    without = validation.losses(model, {"kl_weight": 0.0, "teacher_forcing_ratio": 0.0})
    assert first["validation_kl"] == without["validation_kl"] > 0
    assert first["validation_total"] > without["validation_total"]


def test_validation_draws_no_global_randomness(subject: tuple[VideoModel, TakeValidation]) -> None:
    model, validation = subject
    before = torch.get_rng_state()
    validation.report(model, kl_weight=1.0, teacher_forcing_ratio=1.0)
    assert torch.equal(torch.get_rng_state(), before)


NUM_GIVEN, WINDOW = 2, 12  # of evaluation; they do not depend on training.window


@pytest.fixture(params=PUSHING_MODELS)
def pushed(request: pytest.FixtureRequest, pushing_data: PushingData) -> tuple[VideoModel, ClipValidation]:
    torch.manual_seed(0)
    config = tiny_config(request.param, model={"prior": "learned"}, window=5, batch_size=2)
    model = build_model(config, height=64, width=64)
    roughen(model)
    return model, ClipValidation(config, pushing_data.validate, device=DEVICE)


@torch.no_grad()
def drawn_by_hand(model: VideoModel, frames: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """Returns rollouts with the prior mean from the first frames of clips, one clip after the other."""
    given = torch.from_numpy(frames[:, :NUM_GIVEN].copy()).float() / 255
    known = torch.from_numpy(conditions[:, :WINDOW])
    quiet = torch.zeros(1, WINDOW, *model.latent_shape)
    clips = [rollout(model, given[n : n + 1], known[n : n + 1], quiet) for n in range(len(frames))]
    return torch.cat(clips).double().numpy()


def channel_psnr_by_hand(drawn: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the PSNR (N, T) in dB of the predicted frames: the mean of the PSNR of each channel."""
    levels = np.empty((len(truth), WINDOW - NUM_GIVEN))
    for n, t in np.ndindex(*levels.shape):
        pairs = zip(drawn[n, NUM_GIVEN + t], truth[n, NUM_GIVEN + t] / 255, strict=True)
        levels[n, t] = np.mean([-10 * math.log10(np.mean((channel - true) ** 2)) for channel, true in pairs])
    return levels


def test_pushing_is_scored_by_frame_and_channel(
    pushed: tuple[VideoModel, ClipValidation], pushing_data: PushingData
) -> None:
    model, validation = pushed
    clips = pushing_data.validate
    levels = channel_psnr_by_hand(drawn_by_hand(model, clips.frames, clips.conditions), clips.frames)
    drawn = validation.draw(model, EvaluationConfig(mirror=False))
    assert drawn.shape == (3, WINDOW, 3, 64, 64)
    assert validation.psnr(drawn).numpy() == pytest.approx(levels, abs=2e-3)
    scores = validation.report(model, kl_weight=0.5, teacher_forcing_ratio=0.0)
    assert scores["validation_score"] == pytest.approx(levels.mean(), abs=1e-4)


def test_only_predicted_frames_of_pushing_count(pushed: tuple[VideoModel, ClipValidation]) -> None:
    _, validation = pushed
    drawn = to_unit(validation.frames) * 0.5
    spoilt = drawn.clone()
    spoilt[:, :NUM_GIVEN] = 1
    assert torch.equal(validation.psnr(spoilt), validation.psnr(drawn))
    spoilt[:, NUM_GIVEN] = 1
    assert ((validation.psnr(spoilt) != validation.psnr(drawn)) == torch.tensor([True] + [False] * 9)).all()


def test_shuffled_conditions_are_those_of_another_clip(
    pushed: tuple[VideoModel, ClipValidation], pushing_data: PushingData
) -> None:
    model, validation = pushed
    shuffled, clips = validation.with_shuffled_conditions(7), pushing_data.validate
    whose = []
    for n, conditions in enumerate(shuffled.conditions):
        (other,) = (k for k in range(3) if np.array_equal(conditions, clips.conditions[k, :WINDOW]))
        assert other != n
        whose.append(other)
    assert sorted(whose) == [0, 1, 2]
    assert torch.equal(shuffled.frames, validation.frames)
    levels = channel_psnr_by_hand(drawn_by_hand(model, clips.frames, clips.conditions[whose]), clips.frames)
    drawn = shuffled.draw(model, EvaluationConfig(mirror=False))
    assert shuffled.psnr(drawn).numpy() == pytest.approx(levels, abs=2e-3)


def test_actions_are_shuffled_without_the_positions(pushed: tuple[VideoModel, ClipValidation]) -> None:
    _, validation = pushed
    own, shuffled = validation.conditions, validation.with_shuffled_conditions(4).conditions
    assert torch.equal(shuffled[..., 4:], own[..., 4:])
    for clip in range(len(own)):
        assert torch.equal(shuffled[clip, :, :4], own[clip - 1, :, :4])


def test_many_clips_are_drawn_in_parts(
    pushed: tuple[VideoModel, ClipValidation], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, subject = pushed
    whole = subject.draw(model, EvaluationConfig(mirror=False))
    monkeypatch.setattr("src.pushing.validation.CLIPS_AT_ONCE", 2)
    difference = subject.draw(model, EvaluationConfig(mirror=False)) - whole
    assert difference.abs().mean() < 1e-3  # only rounding errors, which ten recurrent steps amplify
    samples = subject.draw(model, EvaluationConfig(latent="sample", mirror=False))
    assert torch.equal(samples, subject.draw(model, EvaluationConfig(latent="sample", mirror=False)))
    others = subject.draw(model, EvaluationConfig(latent="sample", mirror=False), number=1)
    assert all(not torch.allclose(a, b, atol=1e-4) for a, b in zip(samples[:, 2:], others[:, 2:], strict=True))


def test_runs_of_neighbouring_seeds_share_no_samples(pushed: tuple[VideoModel, ClipValidation]) -> None:
    model, one = pushed
    other = copy(one)
    other.config = one.config.model_copy(update={"seed": one.config.seed + 1})
    settings = EvaluationConfig(latent="sample", mirror=False)
    drawn = [subject.draw(model, settings, number=number) for subject in (one, other) for number in (0, 1)]
    for a, b in combinations(drawn, 2):
        assert not torch.allclose(a[:, NUM_GIVEN:], b[:, NUM_GIVEN:], atol=1e-4)


def test_losses_of_pushing_are_the_mean_over_clips_as_long_as_those_of_training(
    pushed: tuple[VideoModel, ClipValidation], pushing_data: PushingData
) -> None:
    model, validation = pushed
    weights, before = {"kl_weight": 0.5, "teacher_forcing_ratio": 0.0}, torch.get_rng_state()
    losses = validation.report(model, **weights)
    assert losses == validation.report(model, **weights)
    assert torch.equal(torch.get_rng_state(), before)
    clips = pushing_data.validate
    window = validation.config.training.window
    frames, conditions = (
        torch.from_numpy(clips.frames[:, :window].copy()),
        torch.from_numpy(clips.conditions[:, :window]),
    )
    with torch.no_grad():
        at_once = model(PushingBatch(to_unit(frames), conditions), Draws(0, 0, range(3), DEVICE), **weights)
    for name in ("total", "reconstruction", "kl"):
        assert losses[f"validation_{name}"] == pytest.approx(getattr(at_once, name).item(), rel=1e-4)


def test_a_rollout_without_numbers_scores_as_black(small_data: DanceData) -> None:
    config = tiny_config("lab_cvae", model={"bounded_output": False})
    torch.manual_seed(0)
    model = build_model(config, height=4, width=8)
    with torch.no_grad():
        next(model.generator.parameters()).fill_(math.nan)
    validation = TakeValidation(config, small_data.val, context=0, device=DEVICE)
    black = np.zeros_like(small_data.val.frames)
    black[0] = small_data.val.frames[0]
    assert np.array_equal(validation.draw(model).numpy(), black)
    scores = validation.report(model, kl_weight=0.0, teacher_forcing_ratio=0.0)
    assert 0 < scores["validation_score"] < 20


def test_a_diverged_model_of_pushing_gets_a_low_score(
    pushed: tuple[VideoModel, ClipValidation], pushing_data: PushingData
) -> None:
    model, validation = pushed
    with torch.no_grad():
        next(model.decoder.parameters()).fill_(math.nan)
    drawn = validation.draw(model, EvaluationConfig(mirror=False))
    assert not drawn[:, NUM_GIVEN:].any(), "black"
    scores = validation.report(model, kl_weight=0.0, teacher_forcing_ratio=0.0)
    truth = pushing_data.validate.frames
    black = channel_psnr_by_hand(np.zeros(truth[:, :WINDOW].shape), truth).mean()
    assert scores["validation_score"] == pytest.approx(black, abs=1e-4)


def test_an_evaluation_needs_no_clip_of_training(small_data: DanceData) -> None:
    """A take for evaluation, or one held out, may be shorter than training.window. Only losses need a full window."""
    config = tiny_config("lab_cvae", window=20)
    longest = max(stop - start for start, stop in small_data.val.takes)
    assert longest < 20
    model = build_model(config, height=4, width=8)
    validation = TakeValidation(config, small_data.val, context=0, device=DEVICE, held_out=[small_data.val])
    assert validation.held_out_score(model) == validation.score(validation.draw(model, settings=validation.unshifted))
    with pytest.raises(UserError, match=f"training.window = 20, but the validation take has {longest} frames"):
        validation_of(config, small_data, context=0, device=DEVICE)


def test_too_many_given_frames_are_named(pushing_data: PushingData) -> None:
    length = pushing_data.validate.frames.shape[1]
    config = tiny_config("svg", model={"num_given": length - 9}, window=length)
    with pytest.raises(UserError, match=f"model.num_given = {length - 9}.* clips have {length} frames; needed"):
        ClipValidation(config, pushing_data.validate, device=DEVICE)
