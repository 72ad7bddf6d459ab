"""Every forward pass and rollout with tensors on "cuda", without a GPU (tests/rehearsal.py)."""

from typing import Any

import pytest
import torch
from torch import nn

from src.base.randomness import Draws
from src.config import Config, EvaluationConfig
from src.evaluation.rollout import predict
from src.models.configs import MODELS
from tests.conftest import POSE_MODELS, frame_size, random_batch, tiny_config
from tests.rehearsal import CUDA, build_real, on_gpu, rehearsal

VARIANTS: dict[str, dict[str, object]] = {
    "reference_cvae": {},
    "reference_cvae, autoregressive": {"previous_frame": True, "num_members": 2},
    "reference_cvae, latent map": {"latent_map": True, "reference": "none"},
    "lab_cvae": {},
    "svg": {"prior": "learned"},
    "svg, fixed prior": {"prior": "fixed", "last_frame_skip": False},
    "conv_svg": {},
    "conv_svg, fixed prior": {"prior": "fixed"},
}


def config_of(variant: str) -> Config:
    name = variant.partition(",")[0]
    return tiny_config(name, model=VARIANTS[variant], window=4 if name in POSE_MODELS else 5)


def built(config: Config) -> nn.Module:
    """Returns the model on the rehearsed GPU. It must be called within a rehearsal."""
    return build_real(config, **frame_size(config.model.name)).to(CUDA)


def batch_for(model: nn.Module) -> Any:
    batch = random_batch(model, 4)
    return type(batch)(*(part.to(CUDA) for part in vars(batch).values()))


def test_the_variants_cover_every_model() -> None:
    assert {config_of(variant).model.name for variant in VARIANTS} == set(MODELS)


def test_a_rehearsal_refuses_mixed_devices() -> None:
    with rehearsal(), pytest.raises(RuntimeError, match="cuda:0 and cpu"):
        torch.zeros(3, device=CUDA) + torch.zeros(3)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("coin", [0.0, 1.0])  # of teacher forcing
def test_the_loss_of_a_clip(variant: str, coin: float) -> None:
    with rehearsal(coin) as answers:
        model = built(config_of(variant))
        loss = model(batch_for(model), Draws(0, 0, range(2), CUDA), kl_weight=1.0, teacher_forcing_ratio=0.5)
        assert on_gpu(loss.total, loss.reconstruction, loss.kl)
        assert loss.total.shape == ()
    assert answers.read_from_gpu == 0  # it would wait for the GPU


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("latent", ["mean", "sample", "mean_of_samples"])
def test_a_rollout(variant: str, latent: str) -> None:
    with rehearsal() as answers, torch.no_grad():
        model = built(config_of(variant)).eval()
        batch = batch_for(model)
        conditions = batch.conditions if hasattr(batch, "conditions") else batch.poses
        settings = EvaluationConfig(latent=latent, num_samples=2, mirror=False)
        drawn = predict(model, batch.frames[:, : model.num_given], conditions, settings, seed=0)
        assert on_gpu(drawn)
        assert drawn.shape == (*conditions.shape[:2], *batch.frames.shape[2:])
    assert answers.read_from_gpu == 0
