"""Devices, ranks, reductions and keyed generators: the only file that knows torch.distributed."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from src.base.console import UserError

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


def refuse_unequal_shares(batch_size: int, num_processes: int) -> None:
    """Raises UserError where the clips of a batch cannot be shared equally by so many processes."""
    if batch_size % num_processes:
        raise UserError(
            f"training.batch_size = {batch_size} cannot be shared by {num_processes} processes; "
            "use another GPUS or another batch size"
        )


def local_rank() -> int:
    """Returns this process's number on its machine, which is also its CUDA device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


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
