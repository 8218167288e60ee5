from itertools import permutations

import numpy as np
import pytest

from measure.multiple import holm


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ((), ()),
        ((0.03,), (0.03,)),
        # by hand: 4·0.005, 3·0.01, 2·0.03, and 0.04 is lifted to the 0.06 before it
        ((0.01, 0.04, 0.03, 0.005), (0.03, 0.06, 0.06, 0.02)),
        # 3·0.4 is more than 1, and so is everything after it
        ((0.5, 0.4, 0.9), (1.0, 1.0, 1.0)),
        # equal ones stay equal: 2·0.02, then 1·0.02 is lifted
        ((0.02, 0.02), (0.04, 0.04)),
        ((0.0, 1.0), (0.0, 1.0)),
    ],
)
def test_adjusted_by_hand(p_values: tuple[float, ...], adjusted: tuple[float, ...]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


def test_the_order_given_does_not_matter() -> None:
    expected = {0.001: 0.004, 0.011: 0.033, 0.02: 0.04, 0.3: 0.3}
    for order in permutations(expected):
        assert holm(order) == pytest.approx([expected[p] for p in order])


def test_of_many_true_hypotheses_one_is_called_false_in_a_twentieth_of_cases_at_most() -> None:
    random = np.random.default_rng(1979)
    families = random.uniform(size=(2000, 12))
    wrong = np.mean([min(holm(list(family))) < 0.05 for family in families])
    assert 0.03 <= wrong <= 0.065
    assert np.mean([min(family) < 0.05 for family in families]) > 0.4


def test_what_is_plainly_real_is_found_beside_what_is_not() -> None:
    assert [p < 0.05 for p in holm([1e-6, 0.04, 0.2, 1e-5])] == [True, False, False, True]
