"""The gate first, then the limits, then the objective: which candidate to ship, and why not the others."""

from collections.abc import Sequence

import msgspec

from measure.records import Record, Role
from report.evidence import Evidence
from report.figures import size, times
from report.pareto import front
from report.policy import Objective, Policy
from report.verdict import SCHEMA_VERSION, Ratio, Row, Verdict

DEFAULT = Policy()


def judge(records: Sequence[Record], policy: Policy = DEFAULT) -> Verdict:
    """Derive the verdict from raw records.

    Only measurements that answer the newest session's question count, whichever session made them. Raises
    `ValueError` when there is no session at all.
    """
    evidence = Evidence(records, policy)
    rows = sorted(evidence.rows, key=_order)
    passing = [row for row in rows if row.measured and row.reason is None and row.role is not Role.CONTROL]
    deployable = [row for row in passing if row.portable]
    best, fastest = (_best(found, policy.objective) for found in (deployable, passing))
    others = [row for row in passing if row is not best]
    against = dict(zip((row.name for row in others), evidence.against(best, others) if best else (), strict=False))
    beside = [(row, against.get(row.name)) for row in others if row.portable]  # none where there is no best
    session = evidence.session
    return Verdict(
        schema_version=SCHEMA_VERSION,
        baseline=evidence.anchor.name if evidence.anchor else None,
        fastest=fastest.name if fastest else None,
        deployable=best.name if best else None,
        close=tuple(row.name for row, ratio in beside if ratio is None or ratio.is_close),
        pareto=_pareto(rows),
        control=evidence.control,
        noise=evidence.noise,
        policy=policy,
        rows=tuple(
            msgspec.structs.replace(row, lost=_lost(row, best, against[row.name], policy.objective))
            if best and row.name in against
            else row
            for row in rows
        ),
        warnings=evidence.warnings,
        machine=session.machine,
        threads=session.threads,
        budget=session.plan.name,
        replicates=session.plan.replicates,
        rounds=evidence.rounds,
        data=session.data,
        examples=session.examples,
        sessions=len(evidence.sessions),
        harness_floor_s=next((found for item in evidence.sessions if (found := item.harness_floor_s)), None),
        measured_utc=(evidence.sessions or [session])[-1].started_utc,
        versions=session.versions,
        tokenizer_texts_per_s=evidence.tokenizer_texts_per_s,
        overhead=evidence.overhead,
        judged=session.judged,
        sees=any(spec.seen for spec in session.workloads),
        hears=any(spec.heard_s for spec in session.workloads),
    )


def _order(row: Row) -> tuple[int, float, str]:
    """Anchor and its control first, then the measured by speed, then the rest."""
    if not row.measured:
        return 3, 0.0, row.name
    rank = {Role.ANCHOR: 0, Role.CONTROL: 1}.get(row.role, 2)
    return rank, -speed(row), row.name


def _best(rows: Sequence[Row], objective: Objective) -> Row | None:
    """The fastest, or the smallest and among equally small ones the fastest."""
    if objective is Objective.SIZE:
        return min(rows, key=lambda row: (row.model_bytes or 0, -speed(row)), default=None)
    return max(rows, key=speed, default=None)


def speed(row: Row) -> float:
    """Speed as a multiple of the anchor's, which is 1 by definition; 0 where nothing ran beside it."""
    if row.role is Role.ANCHOR:
        return 1.0
    return row.overall.ratio if row.overall else 0.0


def _lost(row: Row, best: Row, ratio: Ratio | None, objective: Objective) -> str:
    """Why `best` is recommended and not this one, whose speed is `ratio` times the best's."""
    if not row.portable:
        return "it needs its own engine where it is deployed"
    if objective is Objective.SIZE and (row.model_bytes or 0) > (best.model_bytes or 0):
        return f"its file has {size(row.model_bytes)}, and that of {best.name} {size(best.model_bytes)}"
    if ratio is None:
        return f"it never ran beside {best.name}"
    if not ratio.is_known:
        return f"not decided: {times(ratio)} the speed of {best.name}"
    if ratio.is_close:
        return f"too close to call: {times(ratio)} the speed of {best.name}"
    return f"{times(ratio)} the speed of {best.name}"


def _pareto(rows: Sequence[Row]) -> tuple[str, ...]:
    """Those that the policy allows and that no other such candidate beats in both speed and accuracy."""
    known = [row for row in rows if row.measured and not row.reason and row.role is not Role.CONTROL and row.quality]
    found = front([(speed(row), row.quality.accuracy_fraction) for row in known if row.quality])
    return tuple(known[index].name for index in found)
