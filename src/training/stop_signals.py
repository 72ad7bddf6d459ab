"""Ctrl-C, SIGTERM and a closed terminal during training."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from src.base.distributed import is_launched
from src.base.processes import Stopped, handled, leave_terminal


class Stops:
    """The stop signals that a training has received."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._ends_at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A signal in this block raises `Stopped`, and does not wait. The block must be one that can be repeated.

        It waits under torchrun, because the other processes would wait for this one.
        """
        self._ends_at_once = not is_launched()
        try:
            yield
        finally:
            self._ends_at_once = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal. A second Ctrl-C kills the process.

        Under torchrun it does not, because torchrun sends each Ctrl-C twice. There, torchrun kills the process after 30
        seconds.
        """
        leave_terminal(number)
        self.received.append(number)
        if not is_launched():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._ends_at_once:
            raise Stopped(number)


@contextmanager
def stop_signals() -> Iterator[Stops]:
    """Yields an object that collects the stop signals, so that training can finish its step and save."""
    stops = Stops()
    with handled(stops.note):
        yield stops
