import io
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from src.base.console import UserError
from src.maths.metrics import (
    channel_psnr_per_frame,
    competition_score,
    copy_first_frame,
    median_frame,
    nearest_pose,
    psnr_at,
    psnr_per_frame,
    quantise,
    ssim_per_frame,
)

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "dance-mini.zip"
FRAME = (3, 32, 64)


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def blurred(frames: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """Returns frames that are similar to `frames`, as a prediction is."""
    return ((3 * frames.int() + pixels(*frames.shape, seed=seed).int()) // 4).to(torch.uint8)


# Rounding


def test_quantise_by_hand():
    values = [-0.2, 0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 0.999, 1, 1.7]
    assert quantise(torch.tensor(values, dtype=torch.float64)).tolist() == [0, 0, 0, 2, 2, 255, 255, 255]


def test_quantise_gives_every_stored_pixel_back():
    stored = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(quantise(stored.float() / 255), stored)


@given(st.lists(st.floats(-0.5, 1.5, width=32), min_size=1, max_size=50))
def test_quantise_equals_numpy(values: list[float]):
    frames = np.array(values, dtype=np.float32)
    expected = np.clip(np.rint(np.float32(255) * frames), 0, 255).astype(np.uint8)
    assert np.array_equal(quantise(torch.from_numpy(frames)).numpy(), expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_quantise_refuses_what_is_no_number(value: float):
    with pytest.raises(UserError, match="1 of 3 drawn values are NaN or infinite"):
        quantise(torch.tensor([0.5, value, 0.1]))


# PSNR


def test_psnr_by_hand():
    truth = torch.zeros(4, *FRAME, dtype=torch.uint8)
    prediction = truth.clone()
    prediction[0] = 255  # MSE 255^2
    prediction[1] = 1  # MSE 1
    prediction[2, 0, 0, 0] = 96  # MSE 96^2 / 6144 = 1.5
    expected = [0, 20 * math.log10(255), 20 * math.log10(255) - 10 * math.log10(1.5), math.inf]
    assert psnr_per_frame(prediction, truth).tolist() == pytest.approx(expected)


def test_psnr_equals_the_competition_s_loop_and_scikit_image():
    truth = pixels(5, *FRAME)
    prediction = blurred(truth)
    psnr = psnr_per_frame(prediction, truth)
    assert psnr.dtype == torch.float64
    for frame in range(5):
        a, b = prediction[frame].numpy().reshape(-1).astype(float), truth[frame].numpy().reshape(-1).astype(float)
        assert psnr[frame].item() == pytest.approx(20 * math.log10(255) - 10 * math.log10(np.mean((a - b) ** 2)))
        assert psnr[frame].item() == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255))


def test_psnr_of_several_rollouts_is_that_of_each():
    truth = pixels(2, 3, *FRAME)
    prediction = blurred(truth)
    expected = torch.stack([psnr_per_frame(prediction[k], truth[k]) for k in range(2)])
    assert torch.equal(psnr_per_frame(prediction, truth), expected)


def test_psnr_takes_integers_of_one_shape_only():
    with pytest.raises(AssertionError):
        psnr_per_frame(torch.zeros(2, *FRAME), torch.zeros(2, *FRAME))
    with pytest.raises(AssertionError):
        psnr_per_frame(pixels(2, *FRAME), pixels(*FRAME))


def test_channel_psnr_equals_a_loop_over_channels():
    truth = pixels(2, 4, 3, 8, 16)
    prediction = blurred(truth)
    expected = [
        [
            np.mean([peak_signal_noise_ratio(truth[b, t, c].numpy(), prediction[b, t, c].numpy()) for c in range(3)])
            for t in range(4)
        ]
        for b in range(2)
    ]
    psnr = channel_psnr_per_frame(prediction.float() / 255, truth.float() / 255)
    np.testing.assert_allclose(psnr.numpy(), expected, rtol=1e-6)


# The leaderboard's score


def test_the_score_counts_frames_1_to_600():
    psnr = torch.arange(630, dtype=torch.float64)
    psnr[0], psnr[601:] = math.inf, -1e9
    assert competition_score(psnr) == pytest.approx(sum(range(1, 601)) / 600)
    assert competition_score(torch.tensor([math.inf, 1.0, 2.0, 6.0])) == 3.0
    with pytest.raises(ValueError, match="1 frame"):
        competition_score(torch.tensor([20.0]))


def test_psnr_at_reads_the_frames_it_is_asked_for():
    psnr = torch.tensor([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]])
    assert psnr_at(psnr, [1, 2]) == 4.5
    assert psnr_at(psnr, [3]) is None


