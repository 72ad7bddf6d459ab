"""The device that a command uses, and a description of this machine."""

import os
import platform
import re
import resource
from collections import Counter
from pathlib import Path

import torch

from src.base.console import UserError
from src.base.distributed import local_rank

NO_LIMIT = 2**63 - 1


def check_processes(wanted: str, device: str) -> int:
    """Returns the number of processes that GPUS asks for.

    Raises UserError for a text that is no positive integer, and for more processes than GPUs.
    Without any GPU, or with `training.device` "cpu", the processes share the CPU.
    """
    if not wanted.isdecimal() or int(wanted) < 1:
        raise UserError(f"GPUS={wanted}; needed: how many processes train together, for example GPUS=1 or GPUS=2")
    number = int(wanted)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number > 1 and device == "cuda" and not count:
        raise UserError(
            f'GPUS={number}, but no CUDA device is usable here; leave GPUS out and set training.device="auto"'
        )
    if device != "cpu" and number > count > 0:
        raise UserError(f"GPUS={number}, but only {count} can be used here; use GPUS={count}")
    return number


def pick_device(wanted: str) -> torch.device:
    """Returns the device for "auto", "cpu" or "cuda".

    Raises UserError for "cuda" without a usable GPU, and where this process has no GPU of its own.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cuda" and not count:
        raise UserError('training.device = "cuda", but no CUDA device is usable here; use SET="training.device=auto"')
    if wanted == "cpu" or not count:
        _limit_memory()
        return torch.device("cpu")
    if local_rank() >= count:
        raise UserError(f"process {local_rank() + 1} has no GPU of its own: there are {count}; use GPUS={count}")
    torch.cuda.set_device(local_rank())
    torch.backends.cudnn.allow_tf32 = False  # final rollouts need full float32; training uses bfloat16 for speed
    return torch.device("cuda", local_rank())


def _limit_memory() -> None:
    """Limits this process to the memory that is free, so that an allocation beyond it is an error.

    Otherwise Linux grants the memory, and kills the process without a word when it is used.
    """
    meminfo = Path("/proc/meminfo")
    found = re.search(r"MemAvailable: +([0-9]+) kB", meminfo.read_text()) if meminfo.is_file() else None
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if found and soft == resource.RLIM_INFINITY:
        limit, used = container_memory()
        free = min(int(found[1]) * 1024, limit - used)
        resource.setrlimit(resource.RLIMIT_DATA, (max(free, 0) * 9 // 10, hard))  # a tenth is for others


def container_memory(root: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Returns the bytes that this container may use, and those in use that cannot be freed; no limit is 2^63 - 1.

    `docker run --memory`, Slurm and Kubernetes set such a limit. /proc/meminfo does not show it.
    """
    for limit_file, used_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit = (root / limit_file).read_text(encoding="ascii").strip()
            used = int((root / used_file).read_text(encoding="ascii"))
            statistics = (root / limit_file).with_name("memory.stat").read_text(encoding="ascii")
        except (OSError, ValueError):
            continue
        cached = re.findall(r"^(?:total_)?inactive_file ([0-9]+)$", statistics, re.MULTILINE)[-1:]
        if limit.isdecimal() and int(limit) < NO_LIMIT:
            return int(limit), max(0, used - sum(map(int, cached)))
    return NO_LIMIT, 0


def memory_bytes() -> int:
    """Returns the size of this machine's memory in bytes, or of this container's."""
    return min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), container_memory()[0])


def hardware() -> str:
    """Returns a description of this machine in one line: processor, cores, GPUs."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(
        [f"{model}, {os.cpu_count()} cores", *(f"{count} x {gpu}" for gpu, count in Counter(gpus).items())]
    )


def visible_gpus() -> list[str]:
    """Returns the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(torch.cuda.device_count())]
    return [name.strip() for name in named.split(",") if name.strip()]
