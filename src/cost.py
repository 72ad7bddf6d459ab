"""`make cost`: estimates a run's parameters, arithmetic, memory and hours before the run starts.

    python -m src.cost configs/dance.toml --gpu t4

One real training step on a few clips of noise is measured. torch's counter counts its arithmetic. The memory is the sum
of all tensors that autograd keeps. Both grow in proportion to the clips. The speed is that of this machine. The time on
a GPU is estimated (src/base/gpus.py) as the larger of two times: the arithmetic, and the least time of all operations.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from src.base.bfloat16 import autocast, hardware_precision, instruction_set
from src.base.console import run_program, say
from src.base.gpus import H200, Gpu, Precision, gpu_named, reached_tflops, verdict
from src.base.names import toml_file
from src.base.randomness import Draws
from src.base.systems import SYSTEMS
from src.commands import cost_options
from src.config import Config, load_config
from src.intake.facts import DataFacts
from src.intake.manifest import Manifest
from src.models.interface import build_model
from src.training.resolution import resolved, resolved_for

BYTES_PER_WEIGHT = 4 * 5  # float32: weight, gradient, two moments of AdamW, moving average


@dataclass(frozen=True)
class Cost:
    """What training costs: arithmetic and activation bytes of one clip, and seconds of one step on this machine."""

    num_parameters: int
    flops: float
    num_kernels: int  # of a step of any number of clips; about one per operation
    activation_bytes: float
    step_seconds: float
    num_clips: int  # clips of the measured step


class OperationCounter(TorchDispatchMode):
    """Counts the operations that compute something. Views compute nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def cost_of(config: Config, facts: DataFacts, *, num_clips: int) -> Cost:
    """Returns the cost per clip, measured on one training step of `num_clips` clips."""
    model = build_model(config, **facts.network)
    batch = SYSTEMS[config.model.system].part("cost").noise_batch(config, model, num_clips, facts)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    keeping = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FlopCounterMode(display=False) as flops, OperationCounter() as operations, keeping:
        _step(config, model, batch, num_clips)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    activations = sum(size for pointer, size in kept.items() if pointer not in weights)
    started = time.perf_counter()
    _step(config, model, batch, num_clips)
    seconds = time.perf_counter() - started
    return Cost(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=flops.get_total_flops() / num_clips,
        num_kernels=operations.count,
        activation_bytes=activations / num_clips,
        step_seconds=seconds,
        num_clips=num_clips,
    )


def _step(config: Config, model: Any, batch: Any, num_clips: int) -> None:
    draws = Draws(config.seed, 0, range(num_clips), torch.device("cpu"))
    with autocast(torch.device("cpu"), precision_here(config)):
        loss = model(batch, draws, kl_weight=1e-4, teacher_forcing_ratio=0.0)
    loss.total.backward()


def precision_here(config: Config) -> Precision:
    """Returns the precision of a training step on this CPU."""
    wanted = config.training.precision
    return hardware_precision(torch.device("cpu")) if wanted == "auto" else wanted


def facts_of(config: Config, data_folder: Path) -> DataFacts:
    """Returns the facts of the run's data set. If it is not packed, returns the facts that the system assumes."""
    manifest = _manifest(config, data_folder)
    return manifest.facts if manifest else SYSTEMS[config.model.system].part("cost").ASSUMED


def clips_of_an_epoch(config: Config, data_folder: Path) -> tuple[int, str]:
    """Returns how many clips cover the training set once, and a description of that set: packed or assumed."""
    folder = data_folder / config.dataset
    manifest = _manifest(config, data_folder)
    num_clips, training_set = SYSTEMS[config.model.system].part("cost").clips_of_an_epoch(config, manifest)
    return num_clips, f"{training_set} of {folder}" if manifest else f"{training_set}; {folder} is not packed"


def resident_bytes(config: Config, data_folder: Path) -> int:
    """Returns how many bytes of the training set stay on the device."""
    return SYSTEMS[config.model.system].part("cost").resident_bytes(config, _manifest(config, data_folder))


def _manifest(config: Config, data_folder: Path) -> Manifest | None:
    folder = data_folder / config.dataset
    return Manifest.load(folder) if (folder / "manifest.json").is_file() else None


def describe(config: Config, cost: Cost, *, num_clips: int, training_set: str, resident: int, gpu: Gpu = H200) -> str:
    """Returns the estimate in words.

    num_clips: clips that cover the training set once. training_set: its description. resident: its bytes on the device.
    gpu: the one that the time is estimated for.
    """
    settings = config.training
    clips = settings.clips_per_epoch or num_clips
    steps = max(1, clips // settings.batch_size) * settings.num_epochs
    flops = cost.flops * settings.batch_size * steps
    memory = cost.activation_bytes * settings.batch_size + BYTES_PER_WEIGHT * cost.num_parameters
    speed = cost.num_clips / cost.step_seconds
    return "\n".join(
        (
            f"parameters            {cost.num_parameters:,}",
            f"a clip                {cost.flops / 1e9:.2f} GFLOP forward and backward, "
            f"{cost.activation_bytes / 2**20:.1f} MiB of activations",
            f"training set          {training_set}",
            f"the run               {steps:,} steps of {settings.batch_size} clips, {flops / 1e15:.2f} PFLOP",
            f"memory                {memory / 2**30:.2f} GiB for weights, optimiser and a step's activations, "
            f"{resident / 2**30:.2f} GiB for the training data; rollouts are not counted",
            f"measured here         {speed:.2f} clips/s on {torch.get_num_threads()} CPU threads "
            f"({instruction_set()}, {precision_here(config)}), "
            f"{cost.flops * speed / 1e9:.0f} GFLOP/s; the run: {duration(settings.batch_size * steps / speed)}",
            *_estimate(gpu, settings.precision, flops, steps * cost.num_kernels, memory + resident),
        )
    )


def _estimate(gpu: Gpu, wanted: str, flops: float, num_kernels: int, memory: float) -> tuple[str, str]:
    """Returns the lines on the time on a GPU: how long, from what, and whether it fits."""
    precision = gpu.precision if wanted == "auto" else wanted
    speed = reached_tflops(gpu, precision)
    busy = flops / (speed * 1e12)
    in_turn = num_kernels * gpu.operation_seconds
    seconds = max(busy, in_turn)
    return (
        f"estimated on a {gpu.name:<6} {duration(seconds)}: {duration(busy)} of arithmetic in {precision} at "
        f"{speed:.1f} TFLOP/s, {duration(in_turn)} at least for all operations; scaled from "
        "runs on an H200 by published peaks, may be wrong by a factor of two",
        f"does it fit           {verdict(gpu, seconds, memory)}",
    )


def duration(seconds: float) -> str:
    """Returns a duration in words, in s, min or h."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def main() -> None:
    """The command line."""
    arguments = cost_options()
    gpu = gpu_named(arguments.gpu or "h200")
    config = load_config(toml_file(arguments.config, Path("configs"), "RUN"), arguments.set)
    facts = facts_of(config, Path("data"))
    manifest = _manifest(config, Path("data"))
    config = resolved_for(config, manifest) if manifest else resolved(config, facts)
    num_clips, training_set = clips_of_an_epoch(config, Path("data"))
    cost = cost_of(config, facts, num_clips=arguments.clips)
    resident = resident_bytes(config, Path("data"))
    say(describe(config, cost, num_clips=num_clips, training_set=training_set, resident=resident, gpu=gpu))


if __name__ == "__main__":
    run_program(main)