# SSIM


def test_ssim_equals_scikit_image():
    truth = pixels(3, *FRAME)
    prediction = blurred(truth)
    expected = [
        structural_similarity(
            a.numpy() / 255,
            b.numpy() / 255,
            data_range=1,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(prediction, truth, strict=True)
    ]
    assert max(expected) - min(expected) > 1e-4
    np.testing.assert_allclose(ssim_per_frame(prediction, truth).numpy(), expected, atol=1e-5)


def test_ssim_is_one_for_equals_symmetric_and_the_same_in_any_chunk():
    truth = pixels(130, 3, 16, 24)  # more frames than one chunk of SSIM
    prediction = blurred(truth)
    ssim = ssim_per_frame(prediction, truth)
    torch.testing.assert_close(ssim, ssim_per_frame(truth, prediction))
    torch.testing.assert_close(ssim[128:], ssim_per_frame(prediction[128:], truth[128:]))
    torch.testing.assert_close(ssim_per_frame(truth[:2], truth[:2]), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(
        ssim_per_frame(prediction[:4].unflatten(0, (2, 2)), truth[:4].unflatten(0, (2, 2))).flatten(), ssim[:4]
    )
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ssim_per_frame(prediction[:4], truth[:4]), ssim[:4])


# Baselines


def test_copy_first_frame_shows_it_throughout():
    first = pixels(*FRAME)
    copies = copy_first_frame(first, 4)
    assert copies.shape == (4, *FRAME)
    assert all(torch.equal(frame, first) for frame in copies)


@pytest.mark.parametrize(("num_frames", "frame_shape"), [(1, (3, 4, 6)), (7, (3, 4, 6)), (21, FRAME)])
def test_median_frame_equals_numpy(num_frames: int, frame_shape: tuple[int, int, int]):
    frames = pixels(num_frames, *frame_shape)
    assert np.array_equal(median_frame(frames).numpy(), np.median(frames.numpy(), axis=0))


def test_median_of_an_even_number_is_the_lower_middle():
    assert median_frame(torch.tensor([9, 1, 4, 200], dtype=torch.uint8).reshape(4, 1, 1, 1)).item() == 4


@pytest.mark.parametrize("k", [1, 3])
def test_nearest_pose_equals_a_slow_loop(k: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("src.maths.metrics.POSE_CHUNK", 7)
    train_frames, train_poses, poses = pixels(20, 3, 4, 6), pixels(20, 3, 4, 6, seed=1), pixels(9, 3, 4, 6, seed=2)
    train_poses[5] = train_poses[17]  # equally near; the earlier one is taken
    poses[2] = train_poses[17]
    expected = []
    for pose in poses.numpy().astype(int):
        distances = [int(((pose - known.astype(int)) ** 2).sum()) for known in train_poses.numpy()]
        nearest = sorted(range(20), key=lambda index: (distances[index], index))[:k]
        expected.append(np.rint(train_frames.numpy()[nearest].mean(axis=0)))
    assert np.array_equal(nearest_pose(train_frames, train_poses, poses, k).numpy(), np.stack(expected))


@pytest.mark.parametrize("k", [0, 21])
def test_nearest_pose_needs_as_many_frames_as_it_averages(k: int):
    with pytest.raises(ValueError, match="1 to 20"):
        nearest_pose(pixels(20, 3, 2, 4), pixels(20, 3, 2, 4), pixels(1, 3, 2, 4), k)


# Real footage: the scores that the README states for the sample


def read(archive: zipfile.ZipFile, folder: str, count: int) -> torch.Tensor:
    names = [f"LAB4_Dataset/LAB4_Dataset/{folder}/{number}.png" for number in range(count)]
    pictures = [np.array(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


@pytest.mark.skipif(not SAMPLE.exists(), reason="the sample footage is not part of the project")
def test_baselines_on_real_footage_reach_their_published_scores():
    with zipfile.ZipFile(SAMPLE) as archive:
        train_frames, train_poses = (read(archive, f"train/train_{kind}", 1890) for kind in ("img", "label"))
        frames, poses = (read(archive, f"val/val_{kind}", 630) for kind in ("img", "label"))
    predictions = {
        16.1: copy_first_frame(frames[0], 630),
        17.4: copy_first_frame(median_frame(train_frames), 630),
        21.0: nearest_pose(train_frames, train_poses, poses, 1),
    }
    for published, prediction in predictions.items():
        assert competition_score(psnr_per_frame(prediction, frames)) == pytest.approx(published, abs=0.06)
