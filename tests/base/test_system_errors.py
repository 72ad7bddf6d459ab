"""The system's refusals: one line each, for every error that a file system, memory or process table can give."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from src.base.system_errors import WORDS, explained
from tests.conftest import ROOT


@pytest.mark.parametrize("number", sorted(WORDS))
def test_every_known_number_has_one_line(number: int) -> None:
    line = explained(OSError(number, os.strerror(number), "a.npy"))
    assert line and "\n" not in line and line[-1] not in ".;"
    assert ("a.npy" in line) == (number not in (errno.ENOMEM, errno.EAGAIN))


def test_our_own_mistakes_are_not_explained() -> None:
    assert [explained(error) for error in (OSError("ours"), RuntimeError("shape mismatch"), KeyError("a"))] == [
        None
    ] * 3


def test_memory_that_runs_out_is_recognised() -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))

    script = (
        "import torch, numpy\n"
        "from src.base.system_errors import explained\n"
        "for ask in (lambda: torch.empty(2**34), lambda: numpy.ones(2**34), lambda: bytearray(2**36)):\n"
        "    try:\n        ask()\n    except BaseException as error:\n        print(explained(error))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], preexec_fn=limited, capture_output=True, text=True, cwd=ROOT, check=True
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 3 and all(line.startswith("memory ran out; ") for line in lines)
    assert explained(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")) == lines[0]
    assert explained(np.exceptions.AxisError("axis")) is None


def test_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError) as error:
        (tmp_path / ("n" * 300)).write_text("")
    assert explained(error.value) == f"{tmp_path}/{'n' * 300}: {WORDS[errno.ENAMETOOLONG]}"
