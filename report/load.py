"""What load tests say: LoadGen's judgement, bounds of the latencies, and the highest rate that keeps the bound."""

from collections.abc import Sequence

import msgspec

from measure.load_records import LoadRecord, LoadSession, LoadTest
from measure.machine import Machine
from measure.percentiles import upper_bound
from measure.records import Failure
from measure.search import Outcome, bracket
from measure.traffic import Scenario
from report.evidence import BUSY

SCHEMA_VERSION = 1


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that, with 99 % confidence, this share of the latencies does not exceed; `None` where the queries are too
    few to say (11 for p50, 64 for p90, 662 for p99, 6,636 for p99.9)."""

    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    p999_s: float | None


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """One test. `valid` and `words` are LoadGen's; `outcome` is what it says of its rate.

    `latency` is `None` in the offline scenario, where all samples are due at once. `rows_per_batch` is the mean over
    the engine's calls. 99 % of the queries were issued within `issue_delay_s` of when they were due.
    """

    name: str
    scenario: Scenario
    rate_per_s: float | None
    valid: bool
    outcome: Outcome | None
    queries: int
    samples_per_s: float | None
    latency: Bounds | None
    rows_per_batch: float
    issue_delay_s: float | None
    batching: str
    words: tuple[str, ...]


class RateResult(msgspec.Struct, frozen=True, kw_only=True):
    """The highest rate that held and the lowest above it that did not, in queries a second, `None` where there is none;
    and every try, the lowest rate first."""

    name: str
    held_per_s: float | None
    missed_per_s: float | None
    missed_because: Outcome | None
    tries: tuple[LoadResult, ...]


class NotTested(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that could not be tested to the end: where it stopped, why, and what would help."""

    name: str
    stage: str
    reason: str
    remedy: str | None


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that load tests say of one question.

    Of a search, `tests` has the highest rate that held, or the lowest that was tried where none did; `rates` has all.
    """

    schema_version: int
    tests: tuple[LoadResult, ...]
    rates: tuple[RateResult, ...]
    failures: tuple[NotTested, ...]
    warnings: tuple[str, ...]
    machine: Machine
    threads: int
    duration_s: float
    bound_s: float
    max_batch: int
    data: str
    examples: int
    measured_utc: str
    versions: dict[str, str]


def judge_load(records: Sequence[LoadRecord]) -> LoadReport:
    """Derive the report from raw records: the tests that answer the newest session's question, whichever session made
    them. Raises `ValueError` when there is no session at all."""
    sessions = [record for record in records if isinstance(record, LoadSession)]
    if not sessions:
        raise ValueError("no session was recorded")
    session = sessions[-1]
    answers = [record for record in records if isinstance(record, LoadTest) and _answers(record, session)]
    tests: list[LoadResult] = []
    rates: list[RateResult] = []
    for name in session.asked:
        ours = [record for record in answers if record.candidate.id == name]
        for scenario in session.scenarios:
            results = [_result(record) for record in ours if record.traffic.scenario is scenario]
            if results and scenario is Scenario.SERVER and session.rate_per_s is None:
                rates.append(_rate(name, results))
                tests.append(_shown(rates[-1]))
            else:
                tests += results[-1:]
    ours_too = {test.session for test in answers} | {session.session}
    return LoadReport(
        schema_version=SCHEMA_VERSION,
        tests=tuple(tests),
        rates=tuple(rates),
        failures=tuple(_failures(records, session)),
        warnings=tuple(_warnings([item for item in sessions if item.session in ours_too])),
        machine=session.machine,
        threads=session.threads,
        duration_s=session.duration_s,
        bound_s=session.bound_s,
        max_batch=session.max_batch,
        data=session.data,
        examples=session.examples,
        measured_utc=answers[-1].finished_utc if answers else session.started_utc,
        versions=session.versions,
    )


def _answers(record: LoadTest, session: LoadSession) -> bool:
    is_asked = record.fingerprint == session.asked.get(record.candidate.id)
    return is_asked and (session.rate_per_s is None or record.traffic.rate_per_s in (None, session.rate_per_s))


def _result(record: LoadTest) -> LoadResult:
    seen = record.observed
    calls = sum(seen.batches.values())
    latencies = seen.latencies_s
    return LoadResult(
        name=record.candidate.id,
        scenario=record.traffic.scenario,
        rate_per_s=record.traffic.rate_per_s,
        valid=seen.judgement.valid,
        outcome=record.outcome,
        queries=seen.judgement.queries,
        samples_per_s=seen.judgement.samples_per_s,
        latency=None
        if record.traffic.scenario is Scenario.OFFLINE
        else Bounds(
            p50_s=upper_bound(latencies, 0.5),
            p90_s=upper_bound(latencies, 0.9),
            p99_s=upper_bound(latencies, 0.99),
            p999_s=upper_bound(latencies, 0.999),
        ),
        rows_per_batch=sum(rows * count for rows, count in seen.batches.items()) / calls,
        issue_delay_s=upper_bound(seen.issue_delays_s, 0.99),
        batching=record.traffic.batching,
        words=seen.judgement.words,
    )


def _rate(name: str, tries: Sequence[LoadResult]) -> RateResult:
    by_rate = {item.rate_per_s: item for item in tries if item.rate_per_s is not None}
    outcomes = {rate: item.outcome for rate, item in by_rate.items() if item.outcome is not None}
    found = bracket(outcomes)
    return RateResult(
        name=name,
        held_per_s=found.held,
        missed_per_s=found.missed,
        missed_because=None if found.missed is None else outcomes[found.missed],
        tries=tuple(by_rate[rate] for rate in sorted(by_rate)),
    )


def _shown(rate: RateResult) -> LoadResult:
    return next((item for item in rate.tries if item.rate_per_s == rate.held_per_s), rate.tries[0])


def _failures(records: Sequence[LoadRecord], session: LoadSession) -> list[NotTested]:
    return [
        NotTested(name=record.name, stage=record.stage, reason=record.reason, remedy=record.hint or None)
        for record in records
        if isinstance(record, Failure) and record.session == session.session
    ]


def _warnings(sessions: Sequence[LoadSession]) -> list[str]:
    loads = [session.load for session in sessions if session.load]
    found = []
    busy = max((load.busy_fraction for load in loads), default=0.0)
    if busy > BUSY:
        found.append(f"other programs used {busy:.0%} of the CPU just before the tests: close them")
    stolen = max((load.steal_fraction or 0.0 for load in loads), default=0.0)
    if stolen > BUSY:
        found.append(f"other virtual machines took {stolen:.0%} of the CPU just before the tests")
    return found
