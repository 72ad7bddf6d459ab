"""Draws a person in a grey studio, and the pose image of each frame.

The steps are: joint angles -> positions of the joints in metres -> positions in the picture -> pixels.

Lengths are in metres, angles in radians, image positions in pixels. World axes: x to the right of the picture, y up
from the floor, z away from the camera. The axes of a person: their right, up, forward.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.dance.skeleton import LIMBS
from src.intake.facts import FRAME_SIZE
from src.synthetic.rasteriser import Array, box_around, nearest_point, per_pixel

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]

HEIGHT, WIDTH = FRAME_SIZE
FOCAL = 49.0  # pixels
HORIZON = 12.5  # the row at the height of the camera
CAMERA_HEIGHT = 1.02  # metres
SHADOW_DROP = 0.18  # the polished floor mirrors a foot this many metres below it
EDGE = 1.5  # pixels over which an outline fades, because the lens is not perfectly sharp
LINE_WIDTH = 0.16  # pixels; a pose line covers at most this share of a pixel
SENSOR_NOISE = 0.5  # grey levels
BODY_25 = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("hips", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel"),
    *("right_big_toe", "right_small_toe", "right_heel"),
)
FINGERS = tuple(f"{side}_finger_{finger}" for side in ("right", "left") for finger in range(3))
POINTS = (*BODY_25, *FINGERS, "head", "chin", "crown", "right_waist", "left_waist")
INDEX = {name: index for index, name in enumerate(POINTS)}

LAMPS = (  # column, grey levels added at the top row, half width and half height in pixels; < 0 between lamps
    (2.5, 50, 4, 6),
    (14.5, -45, 6, 3),
    (27.5, 38, 4, 6),
    (39.5, -62, 6, 3),
    (56.5, 68, 7, 5),
)


class BodyPart(NamedTuple):
    """One piece of a person, round at both ends."""

    start: str
    end: str
    start_radius: float
    end_radius: float
    surface: str  # its colour in `Scene.colours`
    nearness: float = 0.0  # metres to subtract from its distance when the parts are sorted


SIDES = (("right", 1.0), ("left", -1.0))
PARTS = (
    *(BodyPart(f"{side}_waist", f"{side}_shoulder", 0.125, 0.075, "shirt") for side, _ in SIDES),
    *(BodyPart(f"{side}_shoulder", "neck", 0.07, 0.10, "shirt") for side, _ in SIDES),
    BodyPart("hips", "neck", 0.165, 0.115, "shirt"),
    BodyPart("right_hip", "left_hip", 0.13, 0.13, "trousers", nearness=0.06),
    *(BodyPart(f"{side}_hip", f"{side}_knee", 0.12, 0.085, "trousers") for side, _ in SIDES),
    *(BodyPart(f"{side}_knee", f"{side}_ankle", 0.085, 0.065, "trousers") for side, _ in SIDES),
    *(BodyPart(f"{side}_heel", f"{side}_big_toe", 0.055, 0.05, "shoes") for side, _ in SIDES),
    *(BodyPart(f"{side}_shoulder", f"{side}_elbow", 0.08, 0.075, "sleeves") for side, _ in SIDES),
    *(BodyPart(f"{side}_elbow", f"{side}_wrist", 0.068, 0.05, "sleeves") for side, _ in SIDES),
    *(BodyPart(f"{side}_wrist", f"{side}_finger_1", 0.045, 0.04, "skin") for side, _ in SIDES),
    BodyPart("neck", "chin", 0.06, 0.06, "skin"),
    BodyPart("chin", "head", 0.07, 0.08, "skin"),
    BodyPart("head", "crown", 0.08, 0.085, "hair"),
)


class Motion(NamedTuple):
    """The movement of a person: for each control one number per frame (T,)."""

    x: Array  # place on the floor, metres
    z: Array
    heading: Array  # 0 faces the camera, pi / 2 the right edge of the picture
    gaze: Array  # turn of the head relative to the body
    phase: Array  # of the gait: the right leg is in front if sin(phase) > 0
    stride: Array  # 0: stands, 1: takes full steps
    lunge: Array  # 0: walks upright, 1: bends the knees deeply in each step
    squat: Array  # 0: upright, 1: full squat
    lift: Array  # 1: the right knee is up, -1: the left
    spread: Array  # of each leg to the side
    lean: Array  # of the trunk, forward
    raise_right: Array  # arms to the side; pi is overhead
    raise_left: Array
    reach_right: Array  # arms forward
    reach_left: Array
    bend_right: Array  # elbows
    bend_left: Array


@dataclass(frozen=True)
class Scene:
    """The appearance of one take."""

    background: Array  # (32, 64, 3), grey levels 0..255
    colours: Mapping[str, Array]  # (3,) each, grey levels
    stature: float  # height of the person divided by 1.75 m
    girth: float  # factor of all radii
    folds: Array  # (T, number of parts): factor of the radii, because cloth and hair move


class View(NamedTuple):
    """The `POINTS` as the camera sees them."""

    position: Array  # (T, P, 2): x and y in pixels
    distance: Array  # (T, P): metres from the camera
    scale: Array  # (T, P): pixels per metre


def body(motion: Motion, stature: float) -> Array:
    """Returns the world positions (T, P, 3) of the `POINTS`, in metres.

    The lowest knee, ankle or toe touches the floor.
    """
    points: dict[str, Array] = {"hips": np.zeros((len(motion.x), 3))}
    for side, sign in SIDES:
        _add_leg(points, motion, side, sign)
    soles = (("knee", 0.06), ("ankle", 0.08), ("big_toe", 0.03))
    low = np.max([gap - points[f"{side}_{joint}"][:, 1] for side in ("right", "left") for joint, gap in soles], axis=0)
    spine = _limb(-1.0, -motion.lean)
    points["neck"] = 0.50 * spine
    for side, sign in SIDES:
        points[f"{side}_waist"] = 0.10 * spine + [sign * 0.075, 0, 0]
        _add_arm(points, motion, side, sign)
    _add_head(points, motion, spine)
    own = stature * (np.stack([points[name] for name in POINTS], axis=1) + [0, 1, 0] * low[:, None, None])
    right, up, forward = np.moveaxis(own, 2, 0)
    sine = np.sin(motion.heading)[:, None]
    cosine = np.cos(motion.heading)[:, None]
    x = motion.x[:, None] + forward * sine - right * cosine
    z = motion.z[:, None] - forward * cosine - right * sine
    return np.stack([x, up, z], axis=2)


def _limb(length: float, swing: Array, spread: Array | float = 0.0) -> Array:
    """Returns a limb (T, 3) in the person's axes: hanging down, then turned forward and to the right."""
    flat = np.cos(spread)
    return length * np.stack([np.sin(spread) + 0 * swing, -flat * np.cos(swing), flat * np.sin(swing)], axis=1)


