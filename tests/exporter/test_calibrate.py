import numpy as np
import pytest
from numpy.typing import NDArray

from exporter.calibrate import Calibration, entropy, minmax, percentile, ranges
from exporter.observe import BINS, Spread
from tests.exporter.graphs import random


def _spread(*parts: NDArray[np.float32]) -> Spread:
    spread = Spread()
    for part in parts:
        spread.add(part)
    return spread


def _uniform(low: float, high: float, count: int = 200_000) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(low, high, count).astype(np.float32)


SHAPES = {
    "normal": random(100_000),
    "skewed": np.exp(random(100_000)),
    "one-sided": np.maximum(random(100_000), 0),
    "negative": -np.abs(random(100_000)) - 3,
    "constant": np.full(100, 0.7, np.float32),
    "zero": np.zeros(100, np.float32),
    "few": np.array([-1.0, 5.0], np.float32),
}


@pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
def test_minmax_is_everything(values: NDArray[np.float32]) -> None:
    found = minmax(_spread(values[: len(values) // 3], values[len(values) // 3 :]))
    assert (found.low, found.high) == (float(values.min()), float(values.max()))


@pytest.mark.parametrize("name", ["normal", "skewed", "one-sided", "negative"])
def test_percentile_is_numpys_within_a_bin(name: str) -> None:
    values = SHAPES[name][:99_990]  # so that no share ends exactly on a value
    spread = _spread(values)
    width = 2 * spread.limit / BINS
    found = percentile(spread)
    expected = np.quantile(values.astype(np.float64), [0.5e-4, 1 - 0.5e-4], method="inverted_cdf")
    assert found.low == pytest.approx(expected[0], abs=1.01 * width)
    assert found.high == pytest.approx(expected[1], abs=1.01 * width)
    inside = ((values >= found.low) & (values <= found.high)).mean()
    assert inside >= 1 - 1.1e-4


def test_percentile_leaves_a_single_far_value_out_and_minmax_does_not() -> None:
    values = np.append(_uniform(-1, 1), np.float32(50))
    assert percentile(_spread(values)).high == pytest.approx(1, abs=0.06)
    assert minmax(_spread(values)).high == 50


def test_entropy_leaves_a_single_far_value_out() -> None:
    found = entropy(_spread(np.append(random(200_000), np.float32(100))))
    assert 2 < found.high < 20
    assert found.low > -20


def test_entropy_keeps_all_of_a_uniform() -> None:
    values = _uniform(-2, 2)
    found = entropy(_spread(values))
    assert found.low <= -1.98
    assert found.high >= 1.98


def test_entropy_keeps_all_of_what_comes_after_a_relu() -> None:
    found = entropy(_spread(np.maximum(_uniform(-2, 2), 0)))
    assert found.low == 0
    assert found.high >= 1.95


@pytest.mark.parametrize("calibration", list(Calibration))
@pytest.mark.parametrize("values", SHAPES.values(), ids=SHAPES)
def test_no_range_goes_beyond_what_was_seen(calibration: Calibration, values: NDArray[np.float32]) -> None:
    (found,) = ranges({"x": _spread(values)}, calibration).values()
    assert float(values.min()) <= found.low <= found.high <= float(values.max())


def test_each_activation_has_its_own_range() -> None:
    spreads = {"a": _spread(_uniform(-1, 2)), "b": _spread(_uniform(-30, 10))}
    found = ranges(spreads, Calibration.MINMAX)
    assert list(found) == ["a", "b"]
    assert found["b"].low < -29.9 < found["a"].low
