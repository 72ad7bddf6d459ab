"""The plain loops of the benchmark do the work that ours does: the same losses, the same gradients, the same frames."""

import pytest
import torch

from src import benchmark
from src.benchmark import svg_rollout_row, svg_training_row

CPU = torch.device("cpu")


def test_both_sides_of_the_svg_training_take_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = []
    take = benchmark._backward

    def noted(model: torch.nn.Module, total: torch.Tensor) -> torch.Tensor:
        loss = take(model, total)
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
        return loss

    monkeypatch.setattr(benchmark, "_backward", noted)
    row = svg_training_row(CPU, width=8)
    ours, plain = row.ours(), row.plain()
    assert torch.allclose(ours, plain, rtol=1e-5)
    assert (gradients[0] - gradients[1]).norm() < 1e-3 * gradients[1].norm()


def test_both_sides_of_the_svg_rollout_draw_the_same_frames() -> None:
    row = svg_rollout_row(CPU, width=8)
    ours, plain = row.ours(), row.plain()
    assert ours.shape == plain.shape == (16, 12, 3, 64, 64)
    assert torch.allclose(ours[:, :6], plain[:, :6], atol=2e-4)  # rounding errors double from frame to frame
    assert ours[0].sub(ours[4]).abs().max() > 1e-3  # another sample of the same clip
