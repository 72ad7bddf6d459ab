"""Draws a robot arm above a table with objects, 64 x 64 pixels.

The steps are: positions in metres -> outlines in pixels -> frames.

Lengths are in metres, angles in radians, image positions in pixels. World axes: x to the right of the picture, y down
the picture, z up from the table; (0, 0, 0) is the middle of the picture. A higher point appears farther up in the
picture. The lamp is at the upper left, so shadows fall to the lower right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.intake.facts import CLIP_SIZE
from src.synthetic.rasteriser import Array, Box, box_around, nearest_point, per_pixel, pixel_centres

Picture = NDArray[np.uint8]

SIZE = CLIP_SIZE[0]  # pixels a side
SCALE = 116.0  # pixels per metre
RISE = 0.5  # a point 1 m above the table appears this many metres farther up in the picture
SHADOW = np.array([0.45, 0.25])  # the shadow of a point 1 m above the table is this far away, in metres
GROWTH = 1.3  # the arm looks this much thicker per metre of height, because it is nearer to the camera
SENSOR_NOISE = 0.7  # grey levels
OPENING = 0.017  # distance from the middle of the gripper to each finger
FINGER = 0.009  # half the width of a finger
STILL = 1e-5  # metres or radians; a smaller movement cannot be seen
FRAMES_AT_ONCE = 10  # few, so that the arm moves over a small part of the picture

SHOULDER = np.array([0.0, -0.44, 0.28])  # outside the picture, above its upper edge
LINK = 0.36  # length of the upper arm and of the forearm, seen from above
PALM = 0.05  # height above the fingertips
WRIST = 0.09  # height above the fingertips
ELBOW = 0.16  # height above the table


class ArmPart(NamedTuple):
    """One piece of the arm, round at both ends."""

    start: str
    end: str
    start_radius: float
    end_radius: float
    colour: tuple[float, float, float]


PARTS = (  # from the lowest to the highest, in the order of drawing
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
    """An upright prism. With one corner its base is a disc, else a convex polygon around (0, 0)."""

    corners: Array  # (N, 2)
    radius: float  # of the disc, or of the circle that encloses the polygon
    height: float
    colour: Array  # (3,) grey levels, of the sides and the rim
    lid: Array  # (3,) grey levels, of the inner part of the top
    mass: float  # kilograms; mass and grip cannot be seen
    grip: float  # coefficient of friction with the table


def arm(positions: Array, angles: Array) -> dict[str, Array]:
    """Returns the arm's points, (T, 3) each, for fingertips at `positions` (T, 3) and a gripper at `angles` (T,)."""
    up = np.array([0.0, 0.0, 1.0])
    across = OPENING * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    way = positions[:, :2] - SHOULDER[:2]
    distance = np.hypot(*way.T)[:, None]
    half = distance / 2
    side = (
        np.stack([-way[:, 1], way[:, 0]], axis=1) / distance
    )  # both links have one length, so the triangle is isosceles
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
    """Returns x and y (..., 2) of points (..., 3) in the picture, in pixels from its upper left corner."""
    return SIZE / 2 + SCALE * (points[..., :2] - np.array([0.0, RISE]) * points[..., 2:])


def draw_frames(
    things: Sequence[Thing], places: Array, positions: Array, angles: Array, rng: np.random.Generator
) -> Picture:
    """Returns frames (T, 64, 64, 3) in 0..255.

    places: (T, K, 3), x, y and angle of each object. positions: (T, 3), of the fingertips. angles: (T,), of the
    gripper. The table, the light and the sensor noise are drawn from `rng`.
    """
    table = _draw_table(rng)
    brightness = rng.normal(1, 0.04)
    far_to_near = np.argsort(places[..., 1].mean(axis=0))
    drawn = []
    for start in range(0, len(positions), FRAMES_AT_ONCE):
        span = slice(start, start + FRAMES_AT_ONCE)
        points = arm(positions[span], angles[span])
        frames = np.repeat(table[None], len(points["wrist"]), axis=0)
        for k in far_to_near:
            _draw_thing(frames, things[k], places[span, k], brightness)
        _draw_arm(frames, points, brightness)
        frames += SENSOR_NOISE * rng.standard_normal(frames.shape, dtype=np.float32)
        drawn.append(np.clip(np.rint(frames), 0, 255).astype(np.uint8))
    return np.ascontiguousarray(np.concatenate(drawn).transpose(0, 2, 3, 1))


