"""Commands that run at the same time, for one parent: they share the machine, and a stop signal reaches all of them."""

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Generic, NamedTuple, Protocol, TypeVar

from src.base.console import say
from src.base.processes import Stopped, environment_of_child, handled, leave_terminal

POLL_SECONDS = 0.05


class Child(Protocol):
    """A command that runs."""

    def poll(self) -> int | None:
        """Returns the exit code; None while the command runs."""

    def send_signal(self, number: int, /) -> None:
        """Sends a signal to the command."""


class Start(Protocol):
    """Starts a command."""

    def __call__(self, command: Sequence[str], *, label: str, place: int) -> Child:
        """`label` names the command. No command that runs at the same time has its `place`: 0, 1, ..."""


T = TypeVar("T")
Steps = Generator[Sequence[str], int | None, T]  # of a task: gives commands, is sent their exit codes, returns a result


class Running(NamedTuple, Generic[T]):
    """A task with a command that runs."""

    label: str
    steps: Steps[T]
    child: Child


class Starter:
    """Starts commands of which at most `at_once` run at the same time, with equal shares of the machine.

    The cores are divided. With several GPUs, the commands use them in turn. The lines of a command begin with its label
    if several run at once. If this process is killed, so are its commands.
    """

    def __init__(self, at_once: int, gpus: Sequence[str] = ()) -> None:
        """`gpus` are the GPUs' names in CUDA_VISIBLE_DEVICES."""
        self.at_once = at_once
        self.gpus = gpus

    def __call__(self, command: Sequence[str], *, label: str, place: int) -> Child:
        """Starts a command in a session of its own, so that only this process receives Ctrl-C."""
        environment = environment_of_child()
        if self.at_once == 1:
            return subprocess.Popen(command, start_new_session=True, env=environment)
        environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // self.at_once)))
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[place % len(self.gpus)]
        child = subprocess.Popen(
            command, start_new_session=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        threading.Thread(target=_copy_lines, args=(child, label)).start()  # the program ends after the last line
        return child


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _copy_lines(child: "subprocess.Popen[bytes]", label: str) -> None:
    assert child.stdout is not None, "it is a pipe"
    for line in child.stdout:
        say(f"{label}: {line.decode(errors='replace').rstrip()}")


def run_side_by_side(tasks: Iterable[tuple[str, Steps[T]]], start: Start, at_once: int) -> Iterator[tuple[str, T]]:
    """Runs the commands of labelled tasks, at most `at_once` at a time. Gives each task's label and result as it ends.

    A stop signal is passed on to the commands that run: the first one as SIGTERM, after which the trainer saves and
    ends; the second one as SIGINT, which ends the trainer at once. Then this raises Stopped.
    """
    waiting = deque(tasks)
    running: dict[int, Running[T]] = {}  # by place
    with _passing_signals_on(running) as received:
        while waiting or running:
            free = [place for place in range(at_once) if place not in running]
            if free and waiting:
                place = free[0]
                label, steps = waiting.popleft()
                code = None
            else:
                place, code = _wait_for_one(running)
                label, steps, _ = running.pop(place)
            if received:
                waiting.clear()
                continue
            try:
                command = steps.send(code)
            except StopIteration as end:
                yield label, end.value
                continue
            running[place] = Running(label, steps, start(command, label=label, place=place))
            if received:  # while it started
                running[place].child.send_signal(signal.SIGTERM)


@contextmanager
def _passing_signals_on(running: Mapping[int, Running[T]]) -> Iterator[list[int]]:
    """Gives the list of the stop signals received so far. Raises Stopped at the end if there was one."""
    received: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        leave_terminal(number)
        for _, _, child in running.values():
            child.send_signal(signal.SIGINT if received else signal.SIGTERM)
        received.append(number)

    with handled(pass_on):
        yield received
    if received:
        say("run the same command again to continue")
        raise Stopped(received[0])


def _wait_for_one(running: Mapping[int, Running[T]]) -> tuple[int, int]:
    """Waits until one of the commands has ended. Returns its place and its exit code."""
    while True:
        for place, (_, _, child) in running.items():
            if (code := child.poll()) is not None:
                return place, code
        time.sleep(POLL_SECONDS)
