"""Drawn lines: the nearest point of each pixel by a slow search, and boxes that stay inside the picture."""

import numpy as np
import pytest

from src.synthetic.rasteriser import box_around, nearest_point, per_pixel, pixel_centres


def test_nearest_point_equals_a_slow_search_along_the_line() -> None:
    start = np.array([[1.2, 2.5], [6.0, 0.5], [3.0, 3.0]])
    end = np.array([[5.7, 3.1], [0.4, 4.9], [3.0, 3.0]])  # the last line is a point
    box = (slice(1, 5), slice(0, 7))
    nearest = nearest_point(start, end, box)
    assert nearest.along.shape == (3, 4, 7)
    steps = np.linspace(0, 1, 2001)[:, None]
    for k in range(3):
        points = start[k] + steps * (end[k] - start[k])
        for row in range(4):
            for column in range(7):
                ways = np.array([column + 0.5, row + 1.5]) - points
                best = np.argmin(np.hypot(*ways.T))
                found = (nearest.right[k, row, column], nearest.below[k, row, column])
                assert found == pytest.approx(ways[best], abs=5e-3)
                if k < 2:
                    assert nearest.along[k, row, column] == pytest.approx(steps[best, 0], abs=1e-3)


def test_a_box_holds_the_points_and_their_margin() -> None:
    points = np.array([[[10.2, 5.5]], [[20.9, 7.0]]])
    assert box_around(points, 1.5, height=32, width=64) == (slice(4, 9), slice(8, 23))


@pytest.mark.parametrize(
    ("point", "box"),
    [
        ((-9.0, 40.0), (slice(32, 32), slice(0, 0))),
        ((63.5, 0.5), (slice(0, 2), slice(62, 64))),
    ],
)
def test_a_box_ends_with_the_picture(point: tuple[float, float], box: tuple[slice, slice]) -> None:
    assert box_around(np.array([point]), 1.0, height=32, width=64) == box


def test_centres_of_pixels_by_hand() -> None:
    x, y = pixel_centres((slice(2, 4), slice(5, 8)))
    assert x.tolist() == [5.5, 6.5, 7.5]
    assert y.tolist() == [[2.5], [3.5]]
    assert per_pixel([1.0, 2.0]).shape == (2, 1, 1)
