"""How long a training takes on a GPU that is not here: an estimate from measured runs on an H200.

A run is assumed to be limited by the memory's bandwidth or by the arithmetic, on every GPU in the same proportion as
on the H200 (reports/gpu_first.md). The lower of the two published ratios scales the measured speed. To this comes the
time of the operations one after the other, however small they are: the longer of the two times counts. On one GPU a
step is recorded as a CUDA graph, so Python does not launch them. Several GPUs, whose steps are not recorded, wait for
Python and take longer.
"""

from dataclasses import dataclass
from typing import Literal

from src.base.console import UserError

Precision = Literal["float32", "bfloat16", "float16"]

SESSION_HOURS = 12.0  # Kaggle ends a session with a GPU after this time
WEEKLY_HOURS = 30.0  # of GPU time that Kaggle gives in a week
OTHER_STEPS_HOURS = 0.5  # assumed for packing, validations, evaluation and the csv


@dataclass(frozen=True)
class Gpu:
    """Published numbers of a GPU, and what a training on it uses."""

    name: str
    precision: Precision  # that `training.precision = "auto"` chooses
    half_tflops: float  # dense peak in that half precision
    float32_tflops: float
    gigabytes_per_s: float
    memory_gib: float
    operation_seconds: float  # the least time of one operation in a recorded step
    is_kaggles: bool = False


# Measured on an H100 (reports/gpu.md): 11 to 21 microseconds, the step's time divided by `Cost.num_kernels`.
H200 = Gpu("H200", "bfloat16", 989.0, 67.0, 4800.0, 140.0, 1.5e-5)
# The small operations of Kaggle's GPUs are assumed to take twice as long.
GPUS = {
    "t4": Gpu("T4", "float16", 65.0, 8.1, 320.0, 15.0, 3e-5, is_kaggles=True),
    "p100": Gpu("P100", "float32", 18.7, 9.3, 732.0, 16.0, 3e-5, is_kaggles=True),
    "h100": Gpu("H100", "bfloat16", 989.0, 67.0, 3350.0, 79.0, 1.5e-5),
    "h200": H200,
}
REACHED_TFLOPS = {"half": 64.0, "float32": 11.0}  # measured: a step of `dance` on the H200, without waiting for Python


def gpu_named(name: str) -> Gpu:
    """Returns the GPU with a name; UserError if it is not known."""
    if name.lower() not in GPUS:
        raise UserError(f"GPU={name} is not known; needed: one of {', '.join(GPUS)}")
    return GPUS[name.lower()]


def reached_tflops(gpu: Gpu, precision: str) -> float:
    """Returns the estimated arithmetic of a training, in TFLOP/s."""
    kind = "float32" if precision == "float32" else "half"
    peaks = [(one.float32_tflops if kind == "float32" else one.half_tflops) for one in (gpu, H200)]
    return REACHED_TFLOPS[kind] * min(peaks[0] / peaks[1], gpu.gigabytes_per_s / H200.gigabytes_per_s)


def verdict(gpu: Gpu, seconds: float, memory_bytes: float) -> str:
    """Returns whether a training fits: into the memory, and on Kaggle into a session and into the week."""
    if memory_bytes > gpu.memory_gib * 2**30:
        return f"does not fit: it needs {memory_bytes / 2**30:.1f} GiB, a {gpu.name} has {gpu.memory_gib:.0f}"
    if not gpu.is_kaggles:
        return "fits into the memory"
    hours = seconds / 3600
    sessions = max(1, -int(-hours // (SESSION_HOURS - OTHER_STEPS_HOURS)))
    total = hours + sessions * OTHER_STEPS_HOURS
    fits = "fits one session" if sessions == 1 else f"needs {sessions} sessions"
    week = f"{total / WEEKLY_HOURS:.0%} of the week's {WEEKLY_HOURS:.0f} h"
    over = "" if total <= WEEKLY_HOURS else ", so it does not fit one week"
    return f"{fits} of {SESSION_HOURS:.0f} h; about {total:.1f} h in all, {week}{over}"
