"""What may be done to a clip without changing its meaning: mirror images, whose limbs exchange colours, and shifts."""

import torch
from torch import Tensor
from torch.nn import functional

from src.figure import LIMBS

WHITE = 255  # the ground of pose images


def mirror_poses(poses: Tensor) -> Tensor:
    """Returns mirrored uint8 pose images (..., 3, H, W); what was drawn as a left limb is then drawn as a right one."""
    flipped = poses.flip(-1)
    flat = flipped.flatten(0, -4) if flipped.dim() > 3 else flipped[None]
    return torch.cat([_swap_sides(chunk) for chunk in flat.split(512)]).reshape(flipped.shape)


def shift_pictures(pictures: Tensor, offsets: Tensor, *, beyond: int | None) -> Tensor:
    """Returns pictures (B, ..., H, W) of any type moved by offsets (B, 2) int64, in pixels down and to the right.

    What comes in from outside is `beyond`, or the nearest edge where that is None.
    """
    height, width = pictures.shape[-2:]
    rows = torch.arange(height, device=pictures.device) - offsets[:, :1]
    columns = torch.arange(width, device=pictures.device) - offsets[:, 1:]
    seen_rows, seen_columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    moved = torch.stack(  # clip by clip: one gather over all of them takes several times as long
        [
            clip.index_select(-2, seen_rows[number]).index_select(-1, seen_columns[number])
            for number, clip in enumerate(pictures)
        ]
    )
    if beyond is None:
        return moved
    outside = (rows != seen_rows)[:, :, None] | (columns != seen_columns)[:, None, :]
    return moved.masked_fill(outside.view(len(pictures), *[1] * (pictures.dim() - 3), height, width), beyond)


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
