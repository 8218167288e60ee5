"""Many tests at once: p-values that allow for how many there were."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values, in the order given: where those below α are called real, the chance of even one false call
    among all is at most α, however the tests depend on one another (Holm, Scandinavian Journal of Statistics 1979).

    The smallest of n is multiplied by n, the next by n - 1, and so on; none may fall below the one before it.
    """
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = least
    return tuple(adjusted)
