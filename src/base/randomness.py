"""Random numbers that depend only on a key: the seed, the purpose and the position (step, clip)."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def keyed_generator(seed: int, purpose: str, *position: int) -> torch.Generator:
    """Returns a generator of the CPU that depends only on the seed, the purpose and the position (step, clip, ...).

    So a resumed run gets the same numbers as an uninterrupted run, and N processes the same as one.
    """
    return torch.Generator().manual_seed(keyed_seed(seed, purpose, *position))


def keyed_seed(seed: int, purpose: str, *position: int) -> int:
    """Returns a seed in [0, 2^63) that depends only on the seed, the purpose and the position.

    A hash and not a sum: with seed + position, the second sample of run 0 would equal the first sample of run 1.
    """
    key = hashlib.sha256(repr((seed, purpose, position)).encode()).digest()
    return int.from_bytes(key[:8], "little") >> 1


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step. Resuming and the number of processes do not change them."""

    seed: int
    step: int
    clips: range  # positions of this process's clips in the batch of all processes
    device: torch.device

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Returns standard normal numbers (B, *shape); each clip has its own generator."""
        return self._draw(purpose, shape, Tensor.normal_)

    def uniform(self, purpose: str, count: int = 1) -> Tensor:
        """Returns uniform numbers in [0, 1) of shape (B, count); each clip has its own generator."""
        return self._draw(purpose, (count,), Tensor.uniform_)

    def shared_uniform(self, purpose: str, count: int) -> Tensor:
        """Returns uniform numbers in [0, 1) of shape (count,) on the CPU, the same on all processes."""
        return torch.rand(count, generator=keyed_generator(self.seed, purpose, self.step))

    def _draw(self, purpose: str, shape: tuple[int, ...], fill: Callable[..., Tensor]) -> Tensor:
        """Returns (B, *shape), each clip filled in place with its own numbers.

        The CPU draws for every device, so the numbers are the same everywhere. One copy brings them to the device.
        A GPU does not wait for it, because the memory is pinned.
        """
        drawn = torch.empty(len(self.clips), *shape, pin_memory=self.device.type == "cuda")
        for clip, own in zip(self.clips, drawn.unbind(), strict=True):
            fill(own, generator=keyed_generator(self.seed, purpose, self.step, clip))
        return drawn.to(self.device, non_blocking=True)
