"""Training in float16: the loss follows that of float32, a step that overflows is skipped, and a resume is exact."""

from pathlib import Path

import pytest
import torch

from src.base.console import UserError
from src.dataset import DanceData
from src.trainer import Trainer, train
from src.training.checkpoint import load_checkpoint, load_scaler
from tests.conftest import tiny_config
from tests.differences import first_difference

CPU = torch.device("cpu")
TIMED = ("commit", "clock")


def mean_loss(model: str, precision: str, num_steps: int, data: DanceData, folder: Path) -> float:
    """Returns the total loss of a small run, averaged over its steps; at most one step is skipped."""
    config = tiny_config(model, num_epochs=num_steps, precision=precision)
    subject = Trainer(config, data, folder, CPU)
    for _ in range(num_steps):
        subject.train_step()
    assert subject.sums[-1] <= 1
    return subject.sums[0].item() / (num_steps - subject.sums[-1].item())


@pytest.mark.parametrize(("model", "num_steps"), [("reference_cvae", 20), ("lab_cvae", 6)])
def test_the_loss_is_that_of_float32_within_one_percent(
    model: str, num_steps: int, small_data: DanceData, tmp_path: Path
) -> None:
    """Float16 is slow on a CPU, so these runs are short; docs/usage.md has the command and figures of 200 steps."""
    exact = mean_loss(model, "float32", num_steps, small_data, tmp_path)
    assert mean_loss(model, "float16", num_steps, small_data, tmp_path) == pytest.approx(exact, rel=0.01)


def test_a_step_that_overflows_is_skipped_and_halves_the_scale(small_data: DanceData, tmp_path: Path) -> None:
    subject = Trainer(tiny_config("reference_cvae", precision="float16"), small_data, tmp_path, CPU)
    subject.train_step()
    scale = 2.0**60
    subject.scaler.load_state_dict(subject.scaler.state_dict() | {"scale": scale})
    before = [weight.detach().clone() for weight in subject.model.parameters()]
    subject.train_step()
    assert subject.sums[-1] == 1, "the NaN guard counts it"
    assert all(torch.equal(old, new) for old, new in zip(before, subject.model.parameters(), strict=True))
    assert subject.scaler.get_scale() == scale / 2


def test_the_optimiser_sees_gradients_without_the_scale(small_data: DanceData, tmp_path: Path) -> None:
    found = []
    for scale in (1.0, 1024.0):
        subject = Trainer(tiny_config("reference_cvae", precision="float16"), small_data, tmp_path, CPU)
        subject.scaler.load_state_dict(subject.scaler.state_dict() | {"scale": scale})
        subject.train_step()
        found.append(
            torch.cat([weight.grad.flatten() for weight in subject.model.parameters() if weight.grad is not None])
        )
    torch.testing.assert_close(found[0], found[1], rtol=0.05, atol=1e-3)


@pytest.mark.usefixtures("small_data")
def test_a_resumed_run_is_that_which_was_never_stopped(tmp_path: Path) -> None:
    config = tiny_config("reference_cvae", num_epochs=3, validate_every=1, precision="float16")
    assert train(config, tmp_path / "whole")
    for step in (1, 3, 4):
        assert not train(config, tmp_path / "parts", stop_at_step=step)
    assert train(config, tmp_path / "parts")
    for name in ("last.pt", "best.pt"):
        states = [load_checkpoint(tmp_path / run / name, CPU) for run in ("whole", "parts")]
        whole, parts = ({key: value for key, value in state.items() if key not in TIMED} for state in states)
        assert first_difference(whole, parts) is None
    scaler = load_checkpoint(tmp_path / "parts/last.pt", CPU)["scaler"]
    assert scaler["_growth_tracker"] == 6, "the scaler has counted the steps of all parts"


def test_a_checkpoint_without_its_scaler_is_refused(tmp_path: Path) -> None:
    for enabled, state in ((True, {}), (False, {"scale": 1.0})):
        scaler = torch.amp.GradScaler("cpu", enabled=enabled)
        with pytest.raises(UserError, match=r"last\.pt does not hold the gradient scaler"):
            load_scaler(scaler, state, tmp_path / "last.pt")
