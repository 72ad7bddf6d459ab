"""Doubts about packed data: what is formally right and probably a mistake, each with its evidence.

A doubt is a warning. Frames and poses that are exchanged are refused, because that is certain.

Where a dancer moves, the frames and the poses change at the same places and at the same times. So the places and the
moments of change tell whether poses are shifted against their frames.
"""

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from src.base.console import UserError
from src.dance.skeleton import palette_of
from src.intake.arrays import open_array
from src.intake.manifest import SPLITS, DanceManifest, Manifest, PushingManifest
from src.intake.takes import Takes

MOST_PIXELS = 2000 * 64 * 64  # that are examined for motion: 2,000 frames of 64 x 64, fewer of larger ones
FEWEST_FRAMES = 40  # with fewer, motion proves nothing
LONGEST_LAG = 5  # frames
LARGEST_SHIFT = 8  # pixels
BLOCK = 4  # pixels; motion in time is compared between blocks of this size
WHITE_ENOUGH = 240
# Measured on the real sample and on synthetic dancers: at the right place the correlation of motion is 0.3 to 0.5, and
# below 0.1 if frames and poses do not belong together. Three pixels beside, it is at most 0.65 of that at the right
# place, and two pixels beside 0.75 to 0.9. One pixel cannot be told: good limbs also lie up to a pixel beside the body.
UNRELATED, BESIDE = 0.15, 0.85
LAG_GAIN = 0.003  # one frame late, the correlation is lower by 0.01 to 0.02


def doubts_of(folder: Path, manifest: Manifest) -> list[str]:
    """Returns the doubts about a packed data set, one line each. UserError if frames and poses are exchanged."""
    arrays = {name: open_array(folder, name, shape) for name, shape in manifest.shapes.items()}
    if isinstance(manifest, DanceManifest):
        return list(_of_dancers(arrays, manifest))
    return list(_of_pushing(arrays, manifest)) if isinstance(manifest, PushingManifest) else []


def _of_dancers(arrays: dict[str, np.memmap], manifest: DanceManifest) -> Iterator[str]:
    frames, poses = arrays["train_frames"], arrays["train_poses"]
    _refuse_exchanged(frames, poses, manifest)
    yield from _of_colours(poses, manifest)
    yield from _of_repeats("validation frames", arrays["val_frames"], frames)
    yield from _of_plain_frames(frames)
    motion = [_motion(each, manifest.train_takes) for each in (frames, poses)]
    if len(motion[0]) >= FEWEST_FRAMES:
        at_another_place = list(_of_place(*motion))
        yield from at_another_place or _of_time(*motion)  # at another place, times cannot be compared


def _of_pushing(arrays: dict[str, np.memmap], manifest: PushingManifest) -> Iterator[str]:
    first_frames = {split: arrays[f"{split}_frames"][:, 0] for split in SPLITS}
    for split in SPLITS[1:]:
        yield from _of_repeats(f"clips of {split}", first_frames[split], first_frames["train"])
    actions = arrays["train_conditions"][..., : manifest.num_action]
    if actions.size and np.ptp(actions, axis=(0, 1)).max() == 0:
        yield f"every action of the training clips is {actions[0, 0].tolist()}: the robot's commands are missing"


def _refuse_exchanged(frames: np.ndarray, poses: np.ndarray, manifest: DanceManifest) -> None:
    if manifest.palette == "unknown" and palette_of(frames) == "competition":
        raise UserError(
            "frames and poses are exchanged: the frames are drawn in the limbs' colours on white, the poses are not; "
            "needed: frames in train_img, pose images in train_label; exchange the folders"
        )


