import msgspec
import pytest

from errors import UserError
from measure.traffic import Scenario, Traffic, parse_scenarios

SERVER = Traffic(scenario=Scenario.SERVER, duration_s=10.0, max_batch=8, rate_per_s=100.0, bound_s=0.1)


def traffic(scenario: Scenario) -> Traffic:
    return Traffic(scenario=scenario, duration_s=10.0, max_batch=8)


def test_scenarios_are_read_in_their_order_and_once() -> None:
    assert parse_scenarios("server, offline,server") == (Scenario.SERVER, Scenario.OFFLINE)


@pytest.mark.parametrize("text", ["", "poisson", "server,", "Server"])
def test_an_unknown_scenario_is_named_and_the_known_are_listed(text: str) -> None:
    with pytest.raises(UserError, match="--scenarios has '") as caught:
        parse_scenarios(text)
    assert caught.value.hint == "known are: single-stream, multi-stream, offline, server"


@pytest.mark.parametrize(
    ("scenario", "queries"),
    [(Scenario.SINGLE_STREAM, 64), (Scenario.MULTI_STREAM, 662), (Scenario.SERVER, 662), (Scenario.OFFLINE, 1)],
)
def test_a_test_lasts_until_early_stopping_can_say_something(scenario: Scenario, queries: int) -> None:
    assert traffic(scenario).least_queries == queries
    assert traffic(scenario).longest_s == 60.0


def test_a_server_gives_up_when_more_than_one_per_cent_must_be_late() -> None:
    """100 a second for 10 s: 10 in a bound and 5√10 above it may be in time; 10 of 1,000 may be late; 8 in a batch."""
    assert SERVER.most_waiting == 44
    assert msgspec.structs.replace(SERVER, duration_s=1.0).most_waiting == 41  # 662 queries, not 100
    assert traffic(Scenario.OFFLINE).most_waiting is None


@pytest.mark.parametrize("scenario", Scenario)
def test_how_samples_become_batches_is_told(scenario: Scenario) -> None:
    words = msgspec.structs.replace(traffic(scenario), max_batch=5).batching
    assert words
    assert ("at most 5" in words) is (scenario is Scenario.SERVER)
