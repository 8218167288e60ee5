"""What looks at the latency between CPUs tell: whether they lie together or apart. Pure functions of numbers."""

from collections.abc import Sequence
from statistics import median, quantiles
from typing import Self

import msgspec

FAR = 1.25
"""How many times the least latency tells that CPUs lie apart. In 16 comparisons on virtual machines of EPYC hosts looks
were up to 1.15 times the least where CPUs lay together, 1.35 times and more where they lay in different core complexes;
one in a hundred was between."""


class CoreDistance(msgspec.Struct, frozen=True, kw_only=True):
    """What looks at the latency between CPUs found, in nanoseconds there and back: with CPUs together, and, where they
    lay apart in some share of the looks, apart."""

    together_ns: float
    apart_ns: float | None
    apart_fraction: float

    @classmethod
    def of(cls, looks_ns: Sequence[float]) -> Self | None:
        """Of several looks; `None` for fewer than two."""
        least_ns = least_latency(looks_ns)
        if least_ns is None:
            return None
        apart = [ns for ns in looks_ns if is_apart(ns, least_ns)]
        return cls(
            together_ns=median(ns for ns in looks_ns if not is_apart(ns, least_ns)),
            apart_ns=median(apart) if apart else None,
            apart_fraction=len(apart) / len(looks_ns),
        )


def least_latency(looks_ns: Sequence[float]) -> float | None:
    """The latency that one look in ten is below; `None` for fewer than two looks."""
    return quantiles(looks_ns, n=10, method="inclusive")[0] if len(looks_ns) > 1 else None


def is_apart(found_ns: float, least_ns: float | None) -> bool:
    """Whether CPUs lie apart, where the least latency is known."""
    return least_ns is not None and found_ns > FAR * least_ns
