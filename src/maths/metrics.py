"""The competition's score, PSNR, SSIM, and the baselines that every model must beat.

Frames are uint8 in 0..255, (..., C, H, W), as in the submission. PSNR is in dB. The PSNR of two identical frames is
infinite, as in the competition's formula. A mean over such frames is infinite as well; nothing caps it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from src.base.console import UserError
from src.intake.facts import SCORED_FRAMES

PEAK_DB = 20 * math.log10(255)
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # pixels; the window is 11 x 11
SSIM_CHUNK = 128  # frames at a time; SSIM keeps several maps per frame
PIXEL_CHUNK = 256  # pixel values at a time; 6 MB for 23,410 training frames
POSE_CHUNK = 1024  # training poses at a time; 50 MB as float64


def quantise(frames: Tensor) -> Tensor:
    """Returns uint8 pixels in 0..255 from frames in [0, 1]: clip(rint(255 * x), 0, 255).

    Halves are rounded to the even neighbour, as in numpy.rint. UserError for NaN or infinity.
    """
    if not torch.isfinite(frames).all():
        raise UserError(
            f"{int((~torch.isfinite(frames)).sum())} of {frames.numel()} drawn values are NaN or infinite: the rollout "
            "diverged; train again with a lower training.learning_rate, or with a bounded output"
        )
    return (255 * frames.to(torch.promote_types(frames.dtype, torch.float32))).round().clamp(0, 255).to(torch.uint8)


def psnr_per_frame(prediction: Tensor, truth: Tensor) -> Tensor:
    """Returns the PSNR of each frame in dB, (...) float64, of two uint8 (..., C, H, W).

    PSNR = 20 log10(255) - 10 log10(MSE).
    """
    _assert_comparable(prediction, truth)
    error = prediction.to(torch.int32) - truth.to(torch.int32)
    squared = error.square().sum(dim=(-3, -2, -1), dtype=torch.int64)
    return PEAK_DB - 10 * torch.log10(squared.double() / math.prod(error.shape[-3:]))


def channel_psnr_per_frame(prediction: Tensor, truth: Tensor) -> Tensor:
    """Returns the mean over channels of each frame's PSNR in dB, (...) float64, of two (..., C, H, W) in [0, 1].

    The pushing system's measure. The PSNR of a channel is -10 log10(MSE over H*W).
    """
    assert prediction.shape == truth.shape, f"{tuple(prediction.shape)} against {tuple(truth.shape)}"
    return (-10 * torch.log10((prediction.double() - truth.double()).square().mean(dim=(-2, -1)))).mean(-1)


def ssim_per_frame(prediction: Tensor, truth: Tensor) -> Tensor:
    """Returns the SSIM of each frame in [-1, 1], (...) float64, of two uint8 (..., C, H, W); Wang et al. 2004.

    The window is Gaussian, 11 x 11 pixels, sigma 1.5. K1 = 0.01, K2 = 0.03, L = 255, covariances divided by n.
    The result is the mean over channels and over the windows that lie inside the frame.
    """
    _assert_comparable(prediction, truth)
    frame_shape = prediction.shape[-3:]
    pairs = zip(
        prediction.reshape(-1, *frame_shape).split(SSIM_CHUNK),
        truth.reshape(-1, *frame_shape).split(SSIM_CHUNK),
        strict=True,
    )
    with torch.autocast(prediction.device.type, enabled=False):  # bfloat16 is too coarse for the window's sums
        values = [_ssim_map(drawn.float(), true.float()).mean(dim=(-3, -2, -1)) for drawn, true in pairs]
    return torch.cat(values).double().reshape(prediction.shape[:-3])


def _ssim_map(prediction: Tensor, truth: Tensor) -> Tensor:
    # Importing torchmetrics takes longer than all other imports together. Only an evaluation needs it.
    from torchmetrics.functional.image import structural_similarity_index_measure  # noqa: PLC0415

    _, similarity = structural_similarity_index_measure(
        prediction, truth, sigma=SSIM_SIGMA, data_range=255.0, reduction="none", return_full_image=True
    )
    # The library pads the frame by reflection. Some versions average over the padded windows too, so we cut them off.
    return similarity[..., SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS]


def competition_score(psnr: Tensor, scored: tuple[int, int] = SCORED_FRAMES) -> float:
    """Returns the mean PSNR in dB over the scored frames of (..., T). It is a mean of PSNR, not of errors.

    scored: first and last scored frame. In a shorter rollout the last one is T - 1.
    """
    first, last = scored
    if psnr.shape[-1] <= first:
        raise ValueError(f"a rollout of {psnr.shape[-1]} frame(s) has no predicted frame to score")
    return psnr[..., first : last + 1].double().mean().item()


def psnr_at(psnr: Tensor, frames: Sequence[int]) -> float | None:
    """Returns the mean PSNR in dB over these frame numbers of (..., T); None if T is too short for one of them."""
    if max(frames) >= psnr.shape[-1]:
        return None
    return psnr[..., list(frames)].double().mean().item()


def best_of(values: list[Tensor]) -> Tensor:
    """Returns the values by frame, (N, T), of each clip's best sample: the one with the highest mean over frames.

    values: PSNR or SSIM by frame of each sample, (N, T) each.
    """
    stacked = torch.stack(values)
    best = stacked.mean(dim=2).argmax(dim=0)
    return stacked[best, torch.arange(stacked.shape[1], device=best.device)]


def copy_first_frame(first: Tensor, num_frames: int) -> Tensor:
    """Baseline. Returns the first frame (C, H, W) repeated, (num_frames, C, H, W); the result is a view."""
    return first.expand(num_frames, *first.shape)


def median_frame(train_frames: Tensor) -> Tensor:
    """Baseline. Returns the median over time of each pixel, uint8 (C, H, W), of frames uint8 (N, C, H, W).

    If N is even, it is the lower of the two middle values. So each value occurs in a training frame.
    """
    pixels = train_frames.flatten(1).split(PIXEL_CHUNK, dim=1)
    return torch.cat([chunk.median(dim=0).values for chunk in pixels]).reshape(train_frames.shape[1:])


def nearest_pose(train_frames: Tensor, train_poses: Tensor, poses: Tensor, k: int) -> Tensor:
    """Baseline. Returns the mean of the k training frames whose poses are nearest in L2, uint8 (T, C, H, W).

    train_frames, train_poses: uint8 (N, C, H, W). poses: uint8 (T, C, H, W).
    Of two equally near poses the earlier one is taken. Empty poses are often equally near.
    Raises ValueError unless 1 <= k <= N.
    """
    num_train = len(train_poses)
    if not 1 <= k <= num_train:
        raise ValueError(f"k is {k}; needed: 1 to {num_train}, the number of training frames")
    wanted = _darkness(poses)
    nearest = wanted.new_full((len(poses), k), math.inf)
    for start in range(0, num_train, POSE_CHUNK):
        compared = _darkness(train_poses[start : start + POSE_CHUNK])
        squared = wanted.square().sum(1, keepdim=True) - 2 * wanted @ compared.T + compared.square().sum(1)
        # One number holds distance and index. Both are integers, and float64 holds their combination exactly.
        ranked = squared * num_train + torch.arange(start, start + len(compared), device=squared.device)
        nearest = torch.cat([nearest, ranked], dim=1).topk(k, largest=False).values
    chosen = train_frames[(nearest % num_train).long()]
    return chosen.float().mean(dim=1).round().to(torch.uint8)


def _darkness(poses: Tensor) -> Tensor:
    # Most pixels of a pose are white, so most values become 0. The distances between poses stay the same.
    return 255 - poses.flatten(1).double()


def _assert_comparable(prediction: Tensor, truth: Tensor) -> None:
    assert prediction.dtype == truth.dtype == torch.uint8, f"{prediction.dtype} and {truth.dtype} must be uint8"
    assert prediction.shape == truth.shape, f"{tuple(prediction.shape)} against {tuple(truth.shape)}"
