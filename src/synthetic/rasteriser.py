"""Geometry of drawn lines on the pixel grid, for the dancers and the tabletop.

Positions are in pixels: x to the right and y down from the picture's upper left corner. The centre of the first pixel
is (0.5, 0.5). Everything per pixel is float32.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]
Box = tuple[slice, slice]  # rows and columns of a part of the picture


class NearestPoint(NamedTuple):
    """The point of a line that is nearest to each pixel of a box, for T lines: three arrays (T, H, W)."""

    along: Array  # position of the nearest point on the line: 0 at the start, 1 at the end
    right: Array  # from the nearest point to the pixel, in pixels to the right
    below: Array  # the same, in pixels down


def box_around(points: Array, margin: float, *, height: int, width: int) -> Box:
    """Returns the rows and columns, inside the picture, that lie within `margin` pixels of `points` (..., 2)."""
    size = (width, height)
    low = np.clip(np.floor(points.reshape(-1, 2).min(axis=0) - margin), 0, size).astype(int)
    high = np.clip(np.ceil(points.reshape(-1, 2).max(axis=0) + margin), 0, size).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def pixel_centres(box: Box) -> tuple[Array, Array]:
    """Returns the centres of the pixels of a box: x (W,) and y (H, 1)."""
    rows, columns = (np.arange(side.start, side.stop, dtype=np.float32) + 0.5 for side in box)
    return columns, rows[:, None]


def per_pixel(values: ArrayLike) -> Array:
    """Returns numbers (T,) as (T, 1, 1), so that they combine with values of each pixel (T, H, W)."""
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def nearest_point(start: Array, end: Array, box: Box) -> NearestPoint:
    """Returns the nearest point of the lines from `start` (T, 2) to `end` (T, 2) for each pixel of a box."""
    columns, rows = pixel_centres(box)
    x = columns - per_pixel(start[:, 0])
    y = rows - per_pixel(start[:, 1])
    across = per_pixel(end[:, 0] - start[:, 0])
    down = per_pixel(end[:, 1] - start[:, 1])
    along = np.clip((x * across + y * down) / (across**2 + down**2 + 1e-6), 0, 1)
    return NearestPoint(along, x - along * across, y - along * down)
