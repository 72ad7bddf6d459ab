"""What only a GPU can show. `make gpu-check` runs these tests; without CUDA they are skipped."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from src.base.cuda_graphs import Recording
from src.base.randomness import Draws
from src.dataset import DanceData
from src.evaluation import rollout as rollouts
from src.evaluation.rollout import rollout
from src.models.interface import build_model
from src.pushing.data import PushingData
from src.trainer import Trainer, train
from src.training.log import read_history
from src.training.update import EAGER_UPDATES, RecordedUpdate
from tests.conftest import POSE_MODELS, PUSHING_MODELS, frame_size, random_batch, tiny_config

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda", 0)
FORCED = {"teacher_forcing": {"kind": "decay", "start": 1.0, "decay_from": 1, "decay_step": 0.5}}


@pytest.fixture(autouse=True)
def _full_float32() -> None:
    torch.backends.cudnn.allow_tf32 = False


def trainer_on_gpu(data: Any, folder: Path, name: str, /, **settings: Any) -> Trainer:
    config = tiny_config(name, warmup_steps=2, device="cuda", **settings)
    return Trainer(config, data, folder, GPU)


def losses_of(subject: Trainer, steps: int) -> Tensor:
    """The losses of the first steps, and whether each was skipped, (steps, 4)."""
    rows = []
    for _ in range(steps):
        before = subject.sums.clone()
        subject.train_step()
        rows.append(subject.sums - before)
    return torch.stack(rows).cpu()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("model", POSE_MODELS + PUSHING_MODELS)
def test_a_recorded_update_is_the_same_update(
    model: str, precision: str, small_data: DanceData, pushing_data: PushingData, tmp_path: Path
) -> None:
    data = small_data if model in POSE_MODELS else pushing_data
    eager = trainer_on_gpu(data, tmp_path, model, precision=precision, cuda_graph=False)
    recorded = trainer_on_gpu(data, tmp_path, model, precision=precision)
    assert isinstance(recorded.update, RecordedUpdate)
    steps = EAGER_UPDATES + 6
    expected, got = losses_of(eager, steps), losses_of(recorded, steps)
    assert recorded.update.recordings
    tolerance = 1e-3 if precision == "float32" else 0.05
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    assert len({row[0].item() for row in got}) == steps  # each step has its own clips and draws


def test_a_recorded_update_follows_the_learning_rate(small_data: DanceData, tmp_path: Path) -> None:
    subject = trainer_on_gpu(small_data, tmp_path, "reference_cvae")
    losses_of(subject, EAGER_UPDATES + 2)
    before = [weight.detach().clone() for weight in subject.model.parameters()]
    subject.learning_rate = lambda step: 0.0  # type: ignore[method-assign]
    subject.train_step()
    assert all(map(torch.equal, before, subject.model.parameters()))
    del subject.learning_rate
    subject.train_step()
    assert not all(map(torch.equal, before, subject.model.parameters()))


def test_a_recorded_update_skips_a_gradient_that_is_not_finite(small_data: DanceData, tmp_path: Path) -> None:
    subject = trainer_on_gpu(small_data, tmp_path, "reference_cvae")
    losses_of(subject, EAGER_UPDATES + 2)
    before = [weight.detach().clone() for weight in subject.model.parameters()]
    frames = subject.sampler.batch(0, 0, range(subject.config.training.batch_size))
    frames.frames.fill_(torch.nan)
    weights = {"learning_rate": 0.1, "kl_weight": 1e-4, "teacher_forcing_ratio": 0.0}
    clips = range(subject.config.training.batch_size)
    result = subject.update(frames, Draws(0, 0, clips, GPU), **weights)
    assert result.tolist() == [0, 0, 0, 1]
    assert all(map(torch.equal, before, subject.model.parameters()))


def test_only_a_ratio_of_0_or_1_is_recorded(small_data: DanceData, tmp_path: Path) -> None:
    subject = trainer_on_gpu(small_data, tmp_path, "lab_cvae", model=FORCED)  # 2 steps an epoch: 1, 1, 0.5, 0.5, 0, 0
    assert isinstance(subject.update, RecordedUpdate)
    subject.update.num_eager = EAGER_UPDATES
    subject.update.requests = (("normal", "latent", (2, *subject.model.latent_shape)),)
    losses = losses_of(subject, 8)
    assert set(subject.update.recordings) == {0.0, 1.0}
    assert losses.isfinite().all()


@pytest.mark.parametrize("model", ["lab_cvae", "svg", "conv_svg"])
def test_a_recorded_rollout_is_the_same_rollout(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_model(tiny_config(model), **frame_size(model)).to(GPU).eval()
    batch = random_batch(network, 2)
    conditions = batch.conditions if hasattr(batch, "conditions") else batch.poses
    long = conditions[:, :1].repeat(1, 80, *[1] * (conditions.ndim - 2)).to(GPU)
    long = long + 0.1 * torch.rand(long.shape, generator=torch.Generator().manual_seed(1)).to(GPU)
    given = batch.frames[:, : network.num_given].to(GPU)
    noise = torch.randn(*long.shape[:2], *network.latent_shape, device=GPU)
    made: list[Recording] = []

    def noted(*inputs: Any) -> Recording:
        made.append(Recording(*inputs))
        return made[-1]

    monkeypatch.setattr(rollouts, "Recording", noted)
    recorded = rollout(network, given, long, noise)
    expected = rollout(network, given, long, noise, records=False)
    assert len(made) == 1
    torch.testing.assert_close(recorded, expected, rtol=1e-3, atol=1e-3)


def test_a_run_moves_between_gpu_and_cpu(
    small_data: DanceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"num_epochs": 4, "validate_every": 4, "precision": "float32"}
    folder = tmp_path / "run"
    train(tiny_config("reference_cvae", device="auto", **settings), folder, stop_at_step=EAGER_UPDATES + 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # the run goes on on a machine without a GPU
    train(tiny_config("reference_cvae", device="auto", **settings), folder, stop_at_step=2 * EAGER_UPDATES + 4)
    monkeypatch.undo()
    monkeypatch.setattr("src.trainer.open_data", lambda name, at: small_data)
    assert train(tiny_config("reference_cvae", device="auto", **settings), folder)
    assert [row["epoch"] for row in read_history(folder)] == [1, 2, 3, 4]


def test_draws_and_clips_are_those_of_the_cpu(small_data: DanceData, tmp_path: Path) -> None:
    clips = range(3)
    for purpose in ("normal", "uniform"):
        size: Any = (2, 5) if purpose == "normal" else 4
        here, there = (getattr(Draws(7, 3, clips, device), purpose)("a", size) for device in (torch.device("cpu"), GPU))
        assert torch.equal(here, there.cpu())
    config = tiny_config("reference_cvae")
    parts = [
        vars(Trainer(config, small_data, tmp_path, device).sampler.batch(1, 0, clips)).values()
        for device in (torch.device("cpu"), GPU)
    ]
    for own, other in zip(*parts, strict=True):
        torch.testing.assert_close(own, other.cpu())
