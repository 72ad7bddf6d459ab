"""Training in several processes: start, ranks, reductions. No other file uses torch.distributed."""

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from src.base.console import UserError

EXPECTED_CODES = (2, 130)  # a user's mistake and a stop on request; any other exit code is a bug


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Connects the processes that torchrun has started: gloo on CPU, nccl on CUDA. Does nothing for one process."""
    if not is_launched():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    dist.barrier()  # wait for all: a process that ends early would break connections that others still open
    try:
        yield
    finally:
        dist.destroy_process_group()


def launch(module: str, arguments: Sequence[str], num_processes: int) -> int:
    """Runs a module under torchrun and returns its exit code.

    Raises UserError, once, for a user's mistake that the processes have reported.
    """
    # Imported here because they are slow to import and only the launching process needs them.
    from torch.distributed import run  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.api import SignalException  # noqa: PLC0415
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415

    logging.disable(logging.ERROR)  # torchrun logs each ended process; the error below is enough
    try:
        run.run(run.parse_args(["--standalone", f"--nproc-per-node={num_processes}", "-m", module, *arguments]))
    except SignalException:  # the processes have received the signal too and have saved
        return 130
    except ChildFailedError as error:
        # When one process ends, torchrun stops the others, perhaps before they have ended by themselves.
        failures = [each for each in error.failures.values() if each.exitcode != -signal.SIGTERM]
        failure = min(failures or error.failures.values(), key=lambda each: each.timestamp)
        if failure.exitcode not in EXPECTED_CODES:
            raise
        if failure.exitcode == 2 and failure.error_file_data:  # without a file the process has printed the error itself
            raise UserError(failure.error_file_data["message"]["message"].partition(": ")[2]) from None
        return failure.exitcode
    return 0


def is_launched() -> bool:
    """Returns whether torchrun has started this process."""
    return dist.is_torchelastic_launched()


def is_first_process() -> bool:
    """Returns whether this is the process that writes: the only one, or torchrun's process 0."""
    return os.environ.get("RANK", "0") == "0"


def report_mistake(error: UserError) -> None:
    """Passes a user's mistake to the launching process, which prints it once for all processes."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler  # noqa: PLC0415  (as above)

    get_error_handler().record_exception(error)


def rank() -> int:
    """Returns the number of this process, 0 .. world_size - 1."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Returns the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def refuse_unequal_shares(batch_size: int, num_processes: int) -> None:
    """Raises UserError where the clips of a batch cannot be shared equally by so many processes."""
    if batch_size % num_processes:
        raise UserError(
            f"training.batch_size = {batch_size} cannot be shared by {num_processes} processes; "
            "use another GPUS or another batch size"
        )


def local_rank() -> int:
    """Returns the number of this process on its machine, which is also the number of its CUDA device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def mean_over_processes(values: Tensor) -> Tensor:
    """Returns the mean of a tensor over all processes, the same on each of them; `values` stay as they are."""
    if not dist.is_initialized():
        return values
    total = values.clone()  # `all_reduce` overwrites its argument
    dist.all_reduce(total)
    return total / world_size()


def any_process(flag: bool, device: torch.device) -> bool:
    """Returns whether `flag` is true on at least one process; every process gets the same answer."""
    if not dist.is_initialized():
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())
