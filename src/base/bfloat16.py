"""Whether this machine computes in bfloat16 at full speed, and what `training.precision = "auto"` means here.

A machine without bfloat16 arithmetic still accepts it: the numbers are converted for every operation, which is slower
than float32. So "auto" takes bfloat16 only where the hardware has it.
"""

import os
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]
BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")  # of a processor that has it; Linux and torch use the same names
# With these values of ONEDNN_MAX_CPU_ISA, convolutions do not use bfloat16 instructions. Any other value sets no limit.
LIMITS_BELOW_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
SLOWER = {"AVX2": "7 to 13 times", "AVX512": "about 2 times"}  # a step in bfloat16, measured, by instruction set


def instruction_set() -> str:
    """Returns the instructions that torch uses on this CPU, "AVX2" say; ATEN_CPU_CAPABILITY can lower them."""
    return torch.backends.cpu.get_cpu_capability()


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether the device computes in bfloat16 itself, with the limits that the environment sets."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    limits = {os.environ.get(name, "").upper() for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")}
    if instruction_set() != "AVX512" or limits.intersection(LIMITS_BELOW_BFLOAT16):
        return False
    return not _cpu_flags().isdisjoint(BFLOAT16_FLAGS)


def hardware_precision(device: torch.device) -> Precision:
    """Returns what "auto" means on a device."""
    return "bfloat16" if has_bfloat16(device) else "float32"


def reason(device: torch.device) -> str:
    """Returns in words what `hardware_precision` goes by."""
    what = "GPU" if device.type == "cuda" else f"CPU ({instruction_set()})"
    return f"this {what} {'computes in bfloat16' if has_bfloat16(device) else 'has no bfloat16 arithmetic'}"


def warning(device: torch.device) -> str | None:
    """Returns one line on training in bfloat16 on a CPU that is slow in it; None where it is not slow."""
    if device.type != "cpu" or has_bfloat16(device):
        return None
    slower = SLOWER.get(instruction_set(), "several times")
    return f"warning: {reason(device)}: a training step in bfloat16 takes {slower} as long as in float32"


def _cpu_flags() -> set[str]:
    """Returns the names of what this processor can do; empty where it does not say."""
    if hasattr(torch.cpu, "get_capabilities"):  # not in the oldest torch that is supported
        return {name for name, has_it in torch.cpu.get_capabilities().items() if has_it is True}
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}
