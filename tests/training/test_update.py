"""Recorded updates: what is recorded, and that kept random numbers are those that were asked for."""

from typing import Any

import pytest
import torch

from src.base.randomness import Draws
from src.models.interface import build_model
from src.training.update import KeptDraws, Update
from tests.conftest import frame_size, random_batch, tiny_config

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def update_on(device: torch.device, **training: Any) -> Update:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    return Update(model, model, optimizer, tiny_config("reference_cvae", **training).training, device)


@pytest.mark.parametrize(
    ("device", "settings", "is_recorded"),
    [
        (GPU, {}, True),
        (GPU, {"cuda_graph": False}, False),
        (GPU, {"compile": True}, False),
        (CPU, {}, False),
    ],
)
def test_updates_are_recorded_on_one_gpu(device: torch.device, settings: dict[str, bool], is_recorded: bool) -> None:
    assert update_on(device, **settings).records() == is_recorded


def test_several_processes_record_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.base.distributed.world_size", lambda: 2)
    assert not update_on(GPU).records()


def test_kept_draws_are_drawn_once_and_can_be_replaced() -> None:
    draws = Draws(3, 5, range(2), CPU)
    kept = KeptDraws(draws)
    assert torch.equal(kept.normal("latent", (2, 3)), draws.normal("latent", (2, 3)))
    assert kept.normal("latent", (2, 3)) is kept.normal("latent", (2, 3))
    assert torch.equal(kept.uniform("prior"), draws.uniform("prior"))
    assert torch.equal(kept.shared_uniform("coin", 4), draws.shared_uniform("coin", 4))
    assert list(kept.kept) == [("normal", "latent", (2, 3)), ("uniform", "prior", 1)]
    other = {("normal", "latent", (2, 3)): torch.full((2, 2, 3), 7.0)}
    assert KeptDraws(draws, other).normal("latent", (2, 3)).unique().tolist() == [7]


@pytest.mark.parametrize("name", ["reference_cvae", "lab_cvae", "svg", "conv_svg"])
def test_a_loss_depends_on_inputs_that_can_be_replaced(name: str) -> None:
    """A batch made anew from its parts, kept draws and a KL weight on the device give the same loss."""
    model = build_model(tiny_config(name), **frame_size(name))
    batch, draws = random_batch(model, 5), Draws(0, 1, range(2), CPU)
    weights = {"teacher_forcing_ratio": 0.0}
    expected = model(batch, draws, kl_weight=0.25, **weights).total
    kept = KeptDraws(draws)
    model(batch, kept, kl_weight=0.5, **weights)
    again: Any = type(batch)(*vars(batch).values())
    assert isinstance(again, type(batch))
    assert torch.equal(model(again, kept, kl_weight=torch.tensor(0.25), **weights).total, expected)
