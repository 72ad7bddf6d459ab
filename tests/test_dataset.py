"""Training clips: where they start, what they hold, and which process draws which. Opening a data set."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.base.console import UserError
from src.config import AugmentationConfig
from src.dance.augmentations import mirror_poses
from src.dataset import (
    Batch,
    ClipSampler,
    Footage,
    hold_out,
    open_data,
    to_unit,
    window_starts,
    with_context,
)
from src.intake.arrays import array_type, settled_time_ns, stamp_arrays
from src.intake.manifest import (
    ClipShape,
    PushingManifest,
    SourceRecord,
    content_fingerprint,
    pushing_shapes,
)
from src.pushing.data import Clips, PushingBatch, PushingSampler, first_frames

HEIGHT, NARROW = 4, 6
TAKES = ((0, 7), (7, 9), (9, 24))
UNCHANGED = AugmentationConfig(mirror=False)


def numbered_footage(takes: tuple[tuple[int, int], ...] = TAKES) -> Footage:
    """Returns footage: frame t has the value 5 t, and 5 t + 1 in its left column. Its pose is 2 levels brighter."""
    frames = np.zeros((takes[-1][1], 3, HEIGHT, NARROW), dtype=np.uint8)
    frames += 5 * np.arange(len(frames), dtype=np.uint8)[:, None, None, None]
    frames[..., 0] += 1
    return Footage(frames, frames + 2, takes)


def sampler(
    *, window: int = 2, context: int = 1, seed: int = 0, augmentation: AugmentationConfig = UNCHANGED
) -> ClipSampler:
    device = torch.device("cpu")
    return ClipSampler(
        numbered_footage(), window=window, context=context, augmentation=augmentation, seed=seed, device=device
    )


def frame_numbers(pixels: torch.Tensor) -> list[list[int]]:
    """Returns the frame number of each picture, for clips (B, T, 3, H, W) in [0, 1] of `numbered_footage`.

    A mirrored picture gives the same number.
    """
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


@pytest.mark.parametrize("augmentation", [UNCHANGED, AugmentationConfig(mirror=True)])
@pytest.mark.parametrize("num_clips", [4, 20])
def test_processes_share_a_batch(augmentation: AugmentationConfig, num_clips: int) -> None:
    whole = sampler(augmentation=augmentation).batch(2, num_clips, range(num_clips))
    half = num_clips // 2
    first, second = (
        sampler(augmentation=augmentation).batch(2, num_clips, clips) for clips in (range(half), range(half, num_clips))
    )
    for name in Batch.__dataclass_fields__:
        parts = torch.cat([getattr(first, name), getattr(second, name)])
        assert torch.equal(getattr(whole, name), parts)


def test_a_batch_depends_on_its_key_alone() -> None:
    clips, fresh = (sampler(augmentation=AugmentationConfig(mirror=True)) for _ in range(2))
    clips.batch(0, 0, range(4))
    assert torch.equal(clips.batch(1, 8, range(4)).frames, fresh.batch(1, 8, range(4)).frames)
    other = sampler(seed=1, augmentation=AugmentationConfig(mirror=True))
    assert not torch.equal(other.batch(1, 8, range(4)).frames, fresh.batch(1, 8, range(4)).frames)


def test_half_of_the_clips_are_mirrored_as_a_whole() -> None:
    footage = numbered_footage()
    flips: list[bool] = []
    frames, poses = torch.from_numpy(footage.frames), torch.from_numpy(footage.poses)
    pictures = {False: (frames, poses), True: (frames.flip(-1), mirror_poses(poses))}
    for epoch in range(20):
        batch = sampler(context=0, augmentation=AugmentationConfig(mirror=True)).batch(epoch, 0, range(20))
        numbers = frame_numbers(batch.frames)
        references = frame_numbers(batch.reference[:, None])
        flipped = is_flipped(batch.reference)
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


def test_a_data_set_is_opened_as_it_was_packed(data_folder: Path) -> None:
    data, folder = open_data("tiny", data_folder), data_folder / "tiny"
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
        open_data("nowhere", data_folder)


NUM_CLIPS, CPU = 7, torch.device("cpu")


def numbered_clips() -> Clips:
    """Returns clips in which all pixels and all conditions of frame t of clip i have the value 30 i + t."""
    numbers = np.arange(30 * NUM_CLIPS).reshape(NUM_CLIPS, 30)
    frames = np.zeros((NUM_CLIPS, 30, 3, HEIGHT, NARROW), dtype=np.uint8) + numbers[..., None, None, None]
    conditions = np.zeros((NUM_CLIPS, 30, 7)) + numbers[..., None]
    return Clips(frames.astype(np.uint8), conditions.astype(np.float32))


def pushing(*, window: int = 12, seed: int = 0, shuffle: bool = True, per_epoch: int = NUM_CLIPS) -> PushingSampler:
    return PushingSampler(
        numbered_clips(), window=window, seed=seed, device=CPU, shuffle=shuffle, clips_per_epoch=per_epoch
    )


def numbers_of(batch: PushingBatch) -> list[list[int]]:
    """Returns 30 i + t of each frame. It checks that pixels and conditions give the same number."""
    pixels, conditions = (255 * batch.frames).round().long(), batch.conditions.long()
    assert batch.frames.dtype == batch.conditions.dtype == torch.float32
    assert pixels.shape[2:] == (3, HEIGHT, NARROW)
    assert (pixels == pixels[:, :, :1, :1, :1]).all()
    assert (conditions == conditions[..., :1]).all()
    assert torch.equal(pixels[:, :, 0, 0, 0], conditions[..., 0])
    return conditions[..., 0].tolist()


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_of_pushing_has_each_clip_once(shuffle: bool) -> None:
    sampler = pushing(shuffle=shuffle)
    orders: list[list[int]] = []
    starts: list[int] = []
    assert len(sampler) == NUM_CLIPS
    for epoch in range(30):
        windows = [clip for first in (0, 4) for clip in numbers_of(sampler.batch(epoch, first, range(4)))]
        for window in windows:
            assert window == list(range(window[0], window[0] + 12))
            assert window[0] // 30 == window[-1] // 30
        orders.append([window[0] // 30 for window in windows][:NUM_CLIPS])
        starts += [window[0] % 30 for window in windows]
    assert all(sorted(order) == list(range(NUM_CLIPS)) for order in orders)
    assert (len({tuple(order) for order in orders}) > 1) == shuffle
    assert shuffle or orders[0] == list(range(NUM_CLIPS))
    assert set(starts) == set(range(19))


def test_clips_in_order_go_on_where_the_epoch_before_ended() -> None:
    sampler = pushing(shuffle=False, per_epoch=4)
    seen = [window[0] // 30 for epoch in range(7) for window in numbers_of(sampler.batch(epoch, 0, range(4)))]
    assert seen == list(range(NUM_CLIPS)) * 4


@pytest.mark.parametrize("num_clips", [4, 40])
def test_processes_share_a_batch_of_pushing(num_clips: int) -> None:
    whole = numbers_of(pushing().batch(2, num_clips, range(num_clips)))
    half = num_clips // 2
    first, second = (
        numbers_of(pushing().batch(2, num_clips, clips)) for clips in (range(half), range(half, num_clips))
    )
    assert whole == first + second
    used = pushing()
    used.batch(0, 0, range(3))
    assert numbers_of(used.batch(2, num_clips, range(num_clips))) == whole
    assert numbers_of(pushing(seed=1).batch(2, num_clips, range(num_clips))) != whole
    assert numbers_of(pushing().batch(3, num_clips, range(num_clips))) != whole


def test_evaluation_sees_the_first_frames() -> None:
    for window, num_clips in ((12, 3), (30, 2)):
        frames, conditions = first_frames(numbered_clips(), window, num_clips, CPU)
        assert frames.dtype == torch.uint8
        seen = numbers_of(PushingBatch(frames / 255, conditions))
        assert seen == [list(range(30 * clip, 30 * clip + window)) for clip in range(num_clips)]
    assert numbers_of(pushing(window=30).batch(0, 0, range(1)))[0][0] % 30 == 0


@pytest.mark.parametrize("window", [0, 31])
def test_a_window_that_no_clip_holds_is_refused(window: int) -> None:
    with pytest.raises(UserError, match=f"training.window = {window}, but clips have 30 frames; needed"):
        pushing(window=window)


@pytest.fixture
def vast(tmp_path: Path) -> Path:
    """Returns a data folder with the data set `vast`. It has 44,000 training clips in sparse files."""
    shapes = pushing_shapes(44_000, 3, 2, clip=ClipShape())
    (tmp_path / "vast").mkdir()
    for name, shape in shapes.items():
        np.lib.format.open_memmap(tmp_path / "vast" / f"{name}.npy", mode="w+", dtype=array_type(name), shape=shape)
    arrays = dict.fromkeys(shapes, "0" * 64)
    manifest = PushingManifest(
        source=SourceRecord(name="vast", kind="folder", fingerprint="0" * 64),
        num_train=44_000,
        num_validate=3,
        num_test=2,
        camera=None,
        held_out=False,
        arrays=arrays,
        fingerprint=content_fingerprint(arrays, facts={}),
    )
    (tmp_path / "vast" / "manifest.json").write_text(manifest.model_dump_json())
    stamp_arrays(tmp_path / "vast", arrays, settled_time_ns())
    return tmp_path


def test_sixteen_gigabytes_are_opened_without_being_read(vast: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("only Linux shows how much memory a process uses")
    before = resident()
    data = open_data("vast", vast)
    assert data.train.frames.nbytes > 16e9
    assert all(isinstance(clips.frames, np.memmap) for clips in (data.train, data.validate, data.test))
    sampler = PushingSampler(data.train, window=12, seed=0, device=CPU, shuffle=True, clips_per_epoch=4)
    shapes = {sampler.batch(0, 8 * step, range(8)).frames.shape for step in range(10)}
    assert shapes == {(8, 12, 3, 64, 64)}
    assert first_frames(data.test, 12, 1, CPU)[1].shape == (1, 12, 7)
    assert resident() - before < 300e6


def test_a_shifted_clip_moves_whole_and_only_so_far() -> None:
    frames = np.zeros((6, 3, 9, 11), dtype=np.uint8)
    frames[:, :, 4, 5] = 200  # one bright pixel shows the shift of a picture
    footage = Footage(frames, 255 - frames, ((0, 6),))
    augmentation = AugmentationConfig(mirror=False, shift_x=3, shift_y=1)
    sampler = ClipSampler(footage, window=2, context=1, augmentation=augmentation, seed=0, device=torch.device("cpu"))
    seen = set()
    for epoch in range(40):
        batch = sampler.batch(epoch, 0, range(4))
        for clip in range(4):
            places = {tuple(picture.amax(0).nonzero()[0].tolist()) for picture in batch.frames[clip]}
            places.add(tuple(batch.reference[clip].amax(0).nonzero()[0].tolist()))
            places |= {tuple((1 - picture).amax(0).nonzero()[0].tolist()) for picture in batch.poses[clip]}
            places.add(tuple((1 - batch.reference_pose[clip]).amax(0).nonzero()[0].tolist()))
            assert len(places) == 1, "frames, poses and reference have the same shift"
            seen |= places
    assert seen == {(4 + down, 5 + right) for down in range(-1, 2) for right in range(-3, 4)}


def test_a_take_held_out_is_never_drawn_and_comes_back_whole() -> None:
    pixels = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 4), dtype=np.uint8)
    footage = Footage(pixels, pixels, ((0, 5), (5, 8), (8, 12)))
    training, (held_out,) = hold_out(footage, (1,))
    assert held_out.takes == ((0, 3),)
    assert np.array_equal(held_out.frames, pixels[5:8])
    assert np.array_equal(held_out.poses, pixels[5:8])
    sampler = ClipSampler(
        training, window=2, context=1, augmentation=AugmentationConfig(mirror=False), seed=0, device=torch.device("cpu")
    )
    assert len(sampler) == 9 // 2
    drawn = [sampler.batch(epoch, 0, range(7)) for epoch in range(20)]
    values = {
        round(255 * value) for batch in drawn for part in vars(batch).values() for value in part.flatten().tolist()
    }
    assert values == {0, 1, 2, 3, 4, 8, 9, 10, 11}
    with pytest.raises(UserError, match="takes 0 to 2"):
        hold_out(footage, (3,))
    with pytest.raises(UserError, match="at least one take left"):
        hold_out(footage, (0, 1, 2))
