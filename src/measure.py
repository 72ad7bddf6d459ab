"""`make metrics PRED=folder TRUTH=folder`: the score of anyone's predictions, from folders of pictures.

A folder of numbered pictures is a clip. A folder of such folders holds a clip in each. A protocol that compares several
samples expects a folder for each sample in each clip of PRED.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from src.base.console import UserError, run_program, say, track
from src.base.files import write_atomically
from src.base.reading import sealed_json
from src.commands import metrics_options
from src.evaluation.protocols import PROTOCOLS, Measured, Protocol, measure, protocol_named, scored_frames
from src.evaluation.scores import decimal
from src.intake.facts import Size
from src.intake.file_names import is_litter, numbered_pictures, pictures_in
from src.intake.pictures import read_picture

SHOWN = (1, 2, 5, 10, 100, 300, 600)  # frames whose PSNR is printed


def metrics(predictions: Path, truth: Path, protocol_name: str | None = None) -> Measured:
    """Returns the scores of the clips in one folder against those in another.

    Without a protocol, one clip is scored as in the competition and a folder of clips as by the lab. UserError for
    folders that do not fit together: other clips, other sizes, a frame that is missing.
    """
    true_clips = _clips(truth, "TRUTH")
    name = protocol_name or ("competition" if "" in true_clips else "lab 2->10")
    protocol = protocol_named(name)
    drawn_clips = {"": predictions} if "" in true_clips else _clips(predictions, "PRED")
    if missing := sorted(true_clips.keys() - drawn_clips.keys()):
        example = missing[0] or "pictures"
        raise UserError(
            f"PRED={predictions} lacks {len(missing)} of the {len(true_clips)} clips of TRUTH, such as {example}; "
            "needed: the same names in both"
        )
    if more := sorted(drawn_clips.keys() - true_clips.keys()):
        raise UserError(f"PRED={predictions} holds {more[0] or 'pictures'}, which TRUTH={truth} lacks; remove it")
    pairs = ((clip, _samples(drawn_clips[clip], protocol), true_clips[clip]) for clip in true_clips)
    return measure(name, track(_read(pairs, protocol), "scoring clips", len(true_clips)))


def _clips(folder: Path, variable: str) -> dict[str, Path]:
    """Returns {name: folder of a clip}; {"": folder} for a folder that is one clip."""
    pictures, folders = pictures_in(folder), _folders_in(folder)
    if pictures and folders:
        raise UserError(f"{variable}={folder} holds pictures and folders; needed: the pictures of a clip, or folders")
    if not pictures and not folders:
        raise UserError(f"{variable}={folder} holds no PNG or JPEG pictures; needed: 0.png, 1.png, ...")
    return {"": folder} if pictures else {path.name: path for path in folders}


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not is_litter(f"{path.name}/")]


def _samples(clip: Path, protocol: Protocol) -> list[Path]:
    """Returns the folders of a clip's samples: as many as the protocol compares."""
    if protocol.num_samples == 1:
        return [clip]
    samples = _folders_in(clip)
    if len(samples) != protocol.num_samples:
        raise UserError(f"{clip} holds {len(samples)} folders; needed: one for each of {protocol.num_samples} samples")
    return samples


def _read(pairs: Iterator[tuple[str, list[Path], Path]], protocol: Protocol) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yields name, samples (S, T, 3, H, W) and truth (T, 3, H, W) of each clip, the scored frames alone."""
    length = 0
    for clip, samples, folder in pairs:
        true = numbered_pictures(folder, f"TRUTH={folder}")
        positions = scored_frames(protocol, len(true))
        if not positions:
            raise UserError(
                f"TRUTH={folder} holds {len(true)} frames, of which {protocol.num_given} are given; needed: more"
            )
        length = length or len(positions)
        if len(positions) != length:
            raise UserError(
                f"TRUTH={folder} has {len(positions)} frames to score, the first clip {length}; needed: equal"
            )
        numbers = [list(true)[position] for position in positions]
        size = read_picture(true[numbers[0]], None, str(true[numbers[0]])).own_size
        truth = _frames(true, numbers, size, folder)
        drawn = [_frames(numbered_pictures(path, f"PRED={path}"), numbers, size, path) for path in samples]
        yield clip, torch.stack(drawn), truth


def _frames(pictures: dict[int, Path], numbers: list[int], size: Size, folder: Path) -> Tensor:
    """Returns the pictures of these numbers, (T, 3, H, W) uint8; UserError if one is missing or has another size."""
    frames = []
    for number in numbers:
        if number not in pictures:
            raise UserError(
                f"{folder} holds no picture {number}; needed: every scored frame, {numbers[0]} to {numbers[-1]}"
            )
        picture = read_picture(pictures[number], None, str(pictures[number]))
        if picture.own_size != size:
            found, needed = (f"{height} x {width}" for height, width in (picture.own_size, size))
            raise UserError(f"{picture.name} has {found} pixels; needed: {needed}, height x width, as the truth has")
        frames.append(torch.from_numpy(picture.pixels))
    return torch.stack(frames)


def lines_of(measured: Measured) -> list[str]:
    """Returns the scores in words, a line each."""
    first, last = measured.scored_frames
    clips = "1 clip" if measured.num_clips == 1 else f"{measured.num_clips} clips"
    best = f", best of {measured.num_samples} samples by the truth" if measured.num_samples > 1 else ""
    psnr = measured.psnr_by_frame
    by_frame = {number: psnr[number - first] for number in SHOWN if first <= number <= last}
    return [
        f"protocol {measured.protocol}: {PROTOCOLS[measured.protocol].meaning}",
        f"{clips}, frames {first} to {last}{best}; hash of the list of clips {measured.clips_sha256[:16]}",
        f"score  {decimal(measured.score, 2):>6} dB  mean PSNR",
        f"SSIM   {decimal(measured.mean_ssim, 3):>6}     mean structural similarity",
        *(f"frame {number:<4} {decimal(value, 2):>6} dB" for number, value in by_frame.items()),
    ]


def main() -> None:
    """The command line."""
    options = metrics_options()
    measured = metrics(options.pred, options.truth, options.protocol)
    say("\n".join(lines_of(measured)))
    if options.out:
        write_atomically(options.out, sealed_json(measured))
        say(f"{options.out}: these numbers, PSNR and SSIM of every frame")


if __name__ == "__main__":
    run_program(main)
