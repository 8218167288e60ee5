"""What nothing else beats in every respect."""

from collections.abc import Sequence


def front(points: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """Positions of the points that no other point beats: at least as high everywhere and higher somewhere."""
    return tuple(
        position
        for position, point in enumerate(points)
        if not any(
            all(theirs >= ours for theirs, ours in zip(other, point, strict=True)) and tuple(other) != tuple(point)
            for other in points
        )
    )