def _draw_table(rng: np.random.Generator) -> Array:
    """Returns an empty table (3, 64, 64) in grey levels: wooden boards, brighter near the lamp, darker at the rim."""
    rows = np.arange(SIZE)[:, None] + 0.5
    columns = np.arange(SIZE)[None, :] + 0.5
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
    """Draws an object and its shadow into `frames` (T, 3, 64, 64) at `places` (T, 3)."""
    if np.ptp(places, axis=0).max() < STILL:
        places = places[:1]  # one outline for all frames
    cosine = np.cos(places[:, 2])
    sine = np.sin(places[:, 2])
    turn = np.stack([np.stack([cosine, sine], axis=1), np.stack([-sine, cosine], axis=1)], axis=1)  # (T, 2, 2)
    centre = SIZE / 2 + SCALE * places[:, None, :2]
    corners = SCALE * thing.corners @ turn
    up = np.array([0.0, -RISE * SCALE * thing.height])
    radius = SCALE * thing.radius if len(thing.corners) == 1 else 0.0
    box = _box_around(centre, SCALE * (thing.radius + thing.height) + 3)
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
        view += cover * (per_pixel(brightness * colour) - view)


def _draw_arm(frames: Array, points: dict[str, Array], brightness: float) -> None:
    """Draws the shadow of the arm, and then the arm, into `frames` (T, 3, 64, 64)."""
    shadows = {name: SIZE / 2 + SCALE * (point[:, :2] + SHADOW * point[:, 2:]) for name, point in points.items()}
    box = _box_around(np.stack(list(shadows.values())), SCALE * max(part.end_radius for part in PARTS) + 2)
    view = frames[..., box[0], box[1]]
    nearest = np.full((len(view), *view.shape[2:]), np.inf, np.float32)
    for part in PARTS:
        if part.start != part.end:  # the shadow of a joint lies within those of its links
            radii = SCALE * part.start_radius, SCALE * part.end_radius
            link = _from_link(shadows[part.start], shadows[part.end], *radii, box)
            np.minimum(nearest, link.distance, out=nearest)
    view *= 1 - 0.38 * _cover(nearest, 3.5)
    for part in PARTS:
        start = project(points[part.start])
        end = project(points[part.end])
        start_radius = SCALE * part.start_radius * (1 + GROWTH * points[part.start][:, 2])
        end_radius = SCALE * part.end_radius * (1 + GROWTH * points[part.end][:, 2])
        box = _box_around(np.stack([start, end]), max(start_radius.max(), end_radius.max()) + 1)
        link = _from_link(start, end, start_radius, end_radius, box)
        cover = _cover(link.distance, 1.0)
        lit = brightness * (1 - 0.3 * np.clip((0.4 * link.right + 0.9 * link.below) / link.radius, -1, 1))
        view = frames[..., box[0], box[1]]
        view += cover * (lit[:, None] * per_pixel(part.colour) - view)


def _cover(distance: Array, edge: float) -> Array:
    """Returns the covered share of each pixel, (T, 1, H, W) in [0, 1]; the outline fades over `edge` pixels."""
    return np.clip(0.5 - distance / np.float32(edge), 0, 1)[:, None]


def _box_around(points: Array, margin: float) -> Box:
    return box_around(points, margin, height=SIZE, width=SIZE)


class _Link(NamedTuple):
    """The pixels (T, H, W) relative to a link: a line with rounded ends whose radius changes along it."""

    right: Array  # from the nearest point of the line to the pixel
    below: Array
    radius: Array  # of the link at the nearest point
    distance: Array  # of the pixel from the outline, negative inside


def _from_link(start: Array, end: Array, start_radius: ArrayLike, end_radius: ArrayLike, box: Box) -> _Link:
    """Returns the pixels of the box relative to links with ends (T, 2) and the radii (T,) of these ends."""
    along, right, below = nearest_point(start, end, box)
    radius = per_pixel(start_radius) + along * (per_pixel(end_radius) - per_pixel(start_radius))
    return _Link(right, below, radius, np.sqrt(right**2 + below**2) - radius)


def _outline(corners: Array, radius: float, sweep: Array, box: Box) -> Array:
    """Returns the distance (T, H, W) of each pixel from an area, negative inside.

    The area is covered by a disc or a convex polygon with `corners` (T, N, 2) while it moves by `sweep` (2,).
    """
    if corners.shape[1] == 1:
        return _from_link(corners[:, 0], corners[:, 0] + sweep, radius, radius, box).distance
    edges = np.roll(corners, -1, axis=1) - corners
    if np.any(sweep):
        both_ways = np.broadcast_to(np.stack([sweep, -sweep]), (len(corners), 2, 2))
        edges = np.concatenate([edges, both_ways], axis=1)
    normals = np.stack([edges[..., 1], -edges[..., 0]], axis=2)
    normals = normals / np.linalg.norm(normals, axis=2, keepdims=True)
    reach = (normals @ np.swapaxes(corners, 1, 2)).max(axis=2) + np.maximum(normals @ sweep, 0)
    columns, rows = pixel_centres(box)
    distance = np.full((len(corners), len(rows), len(columns)), -np.inf, np.float32)
    for normal, limit in zip(np.moveaxis(normals, 1, 0), reach.T, strict=True):
        beyond = per_pixel(normal[:, 0]) * columns + (per_pixel(normal[:, 1]) * rows - per_pixel(limit))
        np.maximum(distance, beyond, out=distance)
    return distance
