"""Draws a robot arm over a table with things on it, 64 x 64: places in metres -> outlines in pixels -> frames.

Lengths are in metres, angles in radians, image positions in pixels. World axes: x to the right of the picture, y down
the picture, z up from the table; (0, 0, 0) is the middle of the picture. What lies higher is seen farther up, and the
lamp at the upper left throws its shadow to the lower right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.intake.facts import CLIP_SIZE

Array = NDArray[np.floating]
Picture = NDArray[np.uint8]
Box = tuple[slice, slice]  # rows and columns

SIZE = CLIP_SIZE[0]  # pixels a side
SCALE = 116.0  # pixels to a metre
RISE = 0.5  # how far up the picture a metre above the table is seen, in metres
SHADOW = np.array([0.45, 0.25])  # how far a metre above the table throws its shadow, in metres
GROWTH = 1.3  # how much wider a metre above the table looks: it is nearer to the camera
SENSOR_NOISE = 0.7  # grey levels
OPENING = 0.017  # from the middle of the gripper to each finger
FINGER = 0.009  # half its width
STILL = 1e-5  # metres or radians, far less than a picture can show
TOGETHER = 10  # frames drawn at once: within so few the arm sweeps over little of the picture

SHOULDER = np.array([0.0, -0.44, 0.28])  # out of the picture, above its upper edge
LINK = 0.36  # the length of either part of the arm, seen from above
PALM, WRIST, ELBOW = 0.05, 0.09, 0.16  # heights above the fingertips; of the elbow, above the table


class ArmPart(NamedTuple):
    """One piece of the arm, round at both ends."""

    start: str
    end: str
    start_radius: float
    end_radius: float
    colour: tuple[float, float, float]


PARTS = (  # from the table upwards
    ArmPart("left_tip", "left_knuckle", FINGER, 0.011, (150, 152, 158)),
    ArmPart("right_tip", "right_knuckle", FINGER, 0.011, (150, 152, 158)),
    ArmPart("left_knuckle", "right_knuckle", 0.015, 0.015, (58, 60, 66)),
    ArmPart("palm", "wrist", 0.022, 0.026, (58, 60, 66)),
    ArmPart("wrist", "elbow", 0.027, 0.034, (122, 40, 38)),
    ArmPart("wrist", "wrist", 0.019, 0.019, (48, 50, 56)),
    ArmPart("elbow", "shoulder", 0.036, 0.045, (122, 40, 38)),
    ArmPart("elbow", "elbow", 0.036, 0.036, (48, 50, 56)),
)


@dataclass(frozen=True)
class Thing:
    """An upright prism: a disc where it has one corner, else a convex polygon around (0, 0)."""

    corners: Array  # (N, 2)
    radius: float  # of the disc, or of the circle around the polygon
    height: float
    colour: Array  # (3,) grey levels, of its sides and rim
    lid: Array  # (3,) grey levels, of the inner part of its top
    mass: float  # kilograms; neither this nor `grip` can be seen
    grip: float  # coefficient of friction with the table


def arm(positions: Array, angles: Array) -> dict[str, Array]:
    """The arm's points (T, 3) for fingertips at `positions` (T, 3) and a gripper turned by `angles` (T,)."""
    up = np.array([0.0, 0.0, 1.0])
    across = OPENING * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    way = positions[:, :2] - SHOULDER[:2]
    distance = np.hypot(*way.T)[:, None]
    half = distance / 2
    side = np.stack([-way[:, 1], way[:, 0]], axis=1) / distance  # both links are equally long: an isosceles triangle
    elbow = SHOULDER[:2] + way / 2 - np.sqrt(np.maximum(LINK**2 - half**2, 0)) * side
    return {
        "left_tip": positions - across,
        "right_tip": positions + across,
        "left_knuckle": positions - across + PALM * up,
        "right_knuckle": positions + across + PALM * up,
        "palm": positions + PALM * up,
        "wrist": positions + WRIST * up,
        "elbow": np.column_stack([elbow, np.full(len(elbow), ELBOW)]),
        "shoulder": np.broadcast_to(SHOULDER, positions.shape),
    }


def project(points: Array) -> Array:
    """Where the camera sees points (..., 3): x and y (..., 2) in pixels from the picture's upper left corner."""
    return SIZE / 2 + SCALE * (points[..., :2] - np.array([0.0, RISE]) * points[..., 2:])


