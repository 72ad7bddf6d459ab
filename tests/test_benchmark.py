"""The plain loops of the benchmark do the same work as our code: same losses, same gradients, same frames."""

import pytest
import torch

from src import benchmark
from src.benchmark import svg_rollout_row, svg_training_row

CPU = torch.device("cpu")


def test_both_sides_of_the_svg_training_take_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    backward = benchmark._backward

    def recorded(model: torch.nn.Module, total: torch.Tensor) -> torch.Tensor:
        loss = backward(model, total)
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
        return loss

    monkeypatch.setattr(benchmark, "_backward", recorded)
    row = svg_training_row(CPU, width=8)
    ours, plain = row.ours(), row.plain()
    assert torch.allclose(ours, plain, rtol=1e-5)
    assert (gradients[0] - gradients[1]).norm() < 1e-3 * gradients[1].norm()


def test_both_sides_of_the_svg_rollout_draw_the_same_frames() -> None:
    row = svg_rollout_row(CPU, width=8)
    ours, plain = row.ours(), row.plain()
    assert ours.shape == plain.shape == (16, 12, 3, 64, 64)
    assert torch.allclose(ours[:, :6], plain[:, :6], atol=2e-4)  # rounding errors double with each frame
    assert ours[0].sub(ours[4]).abs().max() > 1e-3  # another sample of the same clip
