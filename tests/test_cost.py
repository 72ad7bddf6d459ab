"""What a run costs, against arithmetic counted layer by layer."""

from pathlib import Path

import pytest
import torch
from torch import nn

from src.base.randomness import Draws
from src.base.systems import SYSTEMS
from src.cost import clips_of_an_epoch, cost_of, describe, duration, resident_bytes
from src.dataset import open_data
from src.models.configs import MODELS
from src.models.interface import build_model
from src.trainer import Trainer
from tests.conftest import tiny_config


@pytest.mark.parametrize("name", [name for name in MODELS if name != "lab_cvae"])  # whose full resolution takes long
def test_flops_are_those_of_the_layers(name: str) -> None:
    """2 for each product of the forward pass; the backward pass has two products for each, or one in a first layer."""
    config = tiny_config(name, window=4)
    size = {"height": 64, "width": 64} if "svg" in name else {"height": 32, "width": 64}
    model, counted = build_model(config, **size), [0]

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(layer, nn.Linear):
            counted[0] += 2 * output.numel() * layer.in_features
        elif isinstance(layer, nn.ConvTranspose2d):
            counted[0] += 2 * inputs[0].numel() * layer.out_channels * layer.kernel_size[0] ** 2
        elif isinstance(layer, nn.Conv2d):
            counted[0] += 2 * output.numel() * layer.in_channels // layer.groups * layer.kernel_size[0] ** 2
        elif isinstance(layer, nn.LSTMCell):
            counted[0] += 2 * len(inputs[0]) * 4 * layer.hidden_size * (layer.input_size + layer.hidden_size)

    for layer in model.modules():
        layer.register_forward_hook(lambda *call: count(call[0], call[1], call[2]))
    with torch.no_grad():
        draws = Draws(5, 0, range(2), torch.device("cpu"))
        model(
            SYSTEMS[config.model.system].part("cost").noise_batch(config, model, 2),
            draws,
            kl_weight=1e-4,
            teacher_forcing_ratio=0.0,
        )
    assert 2.4 < cost_of(config, num_clips=2).flops / (counted[0] / 2) < 3.0


def test_costs_are_those_of_a_clip() -> None:
    config = tiny_config("reference_cvae")
    two, six = (cost_of(config, num_clips=number) for number in (2, 6))
    assert two.flops == six.flops
    assert 0 < two.num_kernels <= six.num_kernels < two.num_kernels + 30  # each clip draws its own random numbers
    assert two.activation_bytes == pytest.approx(six.activation_bytes, rel=0.2)
    assert two.num_parameters == sum(p.numel() for p in build_model(config, height=32, width=64).parameters())


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("held_out", [[], [1]])
def test_what_stays_on_the_device_is_what_the_sampler_holds(
    mirror: bool, shift: int, held_out: list[int], data_folder: Path, tmp_path: Path
) -> None:
    changes = {"mirror": mirror, "shift_x": shift, "shift_y": 1}
    config = tiny_config("reference_cvae", augmentation=changes, held_out_takes=held_out)
    data = open_data(config.dataset, data_folder)
    sampler = Trainer(config, data, tmp_path, torch.device("cpu")).sampler
    held = sum(kept.untyped_storage().nbytes() for kept in (sampler.frames, sampler.poses))
    assert resident_bytes(config, data_folder) == held
    assert resident_bytes(tiny_config("conv_svg"), data_folder) == 0


@pytest.mark.parametrize("name", ["reference_cvae", "conv_svg"])
def test_the_run_is_the_steps_that_training_takes(
    name: str, data_folder: Path, pushing_folder: Path, tmp_path: Path
) -> None:
    folder = data_folder if name == "reference_cvae" else pushing_folder
    config = tiny_config(name, clips_per_epoch=0, batch_size=2, num_epochs=5)
    num_clips, training_set = clips_of_an_epoch(config, folder)
    steps = Trainer(config, open_data(config.dataset, folder), tmp_path, torch.device("cpu")).num_steps
    cost = cost_of(config, num_clips=1)
    text = describe(config, cost, num_clips=num_clips, training_set=training_set, resident=3 * 2**29)
    assert f"{steps:,} steps of 2 clips" in text
    assert f"{cost.num_parameters:,}" in text
    assert str(folder / config.dataset) in text
    assert "1.50 GiB for the training frames" in text
    assert f"CPU threads ({torch.backends.cpu.get_cpu_capability()}, float32)" in text


@pytest.mark.parametrize(("name", "num_clips", "said"), [("lab_cvae", 7803, "23,410 frames"), ("svg", 41100, "clips")])
def test_without_data_the_published_size_is_assumed_and_said(
    name: str, num_clips: int, said: str, tmp_path: Path
) -> None:
    found, training_set = clips_of_an_epoch(tiny_config(name), tmp_path)
    assert found == num_clips
    assert said in training_set
    assert "is not packed" in training_set


def test_durations_are_said_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0.4, 90, 300, 7200)] == ["0 s", "90 s", "5.0 min", "2.0 h"]