def draw_frames(
    things: Sequence[Thing], places: Array, positions: Array, angles: Array, rng: np.random.Generator
) -> Picture:
    """Frames (T, 64, 64, 3) in 0..255; `places` (T, K, 3) holds x, y and angle of each thing, `angles` (T,) the turn
    of the gripper whose fingertips are at `positions` (T, 3); table, light and sensor noise come from `rng`."""
    table, brightness = _draw_table(rng), rng.normal(1, 0.04)
    far_to_near = np.argsort(places[..., 1].mean(axis=0))
    drawn = []
    for start in range(0, len(positions), TOGETHER):
        span = slice(start, start + TOGETHER)
        points = arm(positions[span], angles[span])
        frames = np.repeat(table[None], len(points["wrist"]), axis=0)
        for k in far_to_near:
            _draw_thing(frames, things[k], places[span, k], brightness)
        _draw_arm(frames, points, brightness)
        frames += SENSOR_NOISE * rng.standard_normal(frames.shape, dtype=np.float32)
        drawn.append(np.clip(np.rint(frames), 0, 255).astype(np.uint8))
    return np.ascontiguousarray(np.concatenate(drawn).transpose(0, 2, 3, 1))


def _draw_table(rng: np.random.Generator) -> Array:
    """An empty table (3, 64, 64) in grey levels: boards with a grain, brighter near the lamp, darker at the rim."""
    rows, columns = np.arange(SIZE)[:, None] + 0.5, np.arange(SIZE)[None, :] + 0.5
    bell = np.hanning(23)[1:-1]
    grain = rng.standard_normal((SIZE, SIZE + len(bell) - 1))
    grain = sum(weight * grain[:, k : k + SIZE] for k, weight in enumerate(bell / np.linalg.norm(bell)))
    board = np.floor((rows + rng.uniform(0, 16)) / 16).astype(int)
    tone = 1 + 0.03 * grain + rng.normal(0, 0.03, 6)[board]
    tone = tone * (1 - 0.12 * np.exp(-((rows + rng.uniform(0, 16)) % 16)))
    lamp = rng.normal((18, 14), 4)
    tone = tone * (0.78 + 0.32 * np.exp(-0.5 * ((columns - lamp[0]) ** 2 + (rows - lamp[1]) ** 2) / 34**2))
    to_edge = np.minimum(np.minimum(rows, SIZE - rows), np.minimum(columns, SIZE - columns))
    tone = tone * (1 - 0.35 * np.clip(2.5 - to_edge, 0, 1))
    wood = np.array([186, 160, 128]) * rng.normal(1, 0.025) + rng.normal(0, 3, 3)
    return (tone * wood[:, None, None]).astype(np.float32)


def _draw_thing(frames: Array, thing: Thing, places: Array, brightness: float) -> None:
    if np.ptp(places, axis=0).max() < STILL:
        places = places[:1]  # one outline for all frames
    cosine, sine = np.cos(places[:, 2]), np.sin(places[:, 2])
    turn = np.stack([np.stack([cosine, sine], axis=1), np.stack([-sine, cosine], axis=1)], axis=1)  # (T, 2, 2)
    centre = SIZE / 2 + SCALE * places[:, None, :2]
    corners = SCALE * thing.corners @ turn
    up = np.array([0.0, -RISE * SCALE * thing.height])
    radius = SCALE * thing.radius if len(thing.corners) == 1 else 0.0
    box = _box(centre, SCALE * (thing.radius + thing.height) + 3)
    rows, columns = box
    view = frames[..., rows, columns]
    shade = _cover(_outline(centre + corners, radius, SHADOW * SCALE * thing.height, box), 3.0)
    view *= 1 - 0.4 * shade
    side, top, lid = (
        (centre + corners, radius, up, 0.68 * thing.colour),
        (centre + up + corners, radius, np.zeros(2), thing.colour),
        (centre + up + 0.55 * corners, 0.55 * radius, np.zeros(2), thing.lid),
    )
    for points, rounding, sweep, colour in (side, top, lid):
        cover = _cover(_outline(points, rounding, sweep, box), 1.0)
        view += cover * (_column(brightness * colour) - view)


