"""Times work on a GPU."""

import statistics
import time
from collections.abc import Callable

import torch


def seconds_of(work: Callable[[], object], repeats: int, *, warm_up: int = 1) -> list[float]:
    """Returns the seconds of each of `repeats` calls after `warm_up` others. The GPU is waited for after each."""
    seconds = []
    for repeat in range(warm_up + repeats):
        _wait()
        started = time.perf_counter()
        work()
        _wait()
        if repeat >= warm_up:
            seconds.append(time.perf_counter() - started)
    return seconds


def in_ms(seconds: list[float]) -> dict[str, float]:
    """Returns the median, the smallest and the largest time in ms."""
    ordered = sorted(1e3 * second for second in seconds)
    return {"ms": statistics.median(ordered), "smallest": ordered[0], "largest": ordered[-1]}


def forget_peak() -> None:
    """Frees what is cached and begins a new peak of the GPU's memory."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    """Returns the peak of the GPU's memory since `forget_peak`, in GiB; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