def _add_leg(points: dict[str, Array], motion: Motion, side: str, sign: float) -> None:
    swing = sign * np.sin(motion.phase)
    lifted = np.maximum(sign * motion.lift, 0)
    ahead = np.maximum(swing, 0) ** 2
    behind = np.maximum(-swing, 0) ** 2
    recovery = np.maximum(sign * np.cos(motion.phase), 0) ** 2  # the knee bends while the leg moves forward
    hip = (1 - motion.lunge) * 0.45 * swing + motion.lunge * (1.4 * ahead - 0.4 * behind)
    knee = (1 - motion.lunge) * 0.9 * recovery + motion.lunge * 1.35 * (ahead + behind)
    hip = motion.stride * hip + 1.7 * motion.squat + 1.45 * lifted
    shin = hip - 0.05 - motion.stride * knee - 2.5 * motion.squat - 1.4 * lifted
    spread = sign * motion.spread
    points[f"{side}_hip"] = points["hips"] + [sign * 0.095, 0, 0]
    points[f"{side}_knee"] = points[f"{side}_hip"] + _limb(0.43, hip, spread)
    points[f"{side}_ankle"] = ankle = points[f"{side}_knee"] + _limb(0.42, shin, spread)
    tilt = np.minimum(0.8 * shin, 0) + np.pi / 2  # the foot is flat until the shin points backwards
    points[f"{side}_big_toe"] = ankle + _limb(0.19, tilt - 0.3, sign * 0.15)
    points[f"{side}_small_toe"] = ankle + _limb(0.17, tilt - 0.3, sign * 0.5)
    points[f"{side}_heel"] = ankle + _limb(0.075, tilt - 2.2)


