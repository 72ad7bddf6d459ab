"""How fast an epoch is trained. A resumed run goes on measuring the epoch in which it stopped."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from typing_extensions import TypedDict  # pydantic needs it before Python 3.12


class ClockState(TypedDict):
    """The clock in a checkpoint."""

    first_step: int
    seconds: float
    data_seconds: float


def clock_at(step: int) -> ClockState:
    """Returns the state of a clock that starts at a step."""
    return {"first_step": step, "seconds": 0.0, "data_seconds": 0.0}


class EpochClock:
    """The time since an epoch has begun, and the part of it that was spent waiting for batches."""

    def __init__(self) -> None:
        self.start(0)

    def start(self, step: int) -> None:
        """Begins an epoch at a step."""
        self.restore(clock_at(step))

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Measures how long a batch takes."""
        started = time.monotonic()
        yield
        self._data_seconds += time.monotonic() - started

    def speed(self, step: int, batch_size: int) -> dict[str, float]:
        """Returns `clips_per_s` and `data_share` of the epoch, from its first step to `step`."""
        seconds = time.monotonic() - self._started
        num_clips = (step - self._first_step) * batch_size
        return {"clips_per_s": num_clips / seconds, "data_share": self._data_seconds / seconds}

    def state(self) -> ClockState:
        """Returns what `restore` needs."""
        seconds = time.monotonic() - self._started
        return {"first_step": self._first_step, "seconds": seconds, "data_seconds": self._data_seconds}

    def restore(self, state: ClockState) -> None:
        """Goes on from a saved state."""
        self._first_step = state["first_step"]
        self._started = time.monotonic() - state["seconds"]
        self._data_seconds = state["data_seconds"]
