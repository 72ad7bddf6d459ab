"""Where two checkpoints differ: the first value that is not the same, tensors bit by bit."""

from collections.abc import Iterator
from typing import Any

import torch


def first_difference(first: Any, second: Any) -> str | None:
    """Returns the name of the first value that differs and how; None if both are equal, tensors bit by bit."""
    before, after = dict(_leaves(first, "checkpoint")), dict(_leaves(second, "checkpoint"))
    for name, old in before.items():
        if name not in after:
            return f"{name}: only the first has it"
        if (found := _difference(old, after[name])) is not None:
            return f"{name}: {found}"
    return next((f"{name}: only the second has it" for name in after if name not in before), None)


def _difference(old: Any, new: Any) -> str | None:
    if not (isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor)):
        return None if type(old) is type(new) and old == new else f"{old!r} and {new!r}"
    if old.shape != new.shape or old.dtype != new.dtype:
        return f"{old.dtype} {tuple(old.shape)} and {new.dtype} {tuple(new.shape)}"
    return None if torch.equal(old, new) else f"differs by up to {(old.double() - new.double()).abs().max():.3g}"


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{place}[{number}]")
    else:
        yield place, value
