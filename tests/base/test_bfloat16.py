"""What "auto" means on other machines: CPUs with other flags, limits from the environment, GPUs."""

import pytest
import torch

from src.base import bfloat16
from src.base.bfloat16 import hardware_precision, has_bfloat16, instruction_set, reason, warning

CPU = torch.device("cpu")
GPU = torch.device("cuda")
NEW = {"avx2", "avx512_f", "avx512_bf16", "amx_bf16"}
OLD = {"avx2", "avx512_f"}


def pretend(monkeypatch: pytest.MonkeyPatch, instructions: str, flags: set[str], **limits: str) -> None:
    """Simulates a CPU with these flags, and a torch that uses these instructions."""
    monkeypatch.setattr(bfloat16, "instruction_set", lambda: instructions)
    monkeypatch.setattr(bfloat16, "_cpu_flags", lambda: flags)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in limits.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("instructions", "flags", "limits", "expected"),
    [
        ("AVX512", NEW, {}, "bfloat16"),
        ("AVX512", {"avx512_bf16"}, {}, "bfloat16"),
        ("AVX512", {"amx_bf16"}, {}, "bfloat16"),
        ("AVX512", OLD, {}, "float32"),
        ("AVX2", NEW, {}, "float32"),  # as with ATEN_CPU_CAPABILITY=avx2
        ("DEFAULT", NEW, {}, "float32"),
        ("AVX512", NEW, {"ONEDNN_MAX_CPU_ISA": "AVX2"}, "float32"),
        ("AVX512", NEW, {"ONEDNN_MAX_CPU_ISA": "avx512_core"}, "float32"),
        ("AVX512", NEW, {"DNNL_MAX_CPU_ISA": "AVX2"}, "float32"),
        ("AVX512", NEW, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "bfloat16"),
        ("AVX512", NEW, {"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, "bfloat16"),
        ("SVE256", set(), {}, "float32"),
    ],
)
def test_a_cpu_trains_in_bfloat16_where_it_has_it(
    instructions: str, flags: set[str], limits: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, instructions, flags, **limits)
    assert hardware_precision(CPU) == expected
    assert (warning(CPU, "bfloat16") is None) == has_bfloat16(CPU) == (expected == "bfloat16")


@pytest.mark.parametrize(
    ("gpu", "capability", "expected", "why"),
    [
        ("P100", (6, 0), "float32", "this GPU has no bfloat16 arithmetic"),
        ("V100", (7, 0), "float16", "this GPU has no bfloat16 arithmetic, but tensor cores for float16"),
        ("T4", (7, 5), "float16", "this GPU has no bfloat16 arithmetic, but tensor cores for float16"),
        ("A100", (8, 0), "bfloat16", "this GPU computes in bfloat16"),
        ("H100", (9, 0), "bfloat16", "this GPU computes in bfloat16"),
    ],
)
def test_a_gpu_trains_in_what_its_tensor_cores_have(
    gpu: str, capability: tuple[int, int], expected: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emulated bfloat16 does not count."""
    native = capability >= (8, 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert hardware_precision(GPU) == expected
    assert reason(GPU) == why
    assert warning(GPU, "bfloat16") is None


def test_the_warning_has_the_factor_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "AVX2", set())
    assert "this CPU (AVX2) has no bfloat16 arithmetic" in str(warning(CPU, "bfloat16"))
    assert "7 to 13 times" in str(warning(CPU, "bfloat16"))
    pretend(monkeypatch, "AVX512", OLD)
    assert "about 2 times" in str(warning(CPU, "bfloat16"))


def test_this_processor_is_known() -> None:
    assert instruction_set() == torch.backends.cpu.get_cpu_capability()
    assert {"sse2", "fp", "neon"} & bfloat16._cpu_flags() or not bfloat16._cpu_flags()


def test_the_flags_are_those_that_linux_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = bfloat16._cpu_flags() & {"avx2", "avx512_bf16", "amx_bf16"}
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert bfloat16._cpu_flags() & {"avx2", "avx512_bf16", "amx_bf16"} == asked or not bfloat16._cpu_flags()
