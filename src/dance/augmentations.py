"""Augmentations of a clip: mirror images and shifts. In a mirrored pose, left and right limbs exchange colours."""

import torch
from torch import Tensor
from torch.nn import functional

from src.dance.skeleton import LIMBS


def mirror_poses(poses: Tensor) -> Tensor:
    """Returns mirrored pose images, (..., 3, H, W) uint8. Left limbs get the colours of right limbs, and vice versa."""
    flipped = poses.flip(-1)
    flat = flipped.flatten(0, -4) if flipped.dim() > 3 else flipped[None]
    return torch.cat([_swap_sides(chunk) for chunk in flat.split(512)]).reshape(flipped.shape)


def shift_pictures(pictures: Tensor, down: int, right: int, *, beyond: int | None) -> Tensor:
    """Returns pictures (..., H, W) shifted by `down` and `right` pixels; negative numbers shift up and to the left.

    New pixels have the value `beyond`. If it is None, they repeat the nearest edge pixel.
    """
    height, width = pictures.shape[-2:]
    top, left = abs(down) - down, abs(right) - right
    return _padded(pictures, abs(down), abs(right), beyond)[..., top : top + height, left : left + width]


def all_shifts(pictures: Tensor, down: int, right: int, *, beyond: int | None) -> Tensor:
    """Returns all shifts of (N, C, H, W) by at most `down` and `right` pixels: (N, 2 down + 1, 2 right + 1, C, H, W).

    [:, down - y, right - x] is shifted y pixels down and x to the right, as by `shift_pictures`. All shifts are views
    of the same padded pictures, so they need no memory of their own.
    """
    height, width = pictures.shape[-2:]
    padded = _padded(pictures, down, right, beyond)
    return padded.unfold(-2, height, 1).unfold(-2, width, 1).permute(0, 2, 3, 1, 4, 5)


def _padded(pictures: Tensor, rows: int, columns: int, beyond: int | None) -> Tensor:
    if beyond is not None:
        return functional.pad(pictures, (columns, columns, rows, rows), value=beyond)
    height, width = pictures.shape[-2:]
    near_rows = torch.arange(-rows, height + rows, device=pictures.device).clamp(0, height - 1)
    near_columns = torch.arange(-columns, width + columns, device=pictures.device).clamp(0, width - 1)
    return pictures.index_select(-2, near_rows).index_select(-1, near_columns)


def _swap_sides(poses: Tensor) -> Tensor:
    """Returns pose images (N, 3, H, W) uint8 in which every limb has the colour of the same limb on the other side.

    The darkness of a pixel is white minus its colour. A limb is a thin line that is blended with white. So the darkness
    of its pixels has the direction of the limb's own darkness. Each pixel is assigned to the limb with the most similar
    direction. The part of its darkness along that direction is replaced; the rest stays.
    """
    darkness = 255 - poses.float().movedim(1, -1)
    limbs = LIMB_DARKNESS.to(poses.device)
    opposite_limbs = OPPOSITE_DARKNESS.to(poses.device)
    nearest = (darkness @ functional.normalize(limbs, dim=1).T).argmax(dim=-1)
    own = limbs[nearest]
    opposite = opposite_limbs[nearest]
    cover = (darkness * own).sum(dim=-1, keepdim=True) / own.square().sum(dim=-1, keepdim=True)
    swapped = darkness + cover * (opposite - own)
    return (255 - swapped).round().clamp(0, 255).to(torch.uint8).movedim(-1, 1)


def _limb_darkness() -> tuple[Tensor, Tensor]:
    """Returns the darkness (limbs, 3) of each of `LIMBS`, and that of the same limb on the other side."""
    own = {(start, end): 255.0 - torch.tensor(colour) for start, end, colour in LIMBS}
    opposite = [own[_other_side(start), _other_side(end)] for start, end in own]
    return torch.stack(list(own.values())), torch.stack(opposite)


def _other_side(joint: str) -> str:
    exchange = {"left": "right", "right": "left"}
    return "_".join(exchange.get(word, word) for word in joint.split("_"))


LIMB_DARKNESS, OPPOSITE_DARKNESS = _limb_darkness()
