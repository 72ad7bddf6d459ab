"""Random numbers that depend on a key alone: the seed, the purpose and the position (step, clip)."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


def keyed_generator(seed: int, purpose: str, *position: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Returns a generator that depends on the seed, the purpose and the position (step, clip, ...) alone.

    So a resumed run draws what an unbroken one draws, and any number of processes draws what one draws.
    """
    return torch.Generator(device=device).manual_seed(keyed_seed(seed, purpose, *position))


def keyed_seed(seed: int, purpose: str, *position: int) -> int:
    """Returns a seed in [0, 2^63) that depends on the seed, the purpose and the position alone.

    Sums of seeds would not do: run 0's second sample would be run 1's first.
    """
    key = hashlib.sha256(repr((seed, purpose, position)).encode()).digest()
    return int.from_bytes(key[:8], "little") >> 1


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step; neither resuming nor the number of processes changes them."""

    seed: int
    step: int
    clips: range  # positions of this process's clips in the global batch
    device: torch.device

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Returns standard normal numbers (B, *shape), one generator per clip."""
        draw = [torch.randn(shape, generator=self._generator(purpose, clip), device=self.device) for clip in self.clips]
        return torch.stack(draw)

    def uniform(self, purpose: str, count: int = 1) -> Tensor:
        """Returns uniform numbers in [0, 1) of shape (B, count), one generator per clip."""
        draw = [torch.rand(count, generator=self._generator(purpose, clip), device=self.device) for clip in self.clips]
        return torch.stack(draw)

    def shared_uniform(self, purpose: str, count: int) -> Tensor:
        """Returns uniform numbers in [0, 1) of shape (count,) on the CPU, the same on all processes."""
        return torch.rand(count, generator=keyed_generator(self.seed, purpose, self.step))

    def _generator(self, purpose: str, clip: int) -> torch.Generator:
        return keyed_generator(self.seed, purpose, self.step, clip, device=self.device)
