"""Estimates of what a run costs, compared with arithmetic that is counted layer by layer."""

from pathlib import Path

import pytest
import torch
from torch import nn

from src.base.console import UserError
from src.base.gpus import GPUS, SESSION_HOURS, gpu_named, reached_tflops, verdict
from src.base.randomness import Draws
from src.base.systems import SYSTEMS
from src.cost import clips_of_an_epoch, cost_of, describe, duration, facts_of, resident_bytes
from src.dance import cost as dance_cost
from src.dataset import open_data
from src.models.configs import MODELS
from src.models.interface import build_model
from src.pushing import cost as pushing_cost
from src.trainer import Trainer
from tests.conftest import tiny_config

ASSUMED = {"dance": dance_cost.ASSUMED, "pushing": pushing_cost.ASSUMED}


# lab_cvae is left out: it is slow at full resolution.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "lab_cvae"])
def test_flops_are_those_of_the_layers(name: str) -> None:
    """A product costs 2 operations. The backward pass has two products per product of the forward pass.

    In a first layer it has one. So the whole step costs between two and three times the forward pass.
    """
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
            SYSTEMS[config.model.system].part("cost").noise_batch(config, model, 2, ASSUMED[config.model.system]),
            draws,
            kl_weight=1e-4,
            teacher_forcing_ratio=0.0,
        )
    assert 2.4 < cost_of(config, ASSUMED[config.model.system], num_clips=2).flops / (counted[0] / 2) < 3.0


def test_costs_are_those_of_a_clip() -> None:
    config = tiny_config("reference_cvae")
    two, six = (cost_of(config, dance_cost.ASSUMED, num_clips=number) for number in (2, 6))
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
    sampler_bytes = sum(pixels.untyped_storage().nbytes() for pixels in (sampler.frames, sampler.poses))
    assert resident_bytes(config, data_folder) == sampler_bytes
    assert resident_bytes(tiny_config("conv_svg"), data_folder) == 0


@pytest.mark.parametrize("name", ["reference_cvae", "conv_svg"])
def test_the_run_is_the_steps_that_training_takes(
    name: str, data_folder: Path, pushing_folder: Path, tmp_path: Path
) -> None:
    folder = data_folder if name == "reference_cvae" else pushing_folder
    config = tiny_config(name, clips_per_epoch=0, batch_size=2, num_epochs=5)
    num_clips, training_set = clips_of_an_epoch(config, folder)
    steps = Trainer(config, open_data(config.dataset, folder), tmp_path, torch.device("cpu")).num_steps
    facts = facts_of(config, folder)
    assert facts == open_data(config.dataset, folder).manifest.facts == ASSUMED[config.model.system]
    cost = cost_of(config, facts, num_clips=1)
    text = describe(config, cost, num_clips=num_clips, training_set=training_set, resident=3 * 2**29)
    assert f"{steps:,} steps of 2 clips" in text
    assert f"{cost.num_parameters:,}" in text
    assert str(folder / config.dataset) in text
    assert "1.50 GiB for the training data" in text
    assert f"CPU threads ({torch.backends.cpu.get_cpu_capability()}, float32)" in text


@pytest.mark.parametrize(("name", "num_clips", "said"), [("lab_cvae", 7803, "23,410 frames"), ("svg", 41100, "clips")])
def test_without_data_the_published_size_is_assumed_and_printed(
    name: str, num_clips: int, said: str, tmp_path: Path
) -> None:
    found, training_set = clips_of_an_epoch(tiny_config(name), tmp_path)
    assert found == num_clips
    assert facts_of(tiny_config(name), tmp_path) == ASSUMED[tiny_config(name).model.system]
    assert said in training_set
    assert "is not packed" in training_set


@pytest.mark.parametrize(
    ("gpu", "precision", "expected"),
    [
        ("h200", "bfloat16", 64.0),  # the measured points themselves
        ("h200", "float32", 11.0),
        ("h100", "bfloat16", 64 * 3350 / 4800),  # the same arithmetic, so the memory decides
        ("t4", "float16", 64 * 65 / 989),
        ("p100", "float32", 11 * 9.3 / 67),
    ],
)
def test_a_gpu_reaches_the_measured_speed_times_the_lower_ratio(gpu: str, precision: str, expected: float) -> None:
    assert reached_tflops(GPUS[gpu], precision) == pytest.approx(expected)


def test_the_verdict_counts_sessions_and_the_week() -> None:
    t4 = gpu_named("T4")
    assert verdict(t4, 3600, 2**30).startswith(f"fits one session of {SESSION_HOURS:.0f} h; about 1.5 h in all, 5% of")
    assert verdict(t4, 20 * 3600, 2**30).startswith("needs 2 sessions of 12 h; about 21.0 h in all, 70% of")
    assert "does not fit one week" in verdict(t4, 40 * 3600, 2**30)
    assert verdict(t4, 60, 2**35) == "does not fit: it needs 32.0 GiB, a T4 has 15"
    assert verdict(GPUS["h100"], 1e6, 2**30) == "fits into the memory"
    with pytest.raises(UserError, match="GPU=t5 is not known; needed: one of t4, p100, h100, h200"):
        gpu_named("t5")


def test_the_chosen_gpu_and_its_precision_are_in_the_estimate() -> None:
    config = tiny_config("reference_cvae", precision="auto")
    cost = cost_of(config, dance_cost.ASSUMED, num_clips=1)
    for name, precision in (("t4", "float16"), ("p100", "float32")):
        text = describe(config, cost, num_clips=8, training_set="", resident=0, gpu=GPUS[name])
        assert f"estimated on a {name.upper()}" in text and f"of arithmetic in {precision} at" in text
        assert "fits one session of 12 h" in text


def test_durations_have_a_fitting_unit() -> None:
    assert [duration(seconds) for seconds in (0.4, 90, 300, 7200)] == ["0 s", "90 s", "5.0 min", "2.0 h"]
