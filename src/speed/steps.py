"""The training step of each model on a GPU: operation by operation, as a CUDA graph, and compiled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from src.base.randomness import Draws
from src.base.systems import SYSTEMS
from src.config import Config, load_config
from src.cost import Cost, cost_of
from src.intake.facts import DataFacts
from src.models.interface import build_model, compile_blocks
from src.speed.clock import forget_peak, in_ms, peak_gib, seconds_of
from src.training.resolution import resolved
from src.training.update import EAGER_UPDATES, RecordedUpdate, Update

Mode = Literal["eager", "CUDA graph", "compiled"]
RECIPES = ("dance", "dance_mini", "dance_lab_sound", "pushing", "pushing_lp")  # reference_cvae, lab_cvae, conv_svg, svg
PRECISIONS = ("float32", "TF32", "bfloat16", "float16")  # TF32: float32 numbers, multiplied with fewer digits
SMALL_STEP = {"learning_rate": 1e-5, "kl_weight": 1e-4, "teacher_forcing_ratio": 0.0}
Row = dict[str, Any]


@dataclass(frozen=True)
class Peaks:
    """What the GPU reaches in this run: products of large matrices in TFLOP/s, and copies in bytes per second."""

    tflops: dict[str, float]
    bytes_per_s: float


@contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """Within it, products of float32 numbers are computed in TF32, or not."""
    switches: tuple[Any, Any] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = wanted
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def measured_peaks(device: torch.device, size: int = 8192) -> Peaks:
    """Measures the peaks: products of two square matrices, and a copy of 1 GiB, which is read and written."""
    tflops = {}
    for name in PRECISIONS:
        kind = getattr(torch, "float32" if name == "TF32" else name)
        left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        with tf32(name == "TF32"):
            milliseconds = in_ms(seconds_of(partial(torch.mm, left, right), 10, warm_up=3))["ms"]
        tflops[name] = 2 * size**3 / milliseconds / 1e9
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    milliseconds = in_ms(seconds_of(lambda: target.copy_(source), 10, warm_up=3))["ms"]
    return Peaks(tflops, 2 * 2**30 / milliseconds * 1e3)


def recipe(name: str, *, precision: str) -> tuple[Config, DataFacts]:
    """Returns the configuration of configs/<name>.toml in a precision, and the facts of its full data set."""
    kind = "float32" if precision == "TF32" else precision
    config = load_config(Path("configs") / f"{name}.toml", f"training.precision={kind}")
    facts = SYSTEMS[config.model.system].part("cost").ASSUMED
    return resolved(config, facts), facts


def step_of(config: Config, facts: DataFacts, mode: Mode, device: torch.device) -> Callable[[], Tensor]:
    """Returns a function that takes one training step on clips of noise and returns its losses."""
    torch.manual_seed(0)
    settings = config.training
    model = build_model(config, **facts.network).to(device)
    if settings.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if mode == "compiled":
        compile_blocks(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    update: Any = Update(model, model, optimizer, settings, device)
    if mode == "CUDA graph":
        update = RecordedUpdate(update)
    noise = SYSTEMS[config.model.system].part("cost").noise_batch(config, model, settings.batch_size, facts)
    batch = type(noise)(*(part.to(device) for part in vars(noise).values()))
    steps = count()

    def step() -> Tensor:
        return update(batch, Draws(0, next(steps), range(settings.batch_size), device), **SMALL_STEP)

    return step


def floor_ms(cost: Cost, num_clips: int, peaks: Peaks, precision: str) -> float:
    """Returns the least time of a step in ms: arithmetic at the peak, or each kept activation written and read.

    The activations are counted in float32, or half of it in bfloat16 and float16.
    """
    arithmetic = cost.flops * num_clips / (peaks.tflops[precision] * 1e12)
    share = 0.5 if precision in ("bfloat16", "float16") else 1.0
    memory = 2 * share * cost.activation_bytes * num_clips / peaks.bytes_per_s
    return 1e3 * max(arithmetic, memory)


def step_rows(
    name: str, mode: Mode, precisions: tuple[str, ...], *, peaks: Peaks, repeats: int, device: torch.device
) -> Iterator[Row]:
    """Yields one row for each precision: milliseconds, the floor, and the peak of memory in GiB."""
    plain, facts = recipe(name, precision="float32")
    cost = cost_of(plain, facts, num_clips=1)
    for precision in precisions:
        config, facts = recipe(name, precision=precision)
        forget_peak()
        with tf32(precision == "TF32"):
            step = step_of(config, facts, mode, device)
            times = in_ms(seconds_of(step, repeats, warm_up=EAGER_UPDATES + 3))
        least = floor_ms(cost, config.training.batch_size, peaks, precision)
        yield {
            "recipe": name,
            "model": config.model.name,
            "clips": f"{config.training.batch_size} x {config.training.window} frames",
            "precision": precision,
            "mode": mode,
            **times,
            "floor_ms": least,
            "times_floor": times["ms"] / least,
            "tflops": cost.flops * config.training.batch_size / times["ms"] / 1e9,
            "peak_gib": peak_gib(),
        }
        del step
