"""The front of speed and accuracy, worked out on paper and by its definition."""

from itertools import product

import pytest

from report.pareto import front


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], ()),
        ([(1.0, 0.8)], (0,)),
        ([(1.0, 0.9), (2.0, 0.8), (3.0, 0.7)], (0, 1, 2)),  # each is best at something
        ([(1.0, 0.7), (2.0, 0.8), (3.0, 0.9)], (2,)),  # the last beats all
        ([(2.0, 0.8), (2.0, 0.8)], (0, 1)),  # equal points do not beat each other
        ([(2.0, 0.8), (2.0, 0.9)], (1,)),  # as fast, and more accurate
        ([(2.0, 0.8), (3.0, 0.8)], (1,)),  # as accurate, and faster
        ([(1.0, 0.9), (2.0, 0.8), (1.5, 0.8), (2.5, 0.6)], (0, 1, 3)),
    ],
)
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]], expected: tuple[int, ...]) -> None:
    assert front(points) == expected


def test_everything_off_the_front_is_beaten_by_something_on_it() -> None:
    points = [(x, y) for x, y in product(range(6), range(6)) if x + y < 8 and (x * y) % 3 != 1]
    found = front(points)
    assert found
    for index, (x, y) in enumerate(points):
        beaten = any(points[other] != (x, y) and points[other][0] >= x and points[other][1] >= y for other in found)
        assert beaten != (index in found)
