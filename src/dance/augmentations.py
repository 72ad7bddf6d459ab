"""What may be done to a clip without changing its meaning: mirror images, whose limbs exchange colours, and shifts."""

import torch
from torch import Tensor
from torch.nn import functional

from src.dance.skeleton import LIMBS


def mirror_poses(poses: Tensor) -> Tensor:
    """Returns mirrored uint8 pose images (..., 3, H, W); what was drawn as a left limb is then drawn as a right one."""
    flipped = poses.flip(-1)
    flat = flipped.flatten(0, -4) if flipped.dim() > 3 else flipped[None]
    return torch.cat([_swap_sides(chunk) for chunk in flat.split(512)]).reshape(flipped.shape)


def shift_pictures(pictures: Tensor, down: int, right: int, *, beyond: int | None) -> Tensor:
    """Returns pictures (..., H, W) moved by so many pixels, negative ones up and to the left.

    What comes in from outside is `beyond`, or the nearest edge where that is None.
    """
    height, width = pictures.shape[-2:]
    top, left = abs(down) - down, abs(right) - right
    return _padded(pictures, abs(down), abs(right), beyond)[..., top : top + height, left : left + width]


def all_shifts(pictures: Tensor, down: int, right: int, *, beyond: int | None) -> Tensor:
    """Returns every move of (N, C, H, W) by at most so many pixels either way: (N, 2 down + 1, 2 right + 1, C, H, W).

    [:, down - y, right - x] is moved y pixels down and x to the right, as by `shift_pictures`. All of them are views
    of the same padded pictures and take no memory of their own.
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
    """Redraws every limb of (N, 3, H, W) uint8 in the colour of its twin on the other side.

    A limb's line is thin and blended with white, so a pixel's ink, white minus its colour, points in the direction of
    the limb's own ink. Each pixel goes to the limb it points to most; what that does not explain stays as it is.
    """
    ink = 255 - poses.float().movedim(1, -1)
    inks, twins = LIMB_INK.to(poses.device), TWIN_INK.to(poses.device)
    limb = (ink @ functional.normalize(inks, dim=1).T).argmax(dim=-1)
    own, twin = inks[limb], twins[limb]
    cover = (ink * own).sum(dim=-1, keepdim=True) / own.square().sum(dim=-1, keepdim=True)
    swapped = ink + cover * (twin - own)
    return (255 - swapped).round().clamp(0, 255).to(torch.uint8).movedim(-1, 1)


def _limb_inks() -> tuple[Tensor, Tensor]:
    """Returns the ink (limbs, 3) of each limb of the pose images, and that of its twin on the other side."""
    inks = {(start, end): 255.0 - torch.tensor(colour) for start, end, colour in LIMBS}
    twins = [inks[_other_side(start), _other_side(end)] for start, end in inks]
    return torch.stack(list(inks.values())), torch.stack(twins)


def _other_side(joint: str) -> str:
    exchange = {"left": "right", "right": "left"}
    return "_".join(exchange.get(word, word) for word in joint.split("_"))


LIMB_INK, TWIN_INK = _limb_inks()
