"""The rollout of five test sequences on a GPU: operation by operation, as a CUDA graph, and compiled."""

from collections.abc import Iterator
from functools import partial

import torch

from src.evaluation.rollout import rollout
from src.models.interface import build_model, compile_blocks
from src.speed.clock import in_ms, seconds_of
from src.speed.steps import Mode, Row, recipe, tf32

NUM_SEQUENCES, LENGTH = 5, 630  # the competition's


def rollout_rows(
    name: str, modes: tuple[Mode, ...], repeats: int, device: torch.device, length: int = LENGTH
) -> Iterator[Row]:
    """Yields one row for each mode, in float32, as a csv is drawn. `largest_difference` is that to the first mode."""
    config, facts = recipe(name, precision="float32")
    torch.manual_seed(0)
    model = build_model(config, **facts.network).to(device).eval()
    height, width = facts.frame_size
    poses = torch.rand(NUM_SEQUENCES, length, 3, height, width, device=device)
    noise = torch.zeros(NUM_SEQUENCES, length, *model.latent_shape, device=device)
    first = None
    for mode in modes:
        if mode == "compiled":
            compile_blocks(model)
        draw = partial(rollout, model, poses[:, :1], poses, noise, records=mode == "CUDA graph")
        with tf32(False):
            times = in_ms(seconds_of(draw, repeats))
            drawn = draw()
        first = drawn if first is None else first
        yield {
            "recipe": name,
            "model": config.model.name,
            "frames": f"{NUM_SEQUENCES} x {length}",
            "mode": mode,
            **times,
            "largest_difference": (drawn - first).abs().max().item(),
        }
