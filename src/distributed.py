"""Devices, ranks, reductions and keyed generators: the only file that knows torch.distributed."""

import hashlib
import logging
import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from src.console import UserError

EXPECTED_CODES = (2, 130)  # a user's mistake, told by its process, and a stop on request; others are our bugs


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the processes torchrun started (gloo on CPU, nccl on CUDA); does nothing in a single process."""
    if not is_launched():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    dist.barrier()  # one that fails at once would break the connections that the others are still making
    try:
        yield
    finally:
        dist.destroy_process_group()


def check_processes(wanted: str, device: str) -> int:
    """Returns the number of processes that GPUS asks for; UserError where it is none, or more than there are GPUs.

    Without any GPU, or with `training.device` "cpu", the processes share the CPU.
    """
    if not wanted.isdecimal() or int(wanted) < 1:
        raise UserError(f"GPUS={wanted}; needed: how many processes train together, GPUS=1 or GPUS=2 say")
    number, count = int(wanted), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number > 1 and device == "cuda" and not count:
        raise UserError(
            f'GPUS={number}, but no CUDA device is usable here; leave GPUS out, with training.device="auto"'
        )
    if device != "cpu" and number > count > 0:
        raise UserError(f"GPUS={number}, but only {count} can be used here; use GPUS={count}")
    return number


def launch(module: str, arguments: Sequence[str], num_processes: int) -> int:
    """Runs a module under torchrun and returns its exit code; what a process reported is raised as UserError, once."""
    # Only the launching process needs these, and they import much.
    from torch.distributed import run  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415

    logging.disable(logging.ERROR)  # torchrun tells of each ended process; this one says what has to be said
    try:
        run.run(run.parse_args(["--standalone", f"--nproc-per-node={num_processes}", "-m", module, *arguments]))
    except SignalException:  # the processes have got the signal too, and have saved
        return 130
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode not in EXPECTED_CODES:
            raise
        if failure.exitcode == 2 and failure.error_file_data:  # without: the process has said it itself
            raise UserError(failure.error_file_data["message"]["message"].partition(": ")[2]) from None
        return failure.exitcode
    return 0


def is_launched() -> bool:
    """Returns whether torchrun has started this process."""
    return dist.is_torchelastic_launched()


def report_mistake(error: UserError) -> None:
    """Leaves a user's mistake to the launching process: all processes meet it, and one line is enough."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler  # noqa: PLC0415  (as above)

    get_error_handler().record_exception(error)


def rank() -> int:
    """Returns this process's number, 0..world_size-1."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Returns the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """Returns this process's number on its machine, which is also its CUDA device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def pick_device(wanted: str) -> torch.device:
    """Returns the device for "auto", "cpu" or "cuda"; UserError where CUDA is demanded and this process has none."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cuda" and not count:
        raise UserError('training.device = "cuda", but no CUDA device is usable here; use SET="training.device=auto"')
    if wanted == "cpu" or not count:
        return torch.device("cpu")
    if local_rank() >= count:
        raise UserError(f"process {local_rank() + 1} has no GPU of its own: there are {count}; use GPUS={count}")
    torch.cuda.set_device(local_rank())
    torch.backends.cudnn.allow_tf32 = False  # float32 shall mean float32 in final rollouts; training has bfloat16
    return torch.device("cuda", local_rank())


def hardware() -> str:
    """Returns this machine in one line: processor, cores, GPUs."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(
        [f"{model}, {os.cpu_count()} cores", *(f"{count} x {gpu}" for gpu, count in Counter(gpus).items())]
    )


def mean_over_processes(values: Tensor) -> Tensor:
    """Returns the mean of a tensor over all processes, on each of them."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values = values / world_size()
    return values


def share(flag: bool, device: torch.device) -> bool:
    """Returns true on every process as soon as `flag` is true on one of them."""
    if not dist.is_initialized():
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def keyed_generator(seed: int, purpose: str, *position: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Returns a generator that depends on the seed, the purpose and the position (step, clip, ...) alone.

    So a resumed run draws what an unbroken one draws, and any number of processes draws what one draws.
    """
    return torch.Generator(device=device).manual_seed(keyed_seed(seed, purpose, *position))


def keyed_seed(seed: int, purpose: str, *position: int) -> int:
    """Returns a seed in [0, 2^63) that depends on the seed, the purpose and the position alone.

    Sums of seeds would not do: run 0's second sample would be run 1's first.
    """
    key = hashlib.sha256(repr((seed, purpose, position)).encode()).digest()
    return int.from_bytes(key[:8], "little") >> 1


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step; neither resuming nor the number of processes changes them."""

    seed: int
    step: int
    clips: range  # positions of this process's clips in the global batch
    device: torch.device

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Returns standard normal numbers (B, *shape), one generator per clip."""
        draw = [torch.randn(shape, generator=self._generator(purpose, clip), device=self.device) for clip in self.clips]
        return torch.stack(draw)

    def uniform(self, purpose: str, count: int = 1) -> Tensor:
        """Returns uniform numbers in [0, 1) of shape (B, count), one generator per clip."""
        draw = [torch.rand(count, generator=self._generator(purpose, clip), device=self.device) for clip in self.clips]
        return torch.stack(draw)

    def shared_uniform(self, purpose: str, count: int) -> Tensor:
        """Returns uniform numbers in [0, 1) of shape (count,) on the CPU, the same on all processes."""
        return torch.rand(count, generator=keyed_generator(self.seed, purpose, self.step))

    def _generator(self, purpose: str, clip: int) -> torch.Generator:
        return keyed_generator(self.seed, purpose, self.step, clip, device=self.device)