def _draw_arm(frames: Array, points: dict[str, Array], brightness: float) -> None:
    thrown = {name: SIZE / 2 + SCALE * (point[:, :2] + SHADOW * point[:, 2:]) for name, point in points.items()}
    box = _box(np.stack(list(thrown.values())), SCALE * max(part.end_radius for part in PARTS) + 2)
    view = frames[..., box[0], box[1]]
    nearest = np.full((len(view), *view.shape[2:]), np.inf, np.float32)
    for part in PARTS:
        if part.start != part.end:  # a joint throws no shadow that its links do not
            radii = SCALE * part.start_radius, SCALE * part.end_radius
            link = _from_link(thrown[part.start], thrown[part.end], *radii, box)
            np.minimum(nearest, link.distance, out=nearest)
    view *= 1 - 0.38 * _cover(nearest, 3.5)
    for part in PARTS:
        start, end = project(points[part.start]), project(points[part.end])
        start_radius = SCALE * part.start_radius * (1 + GROWTH * points[part.start][:, 2])
        end_radius = SCALE * part.end_radius * (1 + GROWTH * points[part.end][:, 2])
        box = _box(np.stack([start, end]), max(start_radius.max(), end_radius.max()) + 1)
        link = _from_link(start, end, start_radius, end_radius, box)
        cover = _cover(link.distance, 1.0)
        lit = brightness * (1 - 0.3 * np.clip((0.4 * link.right + 0.9 * link.below) / link.radius, -1, 1))
        view = frames[..., box[0], box[1]]
        view += cover * (lit[:, None] * _column(part.colour) - view)


def _cover(distance: Array, edge: float) -> Array:
    """How much of each pixel (T, 1, H, W) in [0, 1] lies within an outline that fades over `edge` pixels."""
    return np.clip(0.5 - distance / np.float32(edge), 0, 1)[:, None]


def _box(points: Array, margin: float) -> Box:
    """The rows and columns that a drawing within `margin` of the `points` (..., 2) can touch."""
    low = np.clip(np.floor(points.reshape(-1, 2).min(axis=0) - margin), 0, SIZE).astype(int)
    high = np.clip(np.ceil(points.reshape(-1, 2).max(axis=0) + margin), 0, SIZE).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _grid(box: Box) -> tuple[Array, Array]:
    """The middles of the pixels: x (W,) and y (H, 1)."""
    rows, columns = (np.arange(side.start, side.stop, dtype=np.float32) + 0.5 for side in box)
    return columns, rows[:, None]


def _column(values: ArrayLike) -> Array:
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


class _Link(NamedTuple):
    """Each pixel (T, H, W) as seen from the nearest point of a line that is `radius` thick on either side there."""

    right: Array
    below: Array
    radius: Array
    distance: Array  # from the outline, negative inside


def _from_link(start: Array, end: Array, start_radius: ArrayLike, end_radius: ArrayLike, box: Box) -> _Link:
    """The pixels of the box from lines whose ends (T, 2) are as thick as the radii (T,) say."""
    columns, rows = _grid(box)
    x, y = columns - _column(start[:, 0]), rows - _column(start[:, 1])
    across, down = _column(end[:, 0] - start[:, 0]), _column(end[:, 1] - start[:, 1])
    along = np.clip((x * across + y * down) / (across**2 + down**2 + 1e-6), 0, 1)
    right, below = x - along * across, y - along * down
    radius = _column(start_radius) + along * (_column(end_radius) - _column(start_radius))
    return _Link(right, below, radius, np.sqrt(right**2 + below**2) - radius)


def _outline(corners: Array, radius: float, sweep: Array, box: Box) -> Array:
    """The distance (T, H, W) of each pixel from the area that a disc or convex polygon (T, N, 2) covers as it is
    moved by `sweep` (2,): negative inside."""
    if corners.shape[1] == 1:
        return _from_link(corners[:, 0], corners[:, 0] + sweep, radius, radius, box).distance
    edges = np.roll(corners, -1, axis=1) - corners
    if np.any(sweep):
        both_ways = np.broadcast_to(np.stack([sweep, -sweep]), (len(corners), 2, 2))
        edges = np.concatenate([edges, both_ways], axis=1)
    normals = np.stack([edges[..., 1], -edges[..., 0]], axis=2)
    normals = normals / np.linalg.norm(normals, axis=2, keepdims=True)
    reach = (normals @ np.swapaxes(corners, 1, 2)).max(axis=2) + np.maximum(normals @ sweep, 0)
    columns, rows = _grid(box)
    distance = np.full((len(corners), len(rows), len(columns)), -np.inf, np.float32)
    for normal, limit in zip(np.moveaxis(normals, 1, 0), reach.T, strict=True):
        beyond = _column(normal[:, 0]) * columns + (_column(normal[:, 1]) * rows - _column(limit))
        np.maximum(distance, beyond, out=distance)
    return distance
