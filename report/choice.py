"""Which measured candidate is packed, and the card it carries."""

from artifact.precision import Precision
from artifact.predict.card import Card, CardFigure, Rival
from errors import GateFailed, UserError
from report.verdict import Row, Verdict


def choose(verdict: Verdict, candidate: str | None) -> Row:
    """The recommended candidate, or the named one if it passed.

    Raises `GateFailed` when the named one was rejected or nothing passed, and `UserError` when it was not measured or
    cannot be packed.
    """
    rows = {row.name: row for row in verdict.rows}
    packable = [row.name for row in verdict.rows if row.measured and row.portable]
    if candidate is None:
        if verdict.deployable is None:
            raise GateFailed(
                f"no measured candidate that can be packed keeps its {verdict.measure}",
                "report.md has the reasons; export another precision and compare again",
            )
        return rows[verdict.deployable]
    row = rows.get(candidate)
    if row is None or not row.measured:
        raise UserError(
            f"{candidate} was not measured" + (f": {row.reason}" if row else ""),
            f"measured and packable: {', '.join(packable) or 'nothing'}",
        )
    if not row.portable:
        raise UserError(
            f"{candidate} cannot be packed: {row.runtime} does not run on CPUs without torch",
            f"measured and packable: {', '.join(packable) or 'nothing'}",
        )
    if row.reason is not None:
        raise GateFailed(f"{candidate} was rejected: {row.reason}", "pack another candidate")
    return row


def make_card(verdict: Verdict, row: Row) -> Card:
    """The figures of one measured candidate. The baseline's own ratio is 1."""
    quality = row.quality
    return Card(
        candidate=row.name,
        baseline=verdict.baseline or row.name,
        figures=tuple(
            CardFigure(
                workload=result.workload,
                median_s=result.batch_s,
                ratio=result.speed.ratio if result.speed else 1.0,
                ratio_low=result.speed.low if result.speed else None,
                ratio_high=result.speed.high if result.speed else None,
            )
            for result in row.workloads
        ),
        accuracy_fraction=quality.accuracy_fraction if quality else None,
        reference_accuracy_fraction=quality.accuracy_fraction - quality.difference if quality else None,
        agreement_fraction=quality.agreement_fraction if quality else None,
        examples=quality.examples if quality else None,
        cold_start_s=row.cold_start_s,
        memory_bytes=row.memory_bytes,
        threads=verdict.threads,
        cpu_model=verdict.machine.cpu_model,
        cpu_features=verdict.machine.cpu_features,
        measured_utc=verdict.measured_utc,
        rivals=tuple(
            Rival(
                candidate=other.name,
                precision=Precision(other.precision),
                ratio=other.overall.ratio if other.overall else 1.0,
                accuracy_fraction=other.quality.accuracy_fraction if other.quality else None,
            )
            for other in verdict.rows
            if other.name != row.name and other.measured and other.portable and other.reason is None
        ),
    )
