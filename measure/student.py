"""Student's t for any degrees of freedom, whole or not: its tail and its quantiles.

The tail is half the regularised incomplete beta function I_x(df/2, 1/2) at x = df / (df + t²), which is worked out by
its continued fraction (NIST Digital Library of Mathematical Functions, 8.17.22).
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from math import erfc, exp, inf, isnan, lgamma, log1p, sqrt, tau

NORMAL_FROM = 1e6
"""Degrees of freedom from which the normal distribution stands in: at t = 5 the tail is then wrong by 0.02 % of it."""


def tail(t: float, df: float) -> float:
    """Probability that Student's t with `df` degrees of freedom exceeds `t` (one-sided); both may be infinite.

    Raises `ValueError` unless `df` is above 0 and `t` is a number.
    """
    if isnan(t) or not df > 0:
        raise ValueError(f"Student's t has no tail above {t} with {df} degrees of freedom")
    if t < 0:
        return 1 - tail(-t, df)
    if t == inf:
        return 0.0
    if df >= NORMAL_FROM:
        return erfc(t / sqrt(2)) / 2
    a, b = df / 2, 0.5
    x, rest = df / (df + t * t), t * t / (df + t * t)
    weight = exp(-a * log1p(t * t / df) - _log_beta(df)) * t / sqrt(df + t * t)
    if x < (a + 1) / (a + b + 2):
        return weight / a * _fraction(a, b, x) / 2
    return 0.5 - weight / b * _fraction(b, a, rest) / 2


@lru_cache(maxsize=4096)  # a search for how many processes are enough asks for the same few again and again
def quantile(p: float, df: float) -> float:
    """The value that Student's t with `df` degrees of freedom stays below with probability `p`.

    Newton's method on the tail, which is convex from 0 on: each step falls short, so none overshoots.
    Raises `ValueError` unless 0 < `p` < 1 and `df` is above 0.
    """
    if not 0 < p < 1 or not df > 0:
        raise ValueError(f"Student's t has no quantile {p} with {df} degrees of freedom")
    if p > 0.5:
        return -quantile(1 - p, df)
    t = 0.0
    while (step := (tail(t, df) - p) / _density(t, df)) > 1e-14 * t:
        t += step
    return -t


def _density(t: float, df: float) -> float:
    if df >= NORMAL_FROM:
        return exp(-t * t / 2) / sqrt(tau)
    return exp(-(df + 1) / 2 * log1p(t * t / df) - _log_beta(df)) / sqrt(df)


def _log_beta(df: float) -> float:
    """Logarithm of the beta function B(df/2, 1/2)."""
    return lgamma(df / 2) + lgamma(0.5) - lgamma((df + 1) / 2)


def _fraction(a: float, b: float, x: float) -> float:
    """1 / (1 + d₁ / (1 + d₂ / …)) of I_x(a, b), from the top down (Lentz, Applied Optics 1976).

    Converges fast where x < (a + 1) / (a + b + 2); elsewhere I_x(a, b) = 1 - I_(1-x)(b, a) is used.
    """
    terms = _terms(a, b, x)
    value = numerator = 1.0
    denominator = factor = 0.0
    while abs(factor - 1) > 1e-15:
        term = next(terms)
        numerator = 1 + term / numerator
        denominator = 1 / (1 + term * denominator)
        factor = numerator * denominator
        value *= factor
    return 1 / value


def _terms(a: float, b: float, x: float) -> Iterator[float]:
    """d₁, d₂, …"""
    for m in count():
        yield -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        yield (m + 1) * (b - m - 1) * x / ((a + 2 * m + 1) * (a + 2 * m + 2))
