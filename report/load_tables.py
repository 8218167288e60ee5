"""What a load test's report shows, for the terminal and for `load.md`."""

from measure.search import Outcome
from report.figures import DASH, rate, seconds
from report.load import LoadReport, LoadResult, RateResult
from report.tables import Table

HEADERS = ("Recommendations:", "Early Stopping Result:", "Result is :")
"""Lines of LoadGen's that only lead to others."""

MEANING = {
    Outcome.HELD: "held",
    Outcome.LATE: "p99 was late",
    Outcome.HOPELESS: "even the fastest answer was late",
    Outcome.UNSURE: "too few queries to be sure",
}

LOAD_READING = (
    "A latency is counted from when a query was due, not from when it could be sent: waiting behind a slow one counts.",
    "Percentiles are bounds: with 99 % confidence, that share of answers takes no longer (MLPerf's early stopping). "
    "Cells are empty where the queries are too few: p50 needs 11, p90 64, p99 662, p99.9 6,636.",
    "Single-stream and multi-stream send the next query (1 or 8 samples) when the last is answered; offline sends all "
    "samples at once; server sends single samples at random times (Poisson) and does not wait.",
    "VALID and INVALID are LoadGen's words, with settings of ours: a test lasts until its duration and the queries "
    "that early stopping needs are reached, six times the duration at most. These are no official MLPerf results.",
    "A rate holds when LoadGen calls its test VALID, which includes p99 within the bound. The highest is searched by "
    "doubling, then by bisection to within 5 %; every rate was tried once, with the same arrivals but for their speed.",
)


def load_headline(report: LoadReport) -> tuple[str, ...]:
    """For each candidate, the highest rate that it holds."""
    return tuple(_rate_sentence(item, report.bound_s) for item in report.rates)


def load_table(report: LoadReport) -> Table | None:
    """One line for each candidate and scenario; `None` where no test was finished."""
    if not report.tests:
        return None
    return Table(
        title="Latency from when a query was due, driven by MLPerf LoadGen",
        headers=("candidate", "scenario", "LoadGen says", "queries", "p50", "p90", "p99", "p99.9", "samples/s"),
        rows=tuple(
            (item.name, _scenario(item), _verdict(item), f"{item.queries:,}", *_latency(item), rate(item.samples_per_s))
            for item in report.tests
        ),
    )


def tries_table(report: LoadReport) -> Table | None:
    """Every rate that was tried; `None` where none was searched for."""
    if not report.rates:
        return None
    return Table(
        title=f"Rates that were tried: does p99 stay within {seconds(report.bound_s)}?",
        headers=("candidate", "queries/s", "LoadGen says", "queries", "p50", "p99", "rows a batch", "outcome"),
        rows=tuple(
            (
                found.name,
                rate(item.rate_per_s),
                _verdict(item),
                f"{item.queries:,}",
                seconds(item.latency.p50_s if item.latency else None),
                seconds(item.latency.p99_s if item.latency else None),
                f"{item.rows_per_batch:.2f}",
                MEANING[item.outcome] if item.outcome else DASH,
            )
            for found in report.rates
            for item in found.tries
        ),
        strong=_held(report),
    )


def not_tested(report: LoadReport) -> Table | None:
    """What could not be tested to the end, why, and what would help; `None` when everything was."""
    if not report.failures:
        return None
    return Table(
        title="Not tested to the end",
        headers=("candidate", "at", "why", "what would help"),
        rows=tuple((item.name, item.stage, item.reason, item.remedy or DASH) for item in report.failures),
    )


def invalid(report: LoadReport) -> tuple[str, ...]:
    """LoadGen's reasons for each test that it calls invalid, in its own words; tries of a search are in their table."""
    return tuple(
        f"{item.name}, {_scenario(item)}: INVALID: {' '.join(reasons(item.words))}"
        for item in report.tests
        if not item.valid
    )


def reasons(words: tuple[str, ...]) -> tuple[str, ...]:
    """Those of LoadGen's lines that tell what is wrong."""
    return tuple(line for line in words if not line.startswith(HEADERS) and not line.endswith(": Yes"))


def every_word(report: LoadReport) -> tuple[str, ...]:
    """What LoadGen says of each test, word for word."""
    shown = {(item.name, item.scenario, item.rate_per_s): item for item in report.tests}
    tries = {(item.name, item.scenario, item.rate_per_s): item for found in report.rates for item in found.tries}
    return tuple(f"{item.name}, {_scenario(item)}: {' · '.join(item.words)}" for item in (shown | tries).values())


def how_tested(report: LoadReport) -> tuple[str, ...]:
    """Machine, settings and versions, one line each."""
    machine = report.machine
    batching = dict.fromkeys(f"{item.scenario}: {item.batching}" for item in report.tests)
    delays = [item.issue_delay_s for item in report.tests if item.rate_per_s and item.issue_delay_s is not None]
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return (
        f"Machine: {machine.cpu_model}, {machine.usable_cores} usable cores, {machine.system.split()[0]}; LoadGen and "
        "the engine share them",
        f"Threads: {report.threads} for every engine",
        f"Each test: at least {report.duration_s:g} s, one fresh process of each candidate",
        *(f"Batches, {words}" for words in batching),
        *([f"LoadGen issued 99 % of the server's queries within {seconds(max(delays))} of when due"] if delays else []),
        f"Texts: {report.examples} of {report.data}, tokenised before, at their natural lengths; {report.measured_utc}",
        f"Versions: {versions}, Python {machine.python}",
    )


def _rate_sentence(found: RateResult, bound_s: float) -> str:
    bound = f"p99 within {seconds(bound_s)}"
    missed = f"{rate(found.missed_per_s)} did not hold" if found.missed_per_s else ""
    why = f" ({MEANING[found.missed_because]})" if found.missed_because else ""
    if found.held_per_s is None:
        return f"{found.name} holds no rate that was tried with {bound}: {missed}{why}."
    held = f"{found.name} holds {rate(found.held_per_s)} queries a second with {bound}"
    return f"{held}; {missed}{why}." if missed else f"{held}, the most that was tried."


def _scenario(item: LoadResult) -> str:
    return f"{item.scenario} at {rate(item.rate_per_s)}/s" if item.rate_per_s else str(item.scenario)


def _verdict(item: LoadResult) -> str:
    return "VALID" if item.valid else "INVALID"


def _latency(item: LoadResult) -> tuple[str, ...]:
    found = item.latency
    if found is None:
        return (DASH,) * 4
    return tuple(seconds(value) for value in (found.p50_s, found.p90_s, found.p99_s, found.p999_s))


def _held(report: LoadReport) -> frozenset[int]:
    """Numbers of the tries that are the answers."""
    every = [(item.rate_per_s, found.held_per_s) for found in report.rates for item in found.tries]
    return frozenset(number for number, (tried, held) in enumerate(every) if tried == held)