def _add_arm(points: dict[str, Array], motion: Motion, side: str, sign: float) -> None:
    rise, reach, bend = (getattr(motion, f"{control}_{side}") for control in ("raise", "reach", "bend"))
    reach = reach - sign * 0.5 * motion.stride * (1 - 0.5 * motion.lunge) * np.sin(motion.phase)
    sideways = np.sin(np.clip(rise, 0, np.pi / 2)) ** 2  # a raised arm bends upward, others forward
    fore_rise = rise + sideways * bend
    fore_reach = reach + (1 - sideways) * bend
    points[f"{side}_shoulder"] = points["neck"] + [sign * 0.19, -0.03, 0]
    points[f"{side}_elbow"] = points[f"{side}_shoulder"] + _limb(0.29, reach, sign * rise)
    points[f"{side}_wrist"] = wrist = points[f"{side}_elbow"] + _limb(0.26, fore_reach, sign * fore_rise)
    for finger in range(3):
        fan = 0.35 * (finger - 1)
        points[f"{side}_finger_{finger}"] = wrist + _limb(0.12, fore_reach + fan, sign * fore_rise + fan)


def _add_head(points: dict[str, Array], motion: Motion, spine: Array) -> None:
    sine = np.sin(motion.gaze)
    cosine = np.cos(motion.gaze)
    centre = points["neck"] + 0.21 * spine + [0, 0, 0.03]
    for name, (right, up, forward) in {
        "head": (0, 0, 0),
        "nose": (0, -0.01, 0.11),
        "chin": (0, -0.06, 0.03),
        "crown": (0, 0.075, -0.035),
        **{f"{side}_eye": (sign * 0.04, 0.03, 0.09) for side, sign in SIDES},
        **{f"{side}_ear": (sign * 0.08, 0.01, 0) for side, sign in SIDES},
    }.items():
        turned = np.stack([right * cosine - forward * sine, up + 0 * sine, forward * cosine + right * sine], axis=1)
        points[name] = centre + turned


def project(points: Array) -> View:
    """Returns the view of a pinhole camera of world points (T, P, 3)."""
    distance = np.maximum(points[..., 2], 0.3)
    scale = FOCAL / distance
    x = WIDTH / 2 + scale * points[..., 0]
    y = HORIZON + scale * (CAMERA_HEIGHT - points[..., 1])
    return View(np.stack([x, y], axis=2), distance, scale)


def draw_frames(view: View, scene: Scene, rng: np.random.Generator) -> Picture:
    """Returns frames (T, 32, 64, 3) in 0..255 of the person in the studio, with sensor noise from `rng`."""
    frames = (scene.background * (1 - _shadow(view))[..., None]).astype(np.float32)
    joints = np.array([(INDEX[part.start], INDEX[part.end]) for part in PARTS])
    nearness = np.array([part.nearness for part in PARTS])
    order = np.argsort(
        nearness - view.distance[:, joints].mean(axis=2), axis=1, kind="stable"
    )  # the farthest part is drawn first
    radii = scene.girth * np.array([(part.start_radius, part.end_radius) for part in PARTS])
    radii = radii * scene.folds[..., None] * view.scale[:, joints]
    colours = np.array([scene.colours[part.surface] for part in PARTS], np.float32)
    box = box_around(view.position[:, joints], radii.max() + 1, height=HEIGHT, width=WIDTH)
    each = np.arange(len(frames))
    for rank in range(len(PARTS)):
        part = order[:, rank]
        start, end = (view.position[each, joints[part, tip]] for tip in (0, 1))
        along, right, below = nearest_point(start, end, box)
        radius = per_pixel(radii[each, part, 0]) * (1 - along) + per_pixel(radii[each, part, 1]) * along
        cover = np.clip((radius - np.hypot(right, below)) / EDGE + 0.5, 0, 1)[..., None]
        lit = 0.92 + 0.16 * np.clip(-below / radius, -1, 1)  # the light comes from above
        frames[:, *box] += cover * (lit[..., None] * colours[part, None, None] - frames[:, *box])
    frames += SENSOR_NOISE * rng.standard_normal(frames.shape, dtype=np.float32)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def draw_poses(positions: Array, detected: Mask) -> Picture:
    """Returns pose images (T, 32, 64, 3) in 0..255: white, with a thin line for each limb whose ends are `detected`."""
    poses = np.full((len(detected), HEIGHT, WIDTH, 3), 255, np.float32)
    for first, second, colour in LIMBS:
        seen = np.flatnonzero(detected[:, INDEX[first]] & detected[:, INDEX[second]])
        if not len(seen):
            continue
        start = positions[seen, INDEX[first]]
        end = positions[seen, INDEX[second]]
        box = box_around(np.stack([start, end]), 1.0, height=HEIGHT, width=WIDTH)
        _, right, below = nearest_point(start, end, box)
        cover = LINE_WIDTH * np.clip(1 - np.hypot(right, below), 0, 1)[..., None]
        poses[seen, *box] += cover * (np.array(colour, np.float32) - poses[seen, *box])
    return np.rint(poses).astype(np.uint8)


