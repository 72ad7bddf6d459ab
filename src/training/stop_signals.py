"""Ctrl-C and SIGTERM during training."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from src.base.distributed import is_launched


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yields a list that collects Ctrl-C and SIGTERM, so that training can finish its step and save.

    A second Ctrl-C kills the process. Under torchrun it does not, because torchrun sends each Ctrl-C twice. There,
    torchrun kills the process after 30 seconds.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        if not is_launched():
            signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
