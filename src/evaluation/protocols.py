"""The protocols by which the field scores predictions: which frames are given, which are scored, and how."""

import hashlib
from collections.abc import Iterable
from typing import Annotated, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from src.base.console import UserError
from src.intake.facts import SCORED_FRAMES
from src.maths.metrics import best_of, channel_psnr_per_frame, psnr_per_frame, ssim_per_frame


class Protocol(NamedTuple):
    """One way to score. Frame 0 of a clip is its first frame."""

    num_given: int  # frames at the start of a clip that a model is given
    last: int  # last scored frame; in a shorter clip the last one of the clip
    num_samples: int  # of each clip; the best one counts, by the truth, for each measure by itself
    per_channel: bool  # PSNR of each colour channel, then their mean; otherwise one PSNR over all channels
    meaning: str


PROTOCOLS = {
    "competition": Protocol(1, SCORED_FRAMES[1], 1, False, "the dancers' competition: a clip of 630 frames"),
    "lab 2->10": Protocol(2, 11, 1, True, "robot pushing: 2 frames and the actions are given, 10 are drawn"),
    "1->15 best of 100": Protocol(1, 15, 100, False, "robot pushing: 1 frame is given, 15 are drawn, 100 times"),
}


class Measured(BaseModel):
    """The scores of predictions by a protocol. PSNR is in dB; identical frames have infinite PSNR."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    protocol: Annotated[str, Field(description="a name of `PROTOCOLS`")]
    num_clips: int
    num_samples: Annotated[int, Field(description="samples of each clip; the best one counts")]
    scored_frames: Annotated[tuple[int, int], Field(description="first and last frame of the score")]
    clips_sha256: Annotated[str, Field(description="hash of the sorted names of the clips, one a line")]
    score: Annotated[float, Field(description="mean PSNR of the scored frames, over all clips")]
    mean_ssim: Annotated[float, Field(description="mean structural similarity of the scored frames")]
    psnr_by_frame: Annotated[list[float], Field(description="PSNR of each scored frame, mean over clips")]
    ssim_by_frame: Annotated[list[float], Field(description="structural similarity of each scored frame")]


def protocol_named(name: str) -> Protocol:
    """Returns the protocol of a name; UserError, which lists all, for another name."""
    if name not in PROTOCOLS:
        raise UserError(f"there is no protocol {name!r}; there are: {', '.join(map(repr, PROTOCOLS))}")
    return PROTOCOLS[name]


def scored_frames(protocol: Protocol, num_frames: int) -> range:
    """Returns the scored frames of clips of `num_frames` frames; it is empty if they are all given."""
    return range(protocol.num_given, min(protocol.last + 1, num_frames))


def measure(name: str, clips: Iterable[tuple[str, Tensor, Tensor]]) -> Measured:
    """Returns the scores of predictions.

    clips: (name, samples (S, T, 3, H, W), truth (T, 3, H, W)) of each clip, uint8, the scored frames alone. All clips
    have the same T and S. They are read one after the other, so they need not fit into memory together.
    """
    protocol = protocol_named(name)
    names, psnr, ssim = [], [], []
    num_samples = 0
    for clip, samples, truth in clips:
        names.append(clip)
        num_samples = len(samples)
        psnr.append(best_of([_psnr(sample, truth, protocol)[None] for sample in samples])[0])
        ssim.append(best_of([ssim_per_frame(sample, truth)[None] for sample in samples])[0])
    by_frame, similarity = torch.stack(psnr).mean(dim=0), torch.stack(ssim).mean(dim=0)
    return Measured(
        protocol=name,
        num_clips=len(names),
        num_samples=num_samples,
        scored_frames=(protocol.num_given, protocol.num_given + len(by_frame) - 1),
        clips_sha256=clips_hash(names),
        score=by_frame.mean().item(),
        mean_ssim=similarity.mean().item(),
        psnr_by_frame=by_frame.tolist(),
        ssim_by_frame=similarity.tolist(),
    )


def clips_hash(names: Iterable[str]) -> str:
    """Returns the SHA-256 of the sorted names of clips, one a line. Equal hashes: the same clips were scored."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode()).hexdigest()


def _psnr(drawn: Tensor, truth: Tensor, protocol: Protocol) -> Tensor:
    if protocol.per_channel:
        return channel_psnr_per_frame(drawn.double() / 255, truth.double() / 255)
    return psnr_per_frame(drawn, truth)