def _shadow(view: View) -> Array:
    """Returns the share (T, 32, 64) of the background's light that the person's shadows and reflections take away."""
    hips = view.position[:, INDEX["hips"]]
    scale = view.scale[:, INDEX["hips"]]
    floor = HORIZON + scale * CAMERA_HEIGHT
    ankles = [INDEX["right_ankle"], INDEX["left_ankle"]]
    feet = list(zip(view.position[:, ankles, 0].T, HORIZON + view.scale[:, ankles].T * CAMERA_HEIGHT, strict=True))
    blobs = [  # centre in pixels, half widths in metres, strength
        (hips[:, 0] + 0.3 * scale, hips[:, 1] + 0.1 * scale, 0.35, 0.6, 0.07),
        (hips[:, 0] + 0.15 * scale, floor, 0.4, 0.07, 0.16),
        *((x, y, 0.14, 0.045, 0.3) for x, y in feet),
        *((x, y + SHADOW_DROP * scale, 0.08, 0.15, 0.16) for x, y in feet),
    ]
    rows = np.arange(HEIGHT) + 0.5
    columns = np.arange(WIDTH) + 0.5
    light = np.ones((len(hips), HEIGHT, WIDTH))
    for x, y, half_width, half_height, strength in blobs:
        across = np.exp(-0.5 * ((columns - x[:, None]) / (half_width * scale[:, None])) ** 2)
        down = np.exp(-0.5 * ((rows - y[:, None]) / (half_height * scale[:, None])) ** 2)
        light *= 1 - strength * down[:, :, None] * across[:, None, :]
    return 1 - light


def draw_studio(rng: np.random.Generator) -> Array:
    """Returns an empty studio (32, 64, 3) in grey levels: lamps at the top, dark sides, a light floor."""
    rows = np.arange(HEIGHT)[:, None] + 0.5
    columns = np.arange(WIDTH)[None, :] + 0.5
    light = 168 - 0.025 * (columns - 41) ** 2 + 1.7 * np.maximum(rows - 12.5, 0) - 3 * np.maximum(rows - 27.5, 0)
    for column, brightness, half_width, half_height in LAMPS:
        across = (columns - rng.normal(column, 0.15)) / half_width
        down = rows / half_height
        light += brightness * rng.normal(1, 0.03) * np.exp(-0.5 * (across**2 + down**2))
    light += 4 / (1 + np.exp(2 * (26.5 - rows)))  # where the wall meets the floor
    light *= rng.normal(1, 0.008) + rng.normal(0, 0.008) * (columns / WIDTH - 0.5)
    warmth = np.array([1.5, 0, -2]) * (0.5 + np.abs(columns / WIDTH - 0.5))[..., None]
    return np.clip(light[..., None] + warmth, 0, 255)
