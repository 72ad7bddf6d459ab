"""A function recorded once as a CUDA graph: one launch then does all its work.

Python needs tens of microseconds to launch one operation, and an operation of a small network keeps the GPU busy for
less. In bfloat16 a step of `dance` takes 61 ms operation by operation, and 34 ms as a graph (reports/gpu.md).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


class Recording:
    """A function of tensors, recorded for inputs of one shape. The inputs and the result may be nested tuples.

    The function may read and change other tensors, such as weights. It must not read a number from the GPU, nor choose
    its way by one. Gradients do not flow through the recording.
    """

    def __init__(self, function: Callable[..., Any], *inputs: Any) -> None:
        """Calls the function once, which does its work, and then records it. `first`: the result of that call."""
        self.inputs = tree_map(torch.clone, inputs)
        own = torch.cuda.Stream()  # as torch asks for: a graph cannot be recorded on the default stream
        own.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(own):
            self.first = function(*self.inputs)
        torch.cuda.current_stream().wait_stream(own)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=own):
            self.result = function(*self.inputs)

    def __call__(self, *inputs: Any) -> Any:
        """Returns what the function would return, as new tensors."""
        for own, new in zip(tree_leaves(self.inputs), tree_leaves(inputs), strict=True):
            own.copy_(new, non_blocking=True)
        self.graph.replay()
        return tree_map(Tensor.clone, self.result)
