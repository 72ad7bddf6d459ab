"""Whether this machine has bfloat16 or fast float16 arithmetic, and so what `training.precision = "auto"` means on it.

A machine without bfloat16 arithmetic can still train in bfloat16. It converts the numbers for every operation, which is
slower than float32. So "auto" chooses bfloat16 only if the hardware has it.

A GPU of compute capability 7.x, such as a T4, has no bfloat16, but tensor cores for float16: 65 TFLOP/s against 8.
There "auto" chooses float16. A P100 (6.0) has no tensor cores. Its float16 is at best twice as fast as its float32, and
float16 overflows. There "auto" chooses float32. No CPU trains in float16 faster than in float32.
"""

import os
from pathlib import Path

import torch

from src.base.gpus import Precision

TENSOR_CORES = (7, 0)  # smallest compute capability with tensor cores for float16
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


def has_fast_float16(device: torch.device) -> bool:
    """Returns whether the device computes much faster in float16 than in float32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= TENSOR_CORES


def hardware_precision(device: torch.device) -> Precision:
    """Returns the precision that "auto" means on a device."""
    if has_bfloat16(device):
        return "bfloat16"
    return "float16" if has_fast_float16(device) else "float32"


def reason(device: torch.device) -> str:
    """Returns the reason for `hardware_precision`, as part of a sentence."""
    what = "GPU" if device.type == "cuda" else f"CPU ({instruction_set()})"
    if has_bfloat16(device):
        return f"this {what} computes in bfloat16"
    cores = ", but tensor cores for float16" if has_fast_float16(device) else ""
    return f"this {what} has no bfloat16 arithmetic{cores}"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns the context in which a training step computes in a precision."""
    kind = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, kind, enabled=precision != "float32")


def warning(device: torch.device, precision: str) -> str | None:
    """Returns a one-line warning about a precision in which this device trains slowly; None if it is not slow."""
    if precision == "float16" and device.type == "cpu":
        return "warning: a training step in float16 takes several times as long as in float32 on a CPU"
    if precision != "bfloat16" or device.type != "cpu" or has_bfloat16(device):
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
