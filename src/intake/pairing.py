"""The frames and the pose images of a part, by their numbers -> pairs in order, and the cuts between takes.

A take ends where its folder ends and where numbers are missing, because nobody knows what happened there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from src.base.console import UserError

EMPTY = ""  # in the place of a file's name: a pose image without limbs
Pictures = dict[str, dict[int, str]]  # folder of a take, "" for none -> number -> file name


@dataclass
class Pairs:
    """Frames and poses of a part: `frames[i]` belongs to `poses[i]`, which may be `EMPTY`.

    cuts: the places, counted through the part, at which another take begins.
    notes: what was decided, in words, for the person.
    """

    frames: list[str] = field(default_factory=list)
    poses: list[str] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def paired(frames: Pictures, poses: Pictures, folders: Sequence[str], *, fill: bool) -> Pairs:
    """Returns the pairs of a part. UserError if there are less than two, or if most pictures have no partner.

    folders: those of the frames and of the poses, for people. fill: a frame without a pose gets an empty one.
    """
    pairs = Pairs()
    num_holes = 0
    alone: list[str] = []
    moved: list[str] = []
    for take in sorted(frames.keys() | poses.keys(), key=by_numbers):
        own_frames, own_poses = frames.get(take, {}), poses.get(take, {})
        if _are_counted_differently(own_frames, own_poses):
            step = min(own_frames) - min(own_poses)
            moved.append(f"{own_frames[min(own_frames)]} with {own_poses[min(own_poses)]}")
            own_poses = {number + step: file for number, file in own_poses.items()}
        numbers = sorted(own_frames.keys() & own_poses.keys())
        for own in (own_frames, own_poses):
            alone += [own[number] for number in sorted(own.keys() - set(numbers))]
        if fill:
            numbers = sorted(own_frames)
        begin = len(pairs.frames)
        pairs.cuts += [begin] if begin and numbers else []
        holes = [begin + i for i, (one, two) in enumerate(pairwise(numbers), 1) if two > one + 1]
        pairs.cuts += holes
        num_holes += len(holes)
        pairs.frames += [own_frames[number] for number in numbers]
        pairs.poses += [own_poses.get(number, EMPTY) for number in numbers]
    num_whole = len(pairs.poses) - pairs.poses.count(EMPTY)
    if num_whole < 2 or len(alone) > num_whole:
        counted = f"{num_whole} numbers with both a frame and a pose"
        example = f", and {alone[0]} is alone" if alone else ""
        needed = "needed: 2, and most of them; give frames and poses the same numbers, in folders of the same names"
        raise UserError(f"{folders[0]} and {folders[1]} have {counted}{example}; {needed}")
    if moved:
        pairs.notes.append(
            f"{folders[0]} and {folders[1]} are counted from different numbers: paired in order, {moved[0]}"
        )
    pairs.notes += _of_missing(pairs, alone, num_holes, folders[0])
    return pairs


def by_numbers(text: str) -> list[tuple[int, str]]:
    """Returns a key that sorts texts by the numbers in them, so that take2 comes before take10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"([0-9]+)", text)]


def _are_counted_differently(frames: dict[int, str], poses: dict[int, str]) -> bool:
    """Returns whether frames and poses are the same pictures, counted from different numbers.

    Programs count from 0 or from 1, so one of them may begin with 0 and the other with 1. Or they have no number in
    common. In both cases they are as many, and no number is missing.
    """
    spans = [max(each) - min(each) + 1 if each else 0 for each in (frames, poses)]
    if not len(frames) == len(poses) == spans[0] == spans[1] or frames.keys() == poses.keys():
        return False
    return {min(frames), min(poses)} == {0, 1} or not frames.keys() & poses.keys()


def _of_missing(pairs: Pairs, alone: list[str], num_holes: int, folder: str) -> list[str]:
    """Returns in words what is missing and what became of it."""
    notes = []
    num_empty = pairs.poses.count(EMPTY)
    if num_empty:
        first = pairs.frames[pairs.poses.index(EMPTY)]
        notes.append(f"empty poses: {num_empty} frames have no pose image, such as {first}")
    if len(alone) > num_empty:
        lonely = next(file for file in alone if file not in pairs.frames) if num_empty else alone[0]
        count = len(alone) - num_empty
        notes.append(f"left out: {count} frames without a pose or poses without a frame, such as {lonely}")
    if num_holes:
        notes.append(f"{folder}: numbers are missing at {num_holes} places; a take ends at each of them")
    return notes
