"""Mirrored poses: every limb is drawn as its twin, and twice mirrored is hardly changed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from src.dataset import open_dance
from src.figure import INDEX, LIMBS, WIDTH, draw_poses
from src.mirror import mirror_poses, shift_pictures


def side_swapped(joint: str) -> str:
    return {"right": joint.replace("right", "left"), "left": joint.replace("left", "right")}.get(
        joint.split("_", maxsplit=1)[0], joint
    )


@pytest.mark.parametrize(("start", "end"), [(start, end) for start, end, _ in LIMBS])
def test_a_mirrored_limb_is_drawn_as_its_twin(start: str, end: str) -> None:
    def drawing(first: str, second: str, ends: list[tuple[float, float]]) -> torch.Tensor:
        positions, detected = np.zeros((1, len(INDEX), 2)), np.zeros((1, len(INDEX)), dtype=bool)
        for joint, place in zip((first, second), ends, strict=True):
            positions[0, INDEX[joint]], detected[0, INDEX[joint]] = place, True
        return torch.from_numpy(draw_poses(positions, detected)).permute(0, 3, 1, 2)

    ends = [(11.3, 5.2), (27.6, 21.9)]
    pose = drawing(start, end, ends)
    expected = drawing(side_swapped(start), side_swapped(end), [(WIDTH - x, y) for x, y in ends])
    mirrored = mirror_poses(pose)
    assert mirrored.dtype == torch.uint8
    assert (255 - pose.int()).sum() > 300  # something is drawn
    assert (mirrored.int() - expected.int()).abs().max() <= 4  # of 255; ink so thin is known to a few grey levels


def test_mirroring_twice_changes_little(data_folder: Path) -> None:
    poses = torch.from_numpy(np.array(open_dance("tiny", data_folder).train.poses))
    mirrored = mirror_poses(poses)
    ink = 255 - poses.int()
    assert (mirror_poses(mirrored).int() - poses.int()).abs().sum() < 0.1 * ink.sum()
    assert torch.equal((mirrored < 255).any(1), (poses < 255).any(1).flip(-1))
    assert torch.equal(mirror_poses(poses[:6].unflatten(0, (2, 3))).flatten(0, 1), mirrored[:6])
    assert torch.equal(mirror_poses(poses[0]), mirrored[0])


@pytest.mark.parametrize("beyond", [None, 255])
def test_a_shift_moves_every_pixel_of_a_clip_alike(beyond: int | None) -> None:
    clips = torch.randint(0, 256, (2, 3, 3, 5, 7), generator=torch.Generator().manual_seed(3)).byte()
    offsets = ((1, -2), (-3, 0))
    moved = shift_pictures(clips, torch.tensor(offsets), beyond=beyond)
    for clip, (down, right) in enumerate(offsets):
        for y in range(5):
            for x in range(7):
                from_y, from_x = y - down, x - right
                if beyond is not None and not (0 <= from_y < 5 and 0 <= from_x < 7):
                    assert (moved[clip, :, :, y, x] == beyond).all()
                else:
                    nearest = clips[clip, :, :, min(max(from_y, 0), 4), min(max(from_x, 0), 6)]
                    assert torch.equal(moved[clip, :, :, y, x], nearest)
