"""Hand-made records of load tests, so that bounds and rates can be worked out on paper."""

from collections.abc import Sequence

import msgspec

from artifact.precision import Precision
from measure.load_records import LoadSession, LoadTest
from measure.machine import Load
from measure.records import SCHEMA_VERSION
from measure.traffic import Judgement, Observed, Scenario, Traffic
from runtimes.base import Candidate, RuntimeInfo
from tests.report.records import MACHINE, QUIET

NAMES = ("ort-cpu/int8-dynamic", "torch-cpu/fp32")


def session(
    name: str = "s1",
    *,
    asked: Sequence[str] = NAMES,
    scenarios: Sequence[Scenario] = tuple(Scenario),
    rate_per_s: float | None = None,
    work: str = "",
    load: Load | None = QUIET,
) -> LoadSession:
    return LoadSession(
        schema_version=SCHEMA_VERSION,
        session=name,
        asked={candidate: f"{candidate} {work}" for candidate in asked},
        started_utc="2026-01-01T00:00:00+00:00",
        machine=MACHINE,
        load=load,
        threads=2,
        scenarios=tuple(scenarios),
        duration_s=10.0,
        bound_s=0.1,
        max_batch=8,
        rate_per_s=rate_per_s,
        data="reviews.csv",
        examples=1000,
        inputs_sha256="i",
        versions={"mlcommons-loadgen": "6.0.17"},
        environment={},
    )


def driven(
    name: str,
    scenario: Scenario,
    latencies_s: Sequence[float],
    *,
    rate_per_s: float | None = None,
    valid: bool = True,
    bound_met: bool | None = None,
    samples_per_s: float | None = None,
    words: Sequence[str] | None = None,
    session_name: str = "s1",
    work: str = "",
) -> LoadTest:
    candidate = Candidate.parse(name)
    verdict = "VALID" if valid else "INVALID"
    return LoadTest(
        schema_version=SCHEMA_VERSION,
        session=session_name,
        fingerprint=f"{name} {work}",
        runtime=candidate.runtime,
        precision=Precision(candidate.precision),
        options=candidate.options,
        info=RuntimeInfo(
            runtime=candidate.runtime,
            engine="engine",
            engine_version="1",
            device="cpu",
            dtype="fp32",
            threads=2,
            input_names=("input_ids",),
            options={},
        ),
        model_sha256="m",
        traffic=Traffic(
            scenario=scenario,
            duration_s=10.0,
            max_batch=8,
            rate_per_s=rate_per_s,
            bound_s=0.1 if rate_per_s else None,
        ),
        observed=Observed(
            judgement=Judgement(
                valid=valid,
                bound_met=bound_met,
                duration_met=True,
                queries_met=True,
                early_stopping_met=valid,
                queries=1 if scenario is Scenario.OFFLINE else len(latencies_s),
                samples_per_s=samples_per_s,
                words=tuple(words or (f"Result is : {verdict}", "Min duration satisfied : Yes")),
            ),
            latencies_s=tuple(latencies_s),
            issue_delays_s=tuple(latency / 1000 for latency in latencies_s),
            batches={1: 300, 4: 100},
            rehearsal_s=(0.01,),
        ),
        finished_utc="2026-01-01T00:00:20+00:00",
    )


MILLISECONDS = tuple(number / 1000 for number in range(1, 663))
"""1 to 662 ms: the fewest for a p99, which is the slowest of them."""

FEW = MILLISECONDS[:20]
FAST = tuple(number / 10_000 for number in range(1, 1001))
"""0.1 to 100 ms."""

SLOW = tuple(0.09 + latency for latency in FAST)
OBJECTIONS = (
    "Result is : INVALID",
    "Performance constraints satisfied : NO",
    "Min duration satisfied : Yes",
    "Recommendations:",
    "* Reduce target QPS to improve latency.",
)


def searched(name: str = NAMES[0], session_name: str = "s1") -> list[LoadTest]:
    """16 and 32 queries a second hold, 64 and 45 are late, 38 has too few queries to be sure."""
    server = Scenario.SERVER

    def late(rate: float) -> LoadTest:
        found = driven(name, server, SLOW, rate_per_s=rate, valid=False, bound_met=False, words=OBJECTIONS)
        return msgspec.structs.replace(found, session=session_name)

    def held(rate: float) -> LoadTest:
        return driven(name, server, FAST, rate_per_s=rate, bound_met=True, session_name=session_name)

    unsure = driven(name, server, FAST, rate_per_s=38.0, valid=False, bound_met=True, session_name=session_name)
    return [held(16.0), held(32.0), late(64.0), late(45.0), unsure]
