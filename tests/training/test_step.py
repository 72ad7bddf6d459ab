"""One optimiser step, checked by hand: gradient clipping, weight decay, the precision and the layout of tensors."""

from pathlib import Path

import pytest
import torch
from torch import nn

from src.dataset import DanceData
from src.trainer import Trainer
from tests.conftest import tiny_config

CPU = torch.device("cpu")


def trainer_of(data: DanceData, folder: Path, **training: object) -> Trainer:
    """Returns a trainer of the small reference model, before its first step."""
    return Trainer(tiny_config("reference_cvae", warmup_steps=0, **training), data, folder, CPU)


def gradients(subject: Trainer) -> torch.Tensor:
    """The gradient of the last step, after clipping, as one vector."""
    found = [weight.grad for weight in subject.model.parameters()]
    return torch.cat([torch.zeros(1) if gradient is None else gradient.flatten() for gradient in found])


def test_a_gradient_longer_than_its_bound_is_scaled_down(small_data: DanceData, tmp_path: Path) -> None:
    free = trainer_of(small_data, tmp_path, gradient_clip=1e9)
    free.train_step()
    norm = gradients(free).norm().item()
    bound = trainer_of(small_data, tmp_path, gradient_clip=norm / 4)
    bound.train_step()
    assert gradients(bound).norm().item() == pytest.approx(norm / 4, rel=1e-4)
    torch.testing.assert_close(gradients(bound), gradients(free) / 4, rtol=1e-4, atol=1e-8)
    short = trainer_of(small_data, tmp_path, gradient_clip=4 * norm)
    short.train_step()
    assert torch.equal(gradients(short), gradients(free))


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_first_step_is_that_of_adamw(decay: float, small_data: DanceData, tmp_path: Path) -> None:
    """After one step, the moments are g and g^2, so w' = (1 - rate * decay) * w - rate * g / (|g| + 1e-8)."""
    rate = 0.125
    subject = trainer_of(small_data, tmp_path, weight_decay=decay, learning_rate=rate)
    before = [weight.detach().clone() for weight in subject.model.parameters()]
    subject.train_step()
    for old, new in zip(before, subject.model.parameters(), strict=True):
        gradient = torch.zeros_like(old) if new.grad is None else new.grad
        expected = (1 - rate * decay) * old - rate * gradient / (gradient.abs() + 1e-8)
        clear = gradient.abs() > 1e-6  # for smaller gradients, rounding errors of the moments are visible
        torch.testing.assert_close(new.detach()[clear], expected[clear], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "kind"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_convolutions_compute_in_the_precision_that_is_asked_for(
    precision: str, kind: torch.dtype, small_data: DanceData, tmp_path: Path
) -> None:
    subject, seen = trainer_of(small_data, tmp_path, precision=precision), set()
    for layer in subject.model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _layer, _given, drawn: seen.add(drawn.dtype))
    subject.train_step()
    assert seen == {kind}
    assert {weight.dtype for weight in subject.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("wanted", [False, True])
def test_weights_have_the_layout_that_is_asked_for(wanted: bool, small_data: DanceData, tmp_path: Path) -> None:
    subject = trainer_of(small_data, tmp_path, channels_last=wanted)
    subject.train_step()
    for network in (subject.model, subject.ema):
        kernels = [weight for weight in network.parameters() if weight.dim() == 4 and min(weight.shape[1:]) > 1]
        assert kernels
        assert {kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels} == {wanted}
