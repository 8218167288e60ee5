from random import Random

import pytest

from measure.search import Bracket, Outcome, bracket, next_rate, outcome
from measure.traffic import Judgement, Observed

HELD, LATE, HOPELESS, UNSURE = Outcome.HELD, Outcome.LATE, Outcome.HOPELESS, Outcome.UNSURE


def seen(*, valid: bool, bound_met: bool, latencies_s: tuple[float, ...] = (0.01, 0.2)) -> Observed:
    judgement = Judgement(
        valid=valid,
        bound_met=bound_met,
        duration_met=True,
        queries_met=True,
        early_stopping_met=valid,
        queries=len(latencies_s),
        samples_per_s=1.0,
        words=(),
    )
    return Observed(
        judgement=judgement, latencies_s=latencies_s, issue_delays_s=(0.0, 0.0), batches={1: 2}, rehearsal_s=()
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (seen(valid=True, bound_met=True), HELD),
        (seen(valid=False, bound_met=False), LATE),
        (seen(valid=False, bound_met=False, latencies_s=(0.11, 0.2)), HOPELESS),
        (seen(valid=False, bound_met=True), UNSURE),
    ],
)
def test_a_try_holds_only_when_loadgen_calls_it_valid(found: Observed, expected: Outcome) -> None:
    assert outcome(found, bound_s=0.1) is expected


@pytest.mark.parametrize(
    ("tries", "expected"),
    [
        ({}, Bracket(None, None)),
        ({8.0: HELD}, Bracket(8.0, None)),
        ({8.0: LATE}, Bracket(None, 8.0)),
        ({8.0: HELD, 16.0: HELD, 32.0: LATE, 23.0: LATE}, Bracket(16.0, 23.0)),
        ({8.0: HELD, 16.0: UNSURE, 32.0: LATE}, Bracket(8.0, 16.0)),
        ({4.0: UNSURE, 8.0: HELD, 16.0: LATE}, Bracket(8.0, 16.0)),  # too few queries at 4 says nothing of 8
        ({4.0: HELD, 8.0: LATE, 16.0: HELD}, Bracket(4.0, 8.0)),  # the careful one of two readings
        ({4.0: LATE, 8.0: HELD}, Bracket(None, 4.0)),
        ({4.0: HOPELESS}, Bracket(None, 4.0)),
    ],
)
def test_the_answer_is_the_highest_that_held_below_the_lowest_that_was_late(
    tries: dict[float, Outcome], expected: Bracket
) -> None:
    assert bracket(tries) == expected


@pytest.mark.parametrize(
    ("tries", "expected"),
    [
        ({}, 16.0),
        ({16.0: HELD}, 32.0),
        ({16.0: HELD, 32.0: HELD}, 64.0),
        ({64.0: HELD}, 100.0),  # the most
        ({100.0: HELD}, None),
        ({16.0: HELD, 32.0: LATE}, 22.6),  # √512, to three digits
        ({16.0: HELD, 32.0: UNSURE}, 22.6),
        ({30.0: HELD, 31.4: LATE}, None),  # within 5 %
        ({16.0: LATE}, 8.0),
        ({16.0: LATE, 8.0: LATE, 4.0: LATE}, 2.0),
        ({16.0: LATE, 8.0: LATE, 4.0: LATE, 2.0: LATE}, None),  # an eighth of the start
        ({16.0: UNSURE}, 32.0),  # a higher rate gives more queries
        ({16.0: UNSURE, 32.0: LATE}, 22.6),
        ({16.0: UNSURE, 32.0: LATE, 22.6: HELD}, 26.9),
        ({16.0: HOPELESS}, None),
    ],
)
def test_the_next_rate_follows_from_what_was_tried(tries: dict[float, Outcome], expected: float | None) -> None:
    assert next_rate(tries, start=16.0, most=100.0) == expected


def search(start: float, most: float, capacity: float) -> dict[float, Outcome]:
    tries: dict[float, Outcome] = {}
    while (rate := next_rate(tries, start, most)) is not None:
        assert rate not in tries
        tries[rate] = HELD if rate <= capacity else LATE
        assert len(tries) < 40
    return tries


@pytest.mark.parametrize("capacity", [2.1, 7.0, 16.0, 17.3, 31.9, 100.0, 777.0, 4095.0])
def test_a_capacity_is_found_to_five_per_cent(capacity: float) -> None:
    tries = search(16.0, 1e6, capacity=capacity)
    found = bracket(tries)
    assert found.held is not None
    assert found.missed is not None
    assert found.held <= capacity < found.missed <= 1.05 * found.held
    assert len(tries) < 16


def test_a_search_ends_whatever_the_answers_are() -> None:
    random = Random(0)
    for _ in range(2000):
        tries: dict[float, Outcome] = {}
        while (rate := next_rate(tries, 2.0 ** random.randrange(-3, 8), 1000.0)) is not None:
            assert rate not in tries
            tries[rate] = random.choice((HELD, HELD, LATE, LATE, UNSURE, HOPELESS))
            assert len(tries) < 60
        found = bracket(tries)
        assert found.held is None or found.missed is None or found.held < found.missed
