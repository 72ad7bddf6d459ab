"""Ctrl-C and SIGTERM while training."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from src.base.distributed import is_launched


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM while training: the step in progress is finished and saved; a second Ctrl-C kills.

    Under torchrun, which passes every Ctrl-C on a second time, it kills after 30 seconds instead.
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
