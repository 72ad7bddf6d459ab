"""The competition's score and what stands beside it: PSNR, SSIM, and the baselines every model must beat.

Frames here are what the submission holds, uint8 in 0..255, as tensors (..., C, H, W); PSNR is in dB. Two identical
frames have infinite PSNR, as in the competition's formula, and so has every mean over them; nothing caps it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from src.base.console import UserError

FIRST_SCORED, LAST_SCORED = 1, 600  # frame 0 is given, and the competition leaves 601..629 out
PEAK_DB = 20 * math.log10(255)
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # pixels; the window is 11 x 11
SSIM_CHUNK = 128  # frames at a time; SSIM keeps several maps of each
PIXEL_CHUNK = 256  # pixel values at a time: 6 MB of 23,410 training frames
POSE_CHUNK = 1024  # training poses at a time: 50 MB as float64


def quantise(frames: Tensor) -> Tensor:
    """The integers written to the submission, uint8 in 0..255, from frames in [0, 1]: clip(rint(255 * x), 0, 255).

    Halves go to the even neighbour, as in numpy.rint. UserError for NaN or infinity.
    """
    if not torch.isfinite(frames).all():
        raise UserError(
            f"{int((~torch.isfinite(frames)).sum())} of {frames.numel()} drawn values are NaN or infinite: the network "
            "left all bounds on its own frames; train again with a lower training.learning_rate, or a bounded output"
        )
    return (255 * frames.to(torch.promote_types(frames.dtype, torch.float32))).round().clamp(0, 255).to(torch.uint8)


def psnr_per_frame(prediction: Tensor, truth: Tensor) -> Tensor:
    """PSNR of each frame in dB, (...) float64, from two uint8 (..., C, H, W): 20 log10(255) - 10 log10(MSE)."""
    _assert_comparable(prediction, truth)
    error = prediction.to(torch.int32) - truth.to(torch.int32)
    squared = error.square().sum(dim=(-3, -2, -1), dtype=torch.int64)
    return PEAK_DB - 10 * torch.log10(squared.double() / math.prod(error.shape[-3:]))


def channel_psnr_per_frame(prediction: Tensor, truth: Tensor) -> Tensor:
    """PSNR of each channel averaged over channels, (...) float64 in dB, from two (..., C, H, W) in [0, 1].

    The measure of the pushing system: -10 log10(MSE over H*W), one per colour, then their mean.
    """
    assert prediction.shape == truth.shape, f"{tuple(prediction.shape)} against {tuple(truth.shape)}"
    return (-10 * torch.log10((prediction.double() - truth.double()).square().mean(dim=(-2, -1)))).mean(-1)


def ssim_per_frame(prediction: Tensor, truth: Tensor) -> Tensor:
    """SSIM of each frame in [-1, 1], (...) float64, from two uint8 (..., C, H, W); Wang et al. 2004.

    Gaussian window of 11 x 11 with sigma 1.5, K1 0.01, K2 0.03, values over their whole range, population covariance;
    only windows that lie within the frame count; mean over channels.
    """
    _assert_comparable(prediction, truth)
    frame_shape = prediction.shape[-3:]
    pairs = zip(
        prediction.reshape(-1, *frame_shape).split(SSIM_CHUNK),
        truth.reshape(-1, *frame_shape).split(SSIM_CHUNK),
        strict=True,
    )
    with torch.autocast(prediction.device.type, enabled=False):  # the window's sums need more than bfloat16
        values = [_ssim_map(drawn.float(), true.float()).mean(dim=(-3, -2, -1)) for drawn, true in pairs]
    return torch.cat(values).double().reshape(prediction.shape[:-3])


def _ssim_map(prediction: Tensor, truth: Tensor) -> Tensor:
    # Importing torchmetrics takes longer than all other imports together, and only an evaluation needs it.
    from torchmetrics.functional.image import structural_similarity_index_measure  # noqa: PLC0415

    _, similarity = structural_similarity_index_measure(
        prediction, truth, sigma=SSIM_SIGMA, data_range=255.0, reduction="none", return_full_image=True
    )
    # The library pads the frame by reflection and, in some versions, averages over that too; we keep what it saw whole.
    return similarity[..., SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS]


def competition_score(psnr: Tensor) -> float:
    """Mean PSNR in dB over frames 1..600 of (..., T), or over 1..T-1 where T <= 600; a mean of PSNR, not of errors."""
    if psnr.shape[-1] <= FIRST_SCORED:
        raise ValueError(f"a rollout of {psnr.shape[-1]} frame(s) has no predicted frame to score")
    return psnr[..., FIRST_SCORED : LAST_SCORED + 1].double().mean().item()


def psnr_at(psnr: Tensor, frames: Sequence[int]) -> float | None:
    """Mean PSNR in dB over these frame numbers of (..., T); None where T is too short for one of them."""
    if max(frames) >= psnr.shape[-1]:
        return None
    return psnr[..., list(frames)].double().mean().item()


def copy_first_frame(first: Tensor, num_frames: int) -> Tensor:
    """Baseline: the given frame (C, H, W) shown throughout, (num_frames, C, H, W), a view of it."""
    return first.expand(num_frames, *first.shape)


def median_frame(train_frames: Tensor) -> Tensor:
    """Baseline: the median over time of each pixel value, uint8 (C, H, W), of training frames uint8 (N, C, H, W).

    With N even it is the lower of the two middle values, so that it stays a value that occurred.
    """
    pixels = train_frames.flatten(1).split(PIXEL_CHUNK, dim=1)
    return torch.cat([chunk.median(dim=0).values for chunk in pixels]).reshape(train_frames.shape[1:])


def nearest_pose(train_frames: Tensor, train_poses: Tensor, poses: Tensor, k: int) -> Tensor:
    """Baseline: the mean of the k training frames whose poses are nearest in L2, uint8 (T, C, H, W).

    From training frames and poses uint8 (N, C, H, W) and poses to answer uint8 (T, C, H, W). Of two equally near poses
    the earlier wins; an empty pose has many equals. Raises ValueError unless 1 <= k <= N.
    """
    num_train = len(train_poses)
    if not 1 <= k <= num_train:
        raise ValueError(f"k is {k}, needs 1..{num_train}, the number of training frames")
    wanted = _ink(poses)
    nearest = wanted.new_full((len(poses), k), math.inf)
    for start in range(0, num_train, POSE_CHUNK):
        known = _ink(train_poses[start : start + POSE_CHUNK])
        squared = wanted.square().sum(1, keepdim=True) - 2 * wanted @ known.T + known.square().sum(1)
        # distance and index in one number: both are integers, and float64 holds their combination exactly
        ranked = squared * num_train + torch.arange(start, start + len(known), device=squared.device)
        nearest = torch.cat([nearest, ranked], dim=1).topk(k, largest=False).values
    chosen = train_frames[(nearest % num_train).long()]
    return chosen.float().mean(dim=1).round().to(torch.uint8)


def _ink(poses: Tensor) -> Tensor:
    return 255 - poses.flatten(1).double()  # poses are drawn on white: distances stay, products become small


def _assert_comparable(prediction: Tensor, truth: Tensor) -> None:
    assert prediction.dtype == truth.dtype == torch.uint8, f"{prediction.dtype} against {truth.dtype}, need uint8"
    assert prediction.shape == truth.shape, f"{tuple(prediction.shape)} against {tuple(truth.shape)}"
