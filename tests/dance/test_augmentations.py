"""Mirroring exchanges the colours of left and right limbs. Mirroring twice changes little. Shifts move each pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch

from src.dance.augmentations import all_shifts, mirror_poses, shift_pictures
from src.dance.skeleton import LIMBS
from src.dataset import open_data
from src.synthetic.dancer_drawing import INDEX, WIDTH, draw_poses


def side_swapped(joint: str) -> str:
    return {"right": joint.replace("right", "left"), "left": joint.replace("left", "right")}.get(
        joint.split("_", maxsplit=1)[0], joint
    )


@pytest.mark.parametrize(("start", "end"), [(start, end) for start, end, _ in LIMBS])
def test_a_mirrored_limb_has_the_colour_of_the_other_side(start: str, end: str) -> None:
    def drawing(first: str, second: str, ends: list[tuple[float, float]]) -> torch.Tensor:
        positions = np.zeros((1, len(INDEX), 2))
        detected = np.zeros((1, len(INDEX)), dtype=bool)
        for joint, place in zip((first, second), ends, strict=True):
            positions[0, INDEX[joint]] = place
            detected[0, INDEX[joint]] = True
        return torch.from_numpy(draw_poses(positions, detected)).permute(0, 3, 1, 2)

    ends = [(11.3, 5.2), (27.6, 21.9)]
    pose = drawing(start, end, ends)
    expected = drawing(side_swapped(start), side_swapped(end), [(WIDTH - x, y) for x, y in ends])
    mirrored = mirror_poses(pose)
    assert mirrored.dtype == torch.uint8
    assert (255 - pose.int()).sum() > 300  # the limb is visible
    assert (mirrored.int() - expected.int()).abs().max() <= 4  # of 255; pale pixels are exact to a few grey levels


def test_mirroring_twice_changes_little(data_folder: Path) -> None:
    poses = torch.from_numpy(np.array(open_data("tiny", data_folder).train.poses))
    mirrored = mirror_poses(poses)
    darkness = 255 - poses.int()
    assert (mirror_poses(mirrored).int() - poses.int()).abs().sum() < 0.1 * darkness.sum()
    assert torch.equal((mirrored < 255).any(1), (poses < 255).any(1).flip(-1))
    assert torch.equal(mirror_poses(poses[:6].unflatten(0, (2, 3))).flatten(0, 1), mirrored[:6])
    assert torch.equal(mirror_poses(poses[0]), mirrored[0])


def moved_by_hand(pictures: torch.Tensor, down: int, right: int, beyond: int | None) -> torch.Tensor:
    """Returns the shifted pictures, computed by a loop over pixels."""
    height, width = pictures.shape[-2:]
    moved = torch.empty_like(pictures)
    for y in range(height):
        for x in range(width):
            from_y, from_x = y - down, x - right
            if beyond is not None and not (0 <= from_y < height and 0 <= from_x < width):
                moved[..., y, x] = beyond
            else:
                moved[..., y, x] = pictures[..., min(max(from_y, 0), height - 1), min(max(from_x, 0), width - 1)]
    return moved


@pytest.mark.parametrize("beyond", [None, 255])
def test_a_shift_moves_every_pixel_alike(beyond: int | None) -> None:
    clips = torch.randint(0, 256, (2, 3, 3, 5, 7), generator=torch.Generator().manual_seed(3)).byte()
    for down, right in ((1, -2), (-3, 0), (0, 0)):
        assert torch.equal(shift_pictures(clips, down, right, beyond=beyond), moved_by_hand(clips, down, right, beyond))


@pytest.mark.parametrize("beyond", [None, 255])
def test_every_shift_is_a_view(beyond: int | None) -> None:
    pictures = torch.randint(0, 256, (4, 3, 5, 7), generator=torch.Generator().manual_seed(3)).byte()
    moves = all_shifts(pictures, 1, 2, beyond=beyond)
    assert moves.shape == (4, 3, 5, 3, 5, 7)
    for down in (-1, 0, 1):
        for right in (-2, -1, 0, 1, 2):
            assert torch.equal(moves[:, 1 - down, 2 - right], moved_by_hand(pictures, down, right, beyond))
    assert moves.untyped_storage().nbytes() == 4 * 3 * (5 + 2) * (7 + 4)
