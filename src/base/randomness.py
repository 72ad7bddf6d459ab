"""Random numbers that depend only on a key: the seed, the purpose and the position (step, clip)."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


def keyed_generator(seed: int, purpose: str, *position: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Returns a generator that depends only on the seed, the purpose and the position (step, clip, ...).

    So a resumed run gets the same numbers as an uninterrupted run, and N processes the same as one.
    """
    return torch.Generator(device=device).manual_seed(keyed_seed(seed, purpose, *position))


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
        draw = [torch.randn(shape, generator=self._generator(purpose, clip), device=self.device) for clip in self.clips]
        return torch.stack(draw)

    def uniform(self, purpose: str, count: int = 1) -> Tensor:
        """Returns uniform numbers in [0, 1) of shape (B, count); each clip has its own generator."""
        draw = [torch.rand(count, generator=self._generator(purpose, clip), device=self.device) for clip in self.clips]
        return torch.stack(draw)

    def shared_uniform(self, purpose: str, count: int) -> Tensor:
        """Returns uniform numbers in [0, 1) of shape (count,) on the CPU, the same on all processes."""
        return torch.rand(count, generator=keyed_generator(self.seed, purpose, self.step))

    def _generator(self, purpose: str, clip: int) -> torch.Generator:
        return keyed_generator(self.seed, purpose, self.step, clip, device=self.device)
