"""Writing a synthetic data set: into an empty folder, in several processes."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from src.base.console import UserError, track
from src.base.processes import end_pool_process_with_parent

Job = TypeVar("Job")


def check_empty(folder: Path) -> None:
    """Raises UserError if `folder` exists and is not an empty folder."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; name a new folder, or empty this one first")


def write_all(
    write: Callable[[Job], None],
    jobs: Sequence[Job],
    *,
    min_jobs: int,
    chunk_size: int,
    num_processes: int | None = None,
) -> None:
    """Calls `write` for each job, and shows the progress.

    The jobs are shared by `num_processes` processes, by default one for each core. There are fewer if a process would
    get less than `min_jobs` jobs, because a process needs about as long as these to start. With several processes,
    `write` must be picklable, and each process takes `chunk_size` jobs at a time.
    """
    processes = min(num_processes or os.cpu_count() or 1, -(-len(jobs) // min_jobs))
    if processes == 1:
        deque(track(map(write, jobs), "drawing", len(jobs)), maxlen=0)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), end_pool_process_with_parent) as pool:
        deque(track(pool.map(write, jobs, chunksize=chunk_size), "drawing", len(jobs)), maxlen=0)
