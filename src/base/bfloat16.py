"""Whether this machine has bfloat16 arithmetic, and so what `training.precision = "auto"` means on it.

A machine without bfloat16 arithmetic can still train in bfloat16. It converts the numbers for every operation, which is
slower than float32. So "auto" chooses bfloat16 only if the hardware has it.
"""

import os
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]
BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")  # flags of a processor with bfloat16; Linux and torch use the same names
# With these values of ONEDNN_MAX_CPU_ISA, convolutions use no bfloat16 instructions. Other values allow them.
LIMITS_BELOW_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
SLOWER = {
    "AVX2": "7 to 13 times",
    "AVX512": "about 2 times",
}  # measured: a step in bfloat16 takes this many times as long as in float32


def instruction_set() -> str:
    """Returns the instruction set that torch uses on this CPU, such as "AVX2"; ATEN_CPU_CAPABILITY can limit it."""
    return torch.backends.cpu.get_cpu_capability()


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether the device has bfloat16 arithmetic that the environment variables do not disable."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    limits = {os.environ.get(name, "").upper() for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")}
    if instruction_set() != "AVX512" or limits.intersection(LIMITS_BELOW_BFLOAT16):
        return False
    return not _cpu_flags().isdisjoint(BFLOAT16_FLAGS)


def hardware_precision(device: torch.device) -> Precision:
    """Returns the precision that "auto" means on a device."""
    return "bfloat16" if has_bfloat16(device) else "float32"


def reason(device: torch.device) -> str:
    """Returns the reason for `hardware_precision`, as part of a sentence."""
    what = "GPU" if device.type == "cuda" else f"CPU ({instruction_set()})"
    return f"this {what} {'computes in bfloat16' if has_bfloat16(device) else 'has no bfloat16 arithmetic'}"


def warning(device: torch.device) -> str | None:
    """Returns a one-line warning about slow training in bfloat16 on this CPU; None if it is not slow."""
    if device.type != "cpu" or has_bfloat16(device):
        return None
    slower = SLOWER.get(instruction_set(), "several times")
    return f"warning: {reason(device)}: a training step in bfloat16 takes {slower} as long as in float32"


def _cpu_flags() -> set[str]:
    """Returns the feature flags of this processor; empty if they cannot be read."""
    if hasattr(torch.cpu, "get_capabilities"):  # not in the oldest torch that is supported
        return {name for name, has_it in torch.cpu.get_capabilities().items() if has_it is True}
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}
