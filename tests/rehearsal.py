"""A rehearsal of CUDA without a GPU: tensors that know their shape and device, but hold no numbers.

torch's FakeTensorMode refuses an operation on tensors of different devices, as a GPU would. It computes nothing. So
where code reads a number from a tensor, the rehearsal answers with a number of the test's choice. The autograd engine
needs a real GPU, so no gradient is computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from src.models.interface import build_model

CUDA = torch.device("cuda", 0)


class Answers(TorchDispatchMode):
    """Answers with `answer` where a number is read from a tensor, and counts the numbers that are read from a GPU."""

    def __init__(self, answer: float) -> None:
        super().__init__()
        self.answer = answer
        self.read_from_gpu = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.read_from_gpu += args[0].device.type == "cuda"
            kind = {torch.bool: bool, torch.int64: int, torch.uint8: int}.get(args[0].dtype, float)
            return kind(self.answer)
        return func(*args, **(kwargs or {}))


@contextmanager
def rehearsal(answer: float = 1.0) -> Iterator[Answers]:
    """Within it, tensors are fake and may be on "cuda". answer: every number that is read from a tensor."""
    answers = Answers(answer)
    with FakeTensorMode(allow_non_fake_inputs=True), answers:
        yield answers


def build_real(*arguments: Any, **settings: Any) -> nn.Module:
    """Returns a model whose weights are real. `Module.to` then makes fake ones; it cannot move fake weights."""
    with unset_fake_temporarily():
        return build_model(*arguments, **settings)


def on_gpu(*tensors: Any) -> bool:
    """Returns whether all tensors are on the rehearsed GPU."""
    return all(isinstance(tensor, FakeTensor) and tensor.device == CUDA for tensor in tensors)
