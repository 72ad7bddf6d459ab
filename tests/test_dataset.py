"""Clips: where they may start, what belongs together in one, who draws which; mirrored poses; opening a data set."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.config import Augmentation
from src.console import UserError
from src.dataset import Batch, ClipSampler, Footage, mirror_poses, open_dance, to_unit, window_starts, with_context
from src.figure import INDEX, LIMBS, WIDTH, draw_poses

HEIGHT, NARROW = 4, 6
TAKES = ((0, 7), (7, 9), (9, 24))
UNCHANGED = Augmentation(mirror=False)


def numbered_footage(takes: tuple[tuple[int, int], ...] = TAKES) -> Footage:
    """Frame t is 5 t everywhere but for its left column, 5 t + 1; its pose is one grey level brighter."""
    frames = np.zeros((takes[-1][1], 3, HEIGHT, NARROW), dtype=np.uint8)
    frames += 5 * np.arange(len(frames), dtype=np.uint8)[:, None, None, None]
    frames[..., 0] += 1
    return Footage(frames, frames + 2, takes)


def sampler(*, window: int = 2, context: int = 1, seed: int = 0, augmentation: Augmentation = UNCHANGED) -> ClipSampler:
    device = torch.device("cpu")
    return ClipSampler(
        numbered_footage(), window=window, context=context, augmentation=augmentation, seed=seed, device=device
    )


def frame_numbers(pixels: torch.Tensor) -> list[list[int]]:
    """The number of each picture of clips (B, T, 3, H, W) in [0, 1] of `numbered_footage`, flipped or not."""
    return ((255 * pixels[..., 0, 0, 1]).round().long() // 5).tolist()


def is_flipped(pictures: torch.Tensor) -> list[bool]:
    return (pictures[..., 0, 0, 0] < pictures[..., 0, 0, -1]).tolist()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 7))
def test_windows_never_cross_a_cut(lengths: list[int], window: int) -> None:
    edges = np.cumsum([0, *lengths]).tolist()
    takes = tuple(pairwise(edges))
    take_of = [number for number, (start, stop) in enumerate(takes) for _ in range(start, stop)]
    expected = [
        start
        for start in range(edges[-1])
        if start + window <= edges[-1] and len({take_of[start + step] for step in range(window)}) == 1
    ]
    assert window_starts(takes, window).tolist() == expected


def test_an_epoch_holds_every_window_once() -> None:
    clips = sampler()
    num_windows = 6 + 1 + 14
    starts = [
        clip[0] for first in range(0, num_windows, 7) for clip in frame_numbers(clips.batch(3, first, range(7)).frames)
    ]
    assert sorted(starts) == [start for start in range(23) if start not in (6, 8)]
    assert starts != sorted(starts)
    again = [clip[0] for clip in frame_numbers(clips.batch(4, 0, range(num_windows)).frames)]
    assert sorted(again) == sorted(starts)
    assert again != starts


def test_a_clip_belongs_together() -> None:
    takes_seen = set()
    for epoch in range(6):
        batch = sampler(window=2, context=3).batch(epoch, 0, range(15))
        for frames, poses, reference, its_pose in zip(
            frame_numbers(batch.frames),
            frame_numbers(batch.poses),
            frame_numbers(batch.reference[:, None]),
            frame_numbers(batch.reference_pose[:, None]),
            strict=True,
        ):
            ((low, high),) = [take for take in TAKES if take[0] <= frames[0] < take[1]]
            assert frames == [frames[0], frames[0] + 1]
            assert low <= frames[0] and frames[-1] < high
            assert poses == [min(max(frames[0] + step, low), high - 1) for step in range(-3, 5)]
            assert low <= reference[0] < high
            assert reference == its_pose
            takes_seen.add((low, high))
    assert takes_seen == set(TAKES)


def test_references_come_from_the_whole_take() -> None:
    references = [
        (clip[0], reference[0])
        for epoch in range(40)
        for batch in [sampler().batch(epoch, 0, range(21))]
        for clip, reference in zip(frame_numbers(batch.frames), frame_numbers(batch.reference[:, None]), strict=True)
    ]
    assert {reference for start, reference in references if start < 7} == set(range(7))
    assert {reference for start, reference in references if start >= 9} == set(range(9, 24))


def test_pixels_are_scaled_once() -> None:
    batch = sampler().batch(0, 0, range(4))
    for part in (batch.frames, batch.poses, batch.reference, batch.reference_pose):
        assert part.dtype == torch.float32
        assert part.min() >= 0
        assert part.max() <= 1
        assert torch.equal(part * 255, (part * 255).round())
    assert torch.equal(to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8)), torch.tensor([0.0, 0.2, 1.0]))
    with pytest.raises(AssertionError):
        to_unit(torch.rand(2))


@pytest.mark.parametrize("augmentation", [UNCHANGED, Augmentation(mirror=True)])
@pytest.mark.parametrize("num_clips", [4, 20])
def test_processes_share_a_batch(augmentation: Augmentation, num_clips: int) -> None:
    whole = sampler(augmentation=augmentation).batch(2, num_clips, range(num_clips))
    half = num_clips // 2
    first, second = (
        sampler(augmentation=augmentation).batch(2, num_clips, clips) for clips in (range(half), range(half, num_clips))
    )
    for name in Batch.__dataclass_fields__:
        parts = torch.cat([getattr(first, name), getattr(second, name)])
        assert torch.equal(getattr(whole, name), parts)


def test_a_batch_depends_on_its_key_alone() -> None:
    clips, fresh = sampler(augmentation=Augmentation()), sampler(augmentation=Augmentation())
    clips.batch(0, 0, range(4))
    assert torch.equal(clips.batch(1, 8, range(4)).frames, fresh.batch(1, 8, range(4)).frames)
    other = sampler(seed=1, augmentation=Augmentation())
    assert not torch.equal(other.batch(1, 8, range(4)).frames, fresh.batch(1, 8, range(4)).frames)


def test_half_of_the_clips_are_mirrored_as_a_whole() -> None:
    footage, flips = numbered_footage(), []
    frames, poses = torch.from_numpy(footage.frames), torch.from_numpy(footage.poses)
    pictures = {False: (frames, poses), True: (frames.flip(-1), mirror_poses(poses))}
    for epoch in range(20):
        batch = sampler(context=0, augmentation=Augmentation(mirror=True)).batch(epoch, 0, range(20))
        (numbers, references), flipped = (
            (frame_numbers(batch.frames), frame_numbers(batch.reference[:, None])),
            is_flipped(batch.reference),
        )
        for clip in range(20):
            all_frames, all_poses = pictures[flipped[clip]]
            assert torch.equal(batch.frames[clip], to_unit(all_frames[numbers[clip]]))
            assert torch.equal(batch.poses[clip], to_unit(all_poses[numbers[clip]]))
            assert torch.equal(batch.reference[clip], to_unit(all_frames[references[clip]][0]))
            assert torch.equal(batch.reference_pose[clip], to_unit(all_poses[references[clip]][0]))
        flips += flipped
    assert 0.4 < np.mean(flips) < 0.6


def test_a_window_longer_than_every_take_is_refused() -> None:
    with pytest.raises(UserError, match=r"training.window = 16.*longest take has 15 frames"):
        sampler(window=16)


def test_context_repeats_the_ends() -> None:
    poses = torch.arange(3.0)[None, :, None, None, None]
    assert with_context(poses, 2).flatten().tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert torch.equal(with_context(poses, 0), poses)


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


def test_a_data_set_is_opened_as_it_was_packed(data_folder: Path) -> None:
    data, folder = open_dance("tiny", data_folder), data_folder / "tiny"
    assert data.frame_size == (32, 64)
    assert data.train.takes == ((0, 24), (24, 48))
    assert data.val.takes == ((0, 12),)
    for array, name in (
        (data.train.frames, "train_frames"),
        (data.train.poses, "train_poses"),
        (data.val.frames, "val_frames"),
        (data.val.poses, "val_poses"),
        (data.test_frames, "test_frames"),
        (data.test_poses, "test_poses"),
    ):
        assert isinstance(array, np.memmap)
        assert np.array_equal(array, np.load(folder / f"{name}.npy"))


def test_a_missing_data_set_is_named(data_folder: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist; data sets there: tiny"):
        open_dance("nowhere", data_folder)