def _of_colours(poses: np.ndarray, manifest: DanceManifest) -> Iterator[str]:
    if manifest.palette == "unknown" and palette_of(poses[:, ::-1]) == "competition":
        yield (
            "the limbs have the competition's colours with red and blue exchanged: "
            "the pictures were probably saved as BGR, and so, perhaps, were the frames"
        )
    sampled = poses[:: max(1, len(poses) // 200)]
    white = (sampled.min(axis=1) >= WHITE_ENOUGH).mean(axis=(1, 2))
    if np.median(white) < 0.5:
        yield f"pose images are not drawn on white: of a typical one, {np.median(white):.0%} is white"


def _of_repeats(what: str, pictures: np.ndarray, known: np.ndarray) -> Iterator[str]:
    """Yields a doubt if a tenth or more of the pictures occur among the known ones."""
    places = {_digest(picture): number for number, picture in enumerate(known)}
    found = [(number, places[key]) for number, each in enumerate(pictures) if (key := _digest(each)) in places]
    if len(found) >= max(2, len(pictures) / 10):
        yield (
            f"{len(found)} of {len(pictures)} {what} are in the training data too, such as number {found[0][0]}, "
            f"which is number {found[0][1]} there: the score will be too high"
        )


def _digest(picture: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(picture).data).digest()


def _of_plain_frames(frames: np.ndarray) -> Iterator[str]:
    chosen = frames[:: max(1, len(frames) // 200)]
    plain = np.ptp(chosen.reshape(len(chosen), -1), axis=1) == 0
    if plain.mean() >= 0.1:
        yield f"{plain.mean():.0%} of the training frames have one single colour: are the pictures empty?"
    elif len(chosen) > 1 and (chosen == chosen[0]).all():
        yield "all training frames are equal: is one picture copied?"


def _motion(pictures: np.ndarray, takes: Takes) -> np.ndarray:
    """Returns how much each pixel changes from a frame to the next one of its take, (N, H, W); <= `MOST_PIXELS`."""
    parts = []
    left = MOST_PIXELS // (pictures.shape[-2] * pictures.shape[-1])
    for start, stop in takes:
        part = pictures[start : min(stop, start + left)]
        if len(part) < 2:
            continue
        changes = (np.abs(np.subtract(after, before, dtype=np.int16)) for before, after in pairwise(part))
        parts.append(np.sqrt([change.sum(axis=0, dtype=np.float32) for change in changes]))
        left -= len(part)
        if left <= 1:
            break
    return np.concatenate(parts) if parts else np.zeros((0, *pictures.shape[-2:]), np.float32)


def _of_place(frames: np.ndarray, poses: np.ndarray) -> Iterator[str]:
    """Yields a doubt if the motion of the poses fits that of the frames better when it is moved."""
    size = (2 * frames.shape[1], 2 * frames.shape[2])  # so that nothing wraps around
    seen, drawn = (part - part.mean(axis=(1, 2), keepdims=True) for part in (frames, poses))
    energy = np.sqrt((seen**2).sum(dtype=np.float64) * (drawn**2).sum(dtype=np.float64))
    if not energy:
        return
    total = sum(  # one by one, for the sake of memory
        np.fft.rfft2(one, size) * np.conj(np.fft.rfft2(other, size)) for one, other in zip(seen, drawn, strict=True)
    )
    fit = np.fft.irfft2(total, size) / energy
    reach = range(-LARGEST_SHIFT, LARGEST_SHIFT + 1)
    best, down, right = max((float(fit[y, x]), y, x) for y in reach for x in reach)
    if best < UNRELATED:
        yield (
            f"limbs and dancer do not move at the same places (correlation {best:.2f}; usual are 0.3 to 0.5): "
            "do poses and frames belong together?"
        )
    elif fit[0, 0] < BESIDE * best:
        yield (
            f"the limbs fit the dancer better when they are moved {_pixels(down, 'down', 'up')} and "
            f"{_pixels(right, 'right', 'left')} (correlation of motion {best:.2f} there, {fit[0, 0]:.2f} here)"
        )


def _pixels(number: int, forward: str, back: str) -> str:
    return f"{abs(number)} pixels {forward if number >= 0 else back}"


def _of_time(frames: np.ndarray, poses: np.ndarray) -> Iterator[str]:
    """Yields a doubt if the motion of the poses fits that of the frames better at another time."""
    seen, drawn = (_standardised(_blocks(part)) for part in (frames, poses))
    fits = {lag: _correlation(seen, drawn, lag) for lag in range(-LONGEST_LAG, LONGEST_LAG + 1)}
    best = max(fits, key=lambda lag: fits[lag])
    if fits[best] >= UNRELATED and fits[best] - fits[0] > LAG_GAIN:
        late = "later" if best < 0 else "earlier"
        yield (
            f"the poses seem to be {abs(best)} frames {late} than their frames "
            f"(correlation of motion {fits[best]:.3f} when moved back, {fits[0]:.3f} as they are)"
        )


def _blocks(motion: np.ndarray) -> np.ndarray:
    """Returns the mean motion in blocks of `BLOCK` x `BLOCK` pixels, (N, blocks)."""
    count, height, width = (size - size % step for size, step in zip(motion.shape, (1, BLOCK, BLOCK), strict=True))
    cut = motion[:, :height, :width].reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return cut.mean(axis=(2, 4)).reshape(count, -1)


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(float(values.std()), 1e-9)


def _correlation(seen: np.ndarray, drawn: np.ndarray, lag: int) -> float:
    """Returns the correlation of what is seen at t + lag with what is drawn at t."""
    count = len(seen) - abs(lag)
    first, second = max(0, lag), max(0, -lag)
    return float((seen[first : first + count] * drawn[second : second + count]).mean())
